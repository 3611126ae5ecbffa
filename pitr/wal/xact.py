"""Transaction records: commit and abort, prepared ones too (access/xact.h, rmgrdesc/xactdesc.c)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from pitr.core.errors import IntegrityError
from pitr.pg.lsn import Lsn
from pitr.wal.records import RM_XACT, Record, RelFileLocator
from pitr.wal.xlog import decode, timestamp

XACT_COMMIT = 0x00
XACT_ABORT = 0x20
XACT_COMMIT_PREPARED = 0x30
XACT_ABORT_PREPARED = 0x40
_OPERATION_MASK = 0x70
_HAS_INFO = 0x80

_HAS_DBINFO = 1 << 0
_HAS_SUBXACTS = 1 << 1
_HAS_RELFILELOCATORS = 1 << 2
_HAS_INVALS = 1 << 3
_HAS_TWOPHASE = 1 << 4
_HAS_ORIGIN = 1 << 5
_HAS_AE_LOCKS = 1 << 6
_HAS_GID = 1 << 7
_HAS_DROPPED_STATS = 1 << 8

_COMMITS = (XACT_COMMIT, XACT_COMMIT_PREPARED)
_PREPARED = (XACT_COMMIT_PREPARED, XACT_ABORT_PREPARED)
_ENDS = frozenset((XACT_COMMIT, XACT_ABORT, XACT_COMMIT_PREPARED, XACT_ABORT_PREPARED))
_INT64 = struct.Struct("<q")
_UINT32 = struct.Struct("<I")

XACT_END_KINDS = frozenset((RM_XACT, operation | flag) for operation in _ENDS for flag in (0, _HAS_INFO))
"""All that end a transaction, for a reader's Selection."""


class DroppedStats(NamedTuple):
    """Statistics removed with their object. ``kind`` 2 is a relation (PGSTAT_KIND_RELATION)."""

    kind: int
    database: int
    object_id: int


@dataclass(frozen=True, slots=True)
class TransactionEnd:
    """A commit or an abort.

    ``xid``: the one that takes effect, so the prepared transaction's for COMMIT PREPARED (whose header has 0). An abort
    may be a subtransaction's. ``relations``: files removed. ``origin``: the source's LSN and time of a transaction that
    came by logical replication.
    """

    lsn: Lsn
    end_lsn: Lsn
    committed: bool
    prepared: bool
    xid: int
    time: datetime
    database: int
    tablespace: int
    subxacts: tuple[int, ...]
    relations: tuple[RelFileLocator, ...]
    dropped_stats: tuple[DroppedStats, ...]
    invalidations: int
    gid: str | None
    origin: tuple[Lsn, datetime] | None
    has_exclusive_locks: bool


def is_transaction_end(record: Record) -> bool:
    return record.rmid == RM_XACT and record.info & _OPERATION_MASK in _ENDS


def is_commit(record: Record) -> bool:
    return record.rmid == RM_XACT and record.info & _OPERATION_MASK in _COMMITS


def has_details(record: Record) -> bool:
    """Whether anything but the time is in it: subtransactions, removed files, a prepared transaction, ..."""
    return record.info & _HAS_INFO != 0


def end_microseconds(record: Record) -> int:
    """xact_time alone: microseconds since 2000-01-01 UTC. Raises IntegrityError."""
    try:
        value: int = _INT64.unpack_from(record.main_data())[0]
    except struct.error as error:
        raise IntegrityError(f"WAL record at {record.lsn} is damaged", detail=str(error)) from None
    return value


def ended_xid(record: Record) -> int:
    """The xid that takes effect, decoding the record only if it must (recoveryStopsBefore)."""
    return transaction_end(record).xid if record.info & _OPERATION_MASK in _PREPARED else record.xid


def transaction_end(record: Record) -> TransactionEnd:
    """Decode a record of XACT_END_KINDS (ParseCommitRecord, ParseAbortRecord). Raises IntegrityError."""
    if not is_transaction_end(record):
        raise ValueError(f"the record at {record.lsn} ends no transaction")
    return decode(record, lambda data: _parse(record, data))


class _Cursor:
    """Reads the optional parts, which follow one another without padding."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def uint32(self) -> int:
        self.at += 4
        value: int = _UINT32.unpack_from(self.data, self.at - 4)[0]
        return value

    def count(self, item_size: int) -> int:
        count = self.uint32()
        if count * item_size > len(self.data) - self.at:
            raise ValueError(f"{count} items of {item_size} bytes in {len(self.data) - self.at}")
        return count

    def uint32s(self, count: int) -> tuple[int, ...]:
        self.at += 4 * count
        return struct.unpack_from(f"<{count}I", self.data, self.at - 4 * count)

    def text(self) -> str:
        end = self.data.index(b"\0", self.at)
        text = self.data[self.at : end].decode("utf-8", "surrogateescape")
        self.at = end + 1
        return text


def _parse(record: Record, data: bytes) -> TransactionEnd:
    operation = record.info & _OPERATION_MASK
    committed = operation in _COMMITS
    (time,) = _INT64.unpack_from(data)
    cursor = _Cursor(data, 8)
    flags = cursor.uint32() if record.info & _HAS_INFO else 0
    database, tablespace = cursor.uint32s(2) if flags & _HAS_DBINFO else (0, 0)
    subxacts = cursor.uint32s(cursor.count(4)) if flags & _HAS_SUBXACTS else ()
    relations = _relations(cursor) if flags & _HAS_RELFILELOCATORS else ()
    dropped = _dropped_stats(cursor, record.major) if flags & _HAS_DROPPED_STATS else ()
    invalidations = 0
    if committed and flags & _HAS_INVALS:
        invalidations = cursor.count(16)
        cursor.at += 16 * invalidations
    xid, gid = record.xid, None
    if flags & _HAS_TWOPHASE:
        xid = cursor.uint32()
        gid = cursor.text() if flags & _HAS_GID else None
    elif operation in _PREPARED:
        raise ValueError("no xid of the prepared transaction")
    origin = None
    if flags & _HAS_ORIGIN:
        origin_lsn, origin_time = struct.unpack_from("<Qq", data, cursor.at)
        origin = (Lsn(origin_lsn), timestamp(origin_time))
    return TransactionEnd(
        lsn=record.lsn,
        end_lsn=record.end_lsn,
        committed=committed,
        prepared=operation in _PREPARED,
        xid=xid,
        time=timestamp(time),
        database=database,
        tablespace=tablespace,
        subxacts=subxacts,
        relations=relations,
        dropped_stats=dropped,
        invalidations=invalidations,
        gid=gid,
        origin=origin,
        has_exclusive_locks=flags & _HAS_AE_LOCKS != 0,
    )


def _relations(cursor: _Cursor) -> tuple[RelFileLocator, ...]:
    return tuple(RelFileLocator(*cursor.uint32s(3)) for _ in range(cursor.count(12)))


def _dropped_stats(cursor: _Cursor, major: int) -> tuple[DroppedStats, ...]:
    """18 widened the object's id to 64 bits, in two halves."""
    if major >= 18:
        items = (cursor.uint32s(4) for _ in range(cursor.count(16)))
        return tuple(DroppedStats(kind, database, low | high << 32) for kind, database, low, high in items)
    return tuple(DroppedStats(*cursor.uint32s(3)) for _ in range(cursor.count(12)))
