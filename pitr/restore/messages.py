"""What PostgreSQL's log says when a recovery fails, translated into an error with the next step."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from pitr.core.errors import (
    HistoryMismatch,
    IntegrityError,
    PitrError,
    TargetUnreachable,
    ToolFailed,
    ToolMissing,
    WalGap,
)


@dataclass(frozen=True, slots=True)
class _Known:
    pattern: re.Pattern[str]
    error: Callable[..., PitrError]
    message: str
    hint: str


def _known(pattern: str, error: Callable[..., PitrError], message: str, hint: str) -> _Known:
    return _Known(re.compile(pattern), error, message, hint)


_KNOWN = (
    _known(
        r"recovery ended before configured recovery target was reached",
        WalGap,
        "recovery ended before its target: WAL that was there when the restore was planned could not be fetched",
        'look for messages of "pitr wal fetch" above it in the log, then restore again with --delta',
    ),
    _known(
        r"requested recovery stop point is before consistent recovery point",
        TargetUnreachable,
        "the target lies before the end of the backup",
        'restore from an older backup: "pitr list" shows them, "pitr restore base" without an id chooses one',
    ),
    _known(
        r"insufficient parameter settings|hot standby is not possible because of insufficient parameter",
        ToolFailed,
        "a setting of the restored server is lower than it was on the primary",
        "raise the setting that the log names in postgresql.auto.conf and start again; recovery goes on",
    ),
    _known(
        r"requested timeline \d+ is not a child of this server's history"
        r"|requested timeline \d+ does not contain minimum recovery point",
        HistoryMismatch,
        "the backup is not part of the history of the timeline that was asked for",
        'restore again with --timeline of the backup\'s own history; "pitr status" shows the timelines',
    ),
    _known(
        r"recovery target timeline \d+ does not exist",
        HistoryMismatch,
        "the history file of the target timeline could not be fetched",
        'look for messages of "pitr wal fetch" above it in the log; "pitr wal status" shows gaps',
    ),
    _known(
        r"could not locate (?:required|a valid) checkpoint record|could not find redo location",
        WalGap,
        "the WAL at the beginning of the backup could not be fetched",
        'look for messages of "pitr wal fetch" above it in the log, then start again; keep backup_label where it is',
    ),
    _known(
        r"WAL contains references to invalid pages",
        IntegrityError,
        "the WAL refers to pages that the restored files do not have",
        "the files were changed after the restore, or the backup is damaged: restore again, from another backup",
    ),
    _known(
        r"multiple recovery targets specified",
        ToolFailed,
        "a second recovery target stands in the server's configuration or on its command line",
        "remove every recovery_target setting but those in postgresql.auto.conf and start again",
    ),
    _known(
        r"could not (?:load library|access file) \"(?P<what>[^\"]*)\"",
        ToolMissing,
        "a library that the server preloads is not installed here",
        "install its package, or take it out of shared_preload_libraries, then start again",
    ),
    _known(
        r"database files are incompatible with server",
        ToolMissing,
        "the server programs are of another version or build than the backup",
        "start it with the major version of the backup",
    ),
    _known(
        r"could not translate .*locale|is not a valid locale|database locale is incompatible",
        ToolMissing,
        "a locale of the backup's databases is not installed here",
        "install the locale (Debian: dpkg-reconfigure locales) and start again",
    ),
    _known(
        r"lock file \"[^\"]*\" already exists|could not bind .*address already in use|could not create any .*sockets",
        ToolFailed,
        "another server uses the port or socket directory of the restored configuration",
        'start it on another port: pg_ctl -o "-p 5433"',
    ),
)


def explain_log(log: str) -> PitrError | None:
    """The error for the first known FATAL or PANIC in a server log; None when there is none. ``detail`` is its line."""
    for line in log.splitlines():
        if "FATAL" not in line and "PANIC" not in line:
            continue
        for known in _KNOWN:
            if known.pattern.search(line):
                return known.error(known.message, detail=line.strip()[:500], hint=known.hint)
    return None
