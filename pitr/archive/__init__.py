"""The WAL archive: ``archive_command`` (push), ``restore_command`` (fetch), server settings, how the archive stands."""
