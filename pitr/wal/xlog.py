"""Records of the resource managers XLOG, TBLSPC and DBASE (catalog/pg_control.h, commands/*_xlog.h)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, TypeVar

from pitr.core.errors import IntegrityError
from pitr.pg.lsn import Lsn
from pitr.wal.records import (
    RM_DBASE,
    RM_TBLSPC,
    RM_XLOG,
    XLOG_CHECKPOINT_ONLINE,
    XLOG_CHECKPOINT_SHUTDOWN,
    XLOG_END_OF_RECOVERY,
    XLOG_OVERWRITE_CONTRECORD,
    Record,
)

XLOG_BACKUP_END = 0x50
XLOG_PARAMETER_CHANGE = 0x60
XLOG_RESTORE_POINT = 0x70
XLOG_FPW_CHANGE = 0x80

WalLevel = Literal["minimal", "replica", "logical"]
_WAL_LEVELS: tuple[WalLevel, ...] = ("minimal", "replica", "logical")

_POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Decoded = TypeVar("Decoded")


def timestamp(microseconds: int) -> datetime:
    """A TimestampTz: microseconds since 2000-01-01, as aware UTC. Raises OverflowError outside the years 1 to 9999."""
    return _POSTGRES_EPOCH + timedelta(microseconds=microseconds)


def microseconds(moment: datetime) -> int:
    """The inverse of timestamp."""
    return (moment - _POSTGRES_EPOCH) // timedelta(microseconds=1)


def decode(record: Record, decoder: Callable[[bytes], Decoded]) -> Decoded:
    """Apply decoder to the main data; what does not fit raises IntegrityError."""
    data = record.main_data()
    try:
        return decoder(data)
    except (struct.error, ValueError, IndexError, OverflowError) as error:
        raise IntegrityError(f"WAL record at {record.lsn} is damaged", detail=str(error)) from None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    lsn: Lsn
    online: bool
    redo: Lsn
    timeline: int
    previous_timeline: int
    full_page_writes: bool
    wal_level: WalLevel | None
    """17 and newer"""
    next_xid: int
    """With the epoch in the upper 32 bits."""
    time: datetime


@dataclass(frozen=True, slots=True)
class RestorePoint:
    lsn: Lsn
    end_lsn: Lsn
    name: str
    time: datetime


@dataclass(frozen=True, slots=True)
class EndOfRecovery:
    """A promotion: ``timeline`` begins."""

    lsn: Lsn
    timeline: int
    previous_timeline: int
    time: datetime


@dataclass(frozen=True, slots=True)
class BackupEnd:
    lsn: Lsn
    end_lsn: Lsn
    start_lsn: Lsn


@dataclass(frozen=True, slots=True)
class ParameterChange:
    """The settings that a standby must not undercut, and those that change what WAL is worth."""

    lsn: Lsn
    max_connections: int
    max_worker_processes: int
    max_wal_senders: int
    max_prepared_transactions: int
    max_locks_per_transaction: int
    wal_level: WalLevel
    wal_log_hints: bool
    track_commit_timestamp: bool


@dataclass(frozen=True, slots=True)
class FullPageWritesChange:
    lsn: Lsn
    on: bool


@dataclass(frozen=True, slots=True)
class OverwriteContrecord:
    """The record begun at ``overwritten`` was never finished (the server crashed)."""

    lsn: Lsn
    overwritten: Lsn
    time: datetime


@dataclass(frozen=True, slots=True)
class TablespaceCreated:
    lsn: Lsn
    xid: int
    oid: int
    location: str


@dataclass(frozen=True, slots=True)
class TablespaceDropped:
    lsn: Lsn
    xid: int
    oid: int


@dataclass(frozen=True, slots=True)
class DatabaseCreated:
    """``source`` (database, tablespace): copied file by file; None: its pages follow in the WAL (15 and newer)."""

    lsn: Lsn
    xid: int
    oid: int
    tablespace: int
    source: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class DatabaseDropped:
    """The directories of the database in these tablespaces were removed, at once and for good.

    Also how ALTER DATABASE SET TABLESPACE ends, behind a DatabaseCreated with itself as the source.
    """

    lsn: Lsn
    xid: int
    oid: int
    tablespaces: tuple[int, ...]


XlogEvent = (
    Checkpoint
    | RestorePoint
    | EndOfRecovery
    | BackupEnd
    | ParameterChange
    | FullPageWritesChange
    | OverwriteContrecord
    | TablespaceCreated
    | TablespaceDropped
    | DatabaseCreated
    | DatabaseDropped
)


def xlog_event(record: Record) -> XlogEvent | None:
    """Decode a record of XLOG, TBLSPC or DBASE; None for kinds that are not decoded. Raises IntegrityError."""
    decoder = _DECODERS.get((record.rmid, record.operation))
    return None if decoder is None else decode(record, lambda data: decoder(record, data))


def begun_timeline(record: Record) -> int:
    """The timeline that a record of BEGINS_TIMELINE names."""
    event = xlog_event(record)
    if isinstance(event, Checkpoint | EndOfRecovery):
        return event.timeline
    raise ValueError(f"the record at {record.lsn} names no timeline")


def _checkpoint(record: Record, data: bytes) -> Checkpoint:
    redo, timeline, previous, full_page_writes, wal_level, next_xid = struct.unpack_from("<QII?3xIQ", data)
    (time,) = struct.unpack_from("<q", data, 64)
    return Checkpoint(
        lsn=record.lsn,
        online=record.operation == XLOG_CHECKPOINT_ONLINE,
        redo=Lsn(redo),
        timeline=timeline,
        previous_timeline=previous,
        full_page_writes=full_page_writes,
        wal_level=_WAL_LEVELS[wal_level] if record.major >= 17 else None,
        next_xid=next_xid,
        time=_UNIX_EPOCH + timedelta(seconds=time),
    )


def _restore_point(record: Record, data: bytes) -> RestorePoint:
    (time,) = struct.unpack_from("<q", data)
    name = data[8:].split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
    return RestorePoint(record.lsn, record.end_lsn, name, timestamp(time))


def _end_of_recovery(record: Record, data: bytes) -> EndOfRecovery:
    time, timeline, previous = struct.unpack_from("<qII", data)
    return EndOfRecovery(record.lsn, timeline, previous, timestamp(time))


def _backup_end(record: Record, data: bytes) -> BackupEnd:
    return BackupEnd(record.lsn, record.end_lsn, Lsn(struct.unpack("<Q", data)[0]))


def _parameter_change(record: Record, data: bytes) -> ParameterChange:
    connections, workers, senders, prepared, locks, level, hints, commit_ts = struct.unpack_from("<iiiiii??", data)
    return ParameterChange(
        lsn=record.lsn,
        max_connections=connections,
        max_worker_processes=workers,
        max_wal_senders=senders,
        max_prepared_transactions=prepared,
        max_locks_per_transaction=locks,
        wal_level=_WAL_LEVELS[level],
        wal_log_hints=hints,
        track_commit_timestamp=commit_ts,
    )


def _full_page_writes(record: Record, data: bytes) -> FullPageWritesChange:
    return FullPageWritesChange(record.lsn, data[0] != 0)


def _overwrite(record: Record, data: bytes) -> OverwriteContrecord:
    overwritten, time = struct.unpack("<Qq", data)
    return OverwriteContrecord(record.lsn, Lsn(overwritten), timestamp(time))


def _tablespace_create(record: Record, data: bytes) -> TablespaceCreated:
    location = data[4:].split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
    return TablespaceCreated(record.lsn, record.xid, struct.unpack_from("<I", data)[0], location)


def _tablespace_drop(record: Record, data: bytes) -> TablespaceDropped:
    return TablespaceDropped(record.lsn, record.xid, struct.unpack("<I", data)[0])


def _database_event(record: Record, data: bytes) -> DatabaseCreated | DatabaseDropped:
    """15 put CREATE_WAL_LOG (0x10) before DROP, which so became 0x20."""
    lsn, xid = record.lsn, record.xid
    if record.operation == 0x00:
        oid, tablespace, source, source_tablespace = struct.unpack("<IIII", data)
        return DatabaseCreated(lsn, xid, oid, tablespace, (source, source_tablespace))
    if record.major >= 15 and record.operation == 0x10:
        oid, tablespace = struct.unpack("<II", data)
        return DatabaseCreated(lsn, xid, oid, tablespace, None)
    if record.operation == (0x20 if record.major >= 15 else 0x10):
        oid, count = struct.unpack_from("<II", data)
        if count * 4 != len(data) - 8:
            raise ValueError(f"{count} tablespaces in {len(data)} bytes")
        return DatabaseDropped(lsn, xid, oid, struct.unpack_from(f"<{count}I", data, 8))
    raise ValueError(f"unknown operation 0x{record.operation:02X} on a database")


_DECODERS: dict[tuple[int, int], Callable[[Record, bytes], XlogEvent]] = {
    (RM_XLOG, XLOG_CHECKPOINT_SHUTDOWN): _checkpoint,
    (RM_XLOG, XLOG_CHECKPOINT_ONLINE): _checkpoint,
    (RM_XLOG, XLOG_BACKUP_END): _backup_end,
    (RM_XLOG, XLOG_PARAMETER_CHANGE): _parameter_change,
    (RM_XLOG, XLOG_RESTORE_POINT): _restore_point,
    (RM_XLOG, XLOG_FPW_CHANGE): _full_page_writes,
    (RM_XLOG, XLOG_END_OF_RECOVERY): _end_of_recovery,
    (RM_XLOG, XLOG_OVERWRITE_CONTRECORD): _overwrite,
    (RM_TBLSPC, 0x00): _tablespace_create,
    (RM_TBLSPC, 0x10): _tablespace_drop,
    **{(RM_DBASE, operation): _database_event for operation in (0x00, 0x10, 0x20)},
}

XLOG_EVENT_KINDS = frozenset(_DECODERS)
"""What xlog_event decodes, for a reader's Selection."""
