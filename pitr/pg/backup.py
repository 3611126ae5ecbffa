"""The low-level backup interface (access/transam/xlogfuncs.c) and the two files it hands out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from pitr.core.errors import IntegrityError
from pitr.pg.lsn import Lsn
from pitr.pg.server import server_errors

if TYPE_CHECKING:
    from pitr.pg.server import Connection

_PRIVILEGE_HINT = (
    'as superuser: "GRANT EXECUTE ON FUNCTION {start}, {stop} TO <role>", or connect as a superuser or pg_backup role'
)
_RENAMED_IN = 150000
_LABEL_LINES = {
    "start": re.compile(r"^START WAL LOCATION: ([0-9A-F]+/[0-9A-F]+) \(file ([0-9A-F]{24})\)$", re.M),
    "checkpoint": re.compile(r"^CHECKPOINT LOCATION: ([0-9A-F]+/[0-9A-F]+)$", re.M),
    "timeline": re.compile(r"^START TIMELINE: ([0-9]+)$", re.M),
    "from": re.compile(r"^BACKUP FROM: (primary|master|standby)$", re.M),
    "label": re.compile(r"^LABEL: (.*)$", re.M),
}


@dataclass(frozen=True, slots=True)
class BackupStarted:
    """``start_lsn`` is the redo position of the checkpoint that the backup begins with."""

    start_lsn: Lsn


@dataclass(frozen=True, slots=True)
class BackupStopped:
    """What must be stored with the backup: the files ``backup_label`` and (unless empty) ``tablespace_map``."""

    stop_lsn: Lsn
    label_file: str
    tablespace_map: str


@dataclass(frozen=True, slots=True)
class BackupLabel:
    """The content of a backup_label file."""

    start_lsn: Lsn
    start_segment: str
    checkpoint_lsn: Lsn
    timeline: int
    from_standby: bool
    label: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises IntegrityError when a line that recovery needs is missing."""
        found = {key: pattern.search(text) for key, pattern in _LABEL_LINES.items()}
        start, checkpoint, timeline, origin = (found[key] for key in ("start", "checkpoint", "timeline", "from"))
        if start is None or checkpoint is None or timeline is None or origin is None:
            raise IntegrityError("backup_label is incomplete", detail=text[:500])
        label = found["label"]
        return cls(
            start_lsn=Lsn.parse(start[1]),
            start_segment=start[2],
            checkpoint_lsn=Lsn.parse(checkpoint[1]),
            timeline=int(timeline[1]),
            from_standby=origin[1] == "standby",
            label=label[1] if label is not None else "",
        )


def parse_tablespace_map(text: str) -> dict[int, str]:
    """Tablespace OID to directory, unescaped as read_tablespace_map does. Raises IntegrityError."""
    locations: dict[int, str] = {}
    for line in re.findall(r"(?:[^\n\r\\]|\\.)+", text, re.DOTALL):
        oid, separator, path = line.partition(" ")
        if not separator or not oid.isascii() or not oid.isdigit() or not path:
            raise IntegrityError("tablespace_map cannot be understood", detail=line)
        locations[int(oid)] = re.sub(r"\\(.)", r"\1", path, flags=re.DOTALL)
    return locations


def render_tablespace_map(locations: dict[int, str]) -> str:
    """The inverse of parse_tablespace_map."""
    lines = []
    for oid, path in sorted(locations.items()):
        escaped = re.sub(r"([\n\r\\])", r"\\\1", path)
        lines.append(f"{oid} {escaped}\n")
    return "".join(lines)


def backup_start(connection: Connection, label: str, *, fast: bool = True) -> BackupStarted:
    """Begin a backup; it ends with backup_stop, or aborts with this session.

    ``fast`` asks for an immediate checkpoint; otherwise this waits for a spread one. Raises PrivilegeMissing.
    """
    if connection.info.server_version >= _RENAMED_IN:
        query, hint = (
            "SELECT pg_backup_start(%s, %s)::text",
            _hint("pg_backup_start(text, boolean)", "pg_backup_stop(boolean)"),
        )
    else:
        query = "SELECT pg_start_backup(%s, %s, false)::text"
        hint = _hint("pg_start_backup(text, boolean, boolean)", "pg_stop_backup(boolean, boolean)")
    with server_errors("cannot start the backup", privilege_hint=hint):
        row = connection.execute(query.encode(), (label, fast)).fetchone()
    assert row is not None
    return BackupStarted(Lsn.parse(row[0]))


def backup_stop(connection: Connection) -> BackupStopped:
    """End the backup of this session without waiting for the archive: the caller proves the archive itself.

    On a primary this switches to a new segment, so that the one holding the stop position gets archived.
    Raises QueryFailed when the server says that the backup is not usable (e.g. its standby was promoted meanwhile).
    """
    renamed = connection.info.server_version >= _RENAMED_IN
    function = "pg_backup_stop(false)" if renamed else "pg_stop_backup(false, false)"
    with server_errors("cannot stop the backup"):
        row = connection.execute(f"SELECT lsn::text, labelfile, spcmapfile FROM {function}".encode()).fetchone()
    assert row is not None
    return BackupStopped(Lsn.parse(row[0]), row[1], row[2] or "")


def _hint(start: str, stop: str) -> str:
    return _PRIVILEGE_HINT.format(start=start, stop=stop)
