"""A file that PostgreSQL hands over for archiving: read once, identified and checked (storage rules: FORMAT.md)."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from pitr.core.errors import ConfigError, HistoryMismatch, IntegrityError, UsageError
from pitr.core.files import os_errors_as_pitr
from pitr.pg.control import CONTROL_FILE, ControlData, read_control
from pitr.pg.lsn import Lsn
from pitr.pg.segments import (
    MAX_SEGMENT_SIZE,
    ArchiveName,
    BackupHistoryName,
    HistoryName,
    PartialName,
    SegmentName,
    parse_archive_name,
)
from pitr.pg.timelines import History
from pitr.repo.identity import FORMAT, Identity
from pitr.wal.pages import LongHeader
from pitr.wal.segment import check_segment, valid_prefix

_BEGINS_WITH_SEGMENT = re.compile(r"[0-9A-F]{24}(\.partial)?")
_SMALL_FILE_BYTES = 1 << 20
_START_LINE = (
    r"START WAL LOCATION: ([0-9A-F]{1,8}/[0-9A-F]{1,8}) \(file ([0-9A-F]{24})\)\nSTOP WAL LOCATION: [0-9A-F]{1,8}/"
)


class WalFile(NamedTuple):
    """``identity``: of the cluster that wrote it, as to be recorded if the repository does not know it yet.

    ``valid_end`` of a partial: behind its last whole record.
    """

    name: ArchiveName
    data: bytes
    identity: Identity
    valid_end: Lsn | None = None


def find_data_directory(path: Path, configured: Path | None) -> Path | None:
    """The data directory that ``pg_wal/FILE`` lies in: the server's working directory for ``%p``, else as configured.

    pg_wal may be a link, so the path is taken as it is written.
    """
    candidates = [path.parent.parent] if path.parent.name == "pg_wal" else []
    candidates += [] if configured is None else [configured]
    return next((candidate for candidate in candidates if (candidate / CONTROL_FILE).exists()), None)


def read_wal_file(path: Path, cluster: str, now: datetime, *, data_directory: Path | None = None) -> WalFile:
    """Read and check a segment, history file, backup history file or partial.

    Raises UsageError (not a name of the archive), LocalFileError, IntegrityError (truncated, torn, damaged) and
    HistoryMismatch (of another cluster, timeline or place than its name and its data directory say).
    """
    directory = find_data_directory(path, data_directory)
    control = None if directory is None else read_control(directory / CONTROL_FILE)
    data = _read(path)
    if _BEGINS_WITH_SEGMENT.fullmatch(path.name):
        return _segment_or_partial(path, data, control, cluster, now)
    if control is None:
        _parse_name(path, 16 << 20)
        raise ConfigError(
            f"cannot tell which cluster {path.name} belongs to",
            detail=f"there is no {CONTROL_FILE} beside {path.parent}",
            hint="run it in the data directory as archive_command does, or set data_directory of the cluster",
        )
    name = _parse_name(path, control.segment_size_bytes)
    if isinstance(name, HistoryName):
        _check_history(name, data)
    elif isinstance(name, BackupHistoryName):
        _check_backup_history(name, data)
    return WalFile(name, data, _identity(cluster, control, now))


def _segment_or_partial(path: Path, data: bytes, control: ControlData | None, cluster: str, now: datetime) -> WalFile:
    header = LongHeader.read(data, path.name)
    if control is not None and header.system_id != control.system_identifier:
        raise HistoryMismatch(
            f"WAL segment {path.name} belongs to another cluster",
            detail=f"system identifier {header.system_id}, {control.system_identifier} in {CONTROL_FILE}",
            hint="it was copied here from another server; the archive was left as it is",
        )
    size = header.segment_size if control is None else control.segment_size_bytes
    name = _parse_name(path, size)
    identity = Identity(
        FORMAT, cluster, str(header.system_id), header.major, size, _data_block_size(header, control), now
    )
    if isinstance(name, PartialName):
        return WalFile(name, data, identity, _check_partial(name, data, header.system_id))
    assert isinstance(name, SegmentName)
    check_segment(data, name, system_id=header.system_id, history=_local_history(path, name.timeline))
    return WalFile(name, data, identity)


def _data_block_size(header: LongHeader, control: ControlData | None) -> int:
    """Of the data files. WAL says its own only; the two differ on servers built that way, which have a pg_control."""
    return header.block_size if control is None else control.block_size_bytes


def _identity(cluster: str, control: ControlData, now: datetime) -> Identity:
    return Identity(
        FORMAT,
        cluster,
        str(control.system_identifier),
        control.major,
        control.segment_size_bytes,
        control.block_size_bytes,
        now,
    )


def _read(path: Path) -> bytes:
    with os_errors_as_pitr(f"cannot read {path}"), path.open("rb") as file:
        data = file.read(MAX_SEGMENT_SIZE + 1)
    if not data:
        raise IntegrityError(f"{path} is empty")
    return data


def _parse_name(path: Path, segment_size: int) -> ArchiveName:
    try:
        return parse_archive_name(path.name, segment_size)
    except ValueError as error:
        raise UsageError(
            f'"{path.name}" is not the name of a file that PostgreSQL archives',
            detail=str(error),
            hint='archive_command must end with: wal push "%p"',
        ) from error


def _local_history(path: Path, timeline: int) -> History | None:
    """The history file beside the segment; with it the timeline of every page is checked."""
    if timeline == 1:
        return History.initial(1)
    beside = path.with_name(str(HistoryName(timeline)))
    try:
        return History.parse(timeline, beside.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise IntegrityError(f"{beside} cannot be read as a timeline history", detail=str(error)) from error


def _check_history(name: HistoryName, data: bytes) -> None:
    try:
        history = History.parse(name.timeline, _text(name, data))
    except ValueError as error:
        raise IntegrityError(f"{name} is not a timeline history file", detail=str(error)) from error
    if not history.entries:
        raise IntegrityError(f"{name} is not a timeline history file", detail="it names no parent timeline")


def _check_backup_history(name: BackupHistoryName, data: bytes) -> None:
    match = re.match(_START_LINE, _text(name, data))
    if match is None:
        raise IntegrityError(f"{name} is not a backup history file", detail="it does not begin with its WAL locations")
    start = Lsn.parse(match[1])
    if match[2] != str(name.segment) or start != name.segment.start + name.offset:
        raise IntegrityError(
            f"{name} has the content of another backup history file", detail=f"it begins at {start} in {match[2]}"
        )


def _check_partial(name: PartialName, data: bytes, system_id: int) -> Lsn:
    if len(data) > name.segment.size_bytes:
        raise IntegrityError(f"{name} is longer than a segment", detail=f"{len(data)} bytes")
    return valid_prefix(data, name.segment, system_id=system_id)


def _text(name: ArchiveName, data: bytes) -> str:
    """Labels and names of restore points stand in it in the encoding of some database."""
    if len(data) > _SMALL_FILE_BYTES:
        raise IntegrityError(f"{name} is too large", detail=f"{len(data)} bytes")
    return data.decode("utf-8", "replace")
