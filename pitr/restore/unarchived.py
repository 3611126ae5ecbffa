"""WAL that nobody has but the directory that --delta is about to overwrite."""

from __future__ import annotations

from pathlib import Path

from pitr.core.errors import ObjectNotFound, OverwriteRefused
from pitr.core.files import os_errors_as_pitr
from pitr.pg.segments import PartialName, parse_archive_name
from pitr.repo.names import HistoryNames
from pitr.repo.repository import Repository

_READY = ".ready"


def require_archived(repository: Repository, names: HistoryNames, directory: Path, segment_size: int) -> None:
    """A restore removes what is in pg_wal: refuse while a file that waits for the archiver is not in the archive.

    Raises OverwriteRefused, StoreError.
    """
    status = directory / "pg_wal" / "archive_status"
    with os_errors_as_pitr(f"cannot look into {status}"):
        ready = sorted(path.name.removesuffix(_READY) for path in status.glob(f"*{_READY}")) if status.is_dir() else []
    for file in ready:
        if (directory / "pg_wal" / file).exists() and not _is_archived(repository, names, file, segment_size):
            raise OverwriteRefused(
                f"pg_wal/{file} is not in the archive, and --delta would remove it",
                detail=f"{len(ready)} files in {status} wait for the archiver",
                hint=f'archive them: in {directory}, "pitr wal push pg_wal/{file}" and so on; '
                f"if they are not wanted, remove {status}/*{_READY}",
            )


def _is_archived(repository: Repository, names: HistoryNames, file: str, segment_size: int) -> bool:
    try:
        name = parse_archive_name(file, segment_size)
    except ValueError:
        return True  # nothing that PostgreSQL archives
    if isinstance(name, PartialName):
        return next(repository.store.list(names.partial_prefix(name.segment)), None) is not None
    try:
        repository.store.stat(names.wal_file(name))
    except ObjectNotFound:
        return False
    return True
