"""Quoting of a command for archive_command, and of a setting's value for its three places."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from pitr.core.errors import ConfigError


def archive_command(prefix: Sequence[str]) -> str:
    """The value of archive_command. The server replaces ``%p`` and takes ``%%`` for a percent sign (pgarch.c).

    Raises ConfigError for words that no setting can hold.
    """
    return f'{server_command(prefix)} wal push "%p"'


def server_command(prefix: Sequence[str]) -> str:
    """Words for a shell that the server starts, with percent signs doubled."""
    for word in prefix:
        if any(character in word for character in "\n\r\0"):
            raise ConfigError(
                "a path in the command holds a line break, which no PostgreSQL setting can hold", detail=repr(word)
            )
    return shlex.join(prefix).replace("%", "%%")


def for_conf(value: str) -> str:
    """For postgresql.conf: quotes doubled, and backslashes, which GUC_scanstr takes for escapes (guc-file.l)."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def for_sql(value: str) -> str:
    """For ALTER SYSTEM, whatever standard_conforming_strings says."""
    quoted = "'" + value.replace("'", "''") + "'"
    return "E" + quoted.replace("\\", "\\\\") if "\\" in value else quoted


def for_yaml(value: str) -> str:
    """A single-quoted YAML scalar."""
    return "'" + value.replace("'", "''") + "'"
