"""What a range of WAL does besides changing rows: what a restore must know before it replays it."""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace

from pitr.pg.lsn import Lsn
from pitr.wal.records import PG_DATABASE, RM_HEAP, Record
from pitr.wal.xact import ended_xid, is_transaction_end
from pitr.wal.xlog import (
    XLOG_EVENT_KINDS,
    Checkpoint,
    DatabaseCreated,
    DatabaseDropped,
    EndOfRecovery,
    FullPageWritesChange,
    ParameterChange,
    TablespaceCreated,
    TablespaceDropped,
    xlog_event,
)

_HEAP_INPLACE = 0x70
_HEAP_INIT_PAGE = 0x80
_CONNECTION_LIMIT_INVALID = -2

FACT_KINDS = XLOG_EVENT_KINDS | {(RM_HEAP, _HEAP_INPLACE), (RM_HEAP, _HEAP_INPLACE | _HEAP_INIT_PAGE)}
"""For a reader's Selection (with XACT_END_KINDS)."""

DirectoryEvent = TablespaceCreated | TablespaceDropped | DatabaseCreated | DatabaseDropped


@dataclass(frozen=True, slots=True)
class HalfDone:
    """A transaction that made or removed directories, which no rollback undoes, and whose end is not in the range.

    Replay that stops here leaves those effects without the catalog changes that belong to them. ``lsn``: of the first
    record with such an effect; a stop before it is clean.
    """

    xid: int
    lsn: Lsn
    events: tuple[DirectoryEvent, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """``directories``: tablespaces and databases made and dropped. ``half_done``: see HalfDone.

    ``invalidated``: databases (OID, LSN) that DROP DATABASE had marked but not yet removed. ``parameters``: of the
    settings that changed, the highest values, and the last wal_level. ``wal_level_minimal``, ``full_page_writes_off``:
    where first seen. ``promotions``: timelines begun.
    """

    directories: tuple[DirectoryEvent, ...] = ()
    half_done: tuple[HalfDone, ...] = ()
    invalidated: tuple[tuple[int, Lsn], ...] = ()
    parameters: ParameterChange | None = None
    wal_level_minimal: Lsn | None = None
    full_page_writes_off: Lsn | None = None
    promotions: tuple[EndOfRecovery, ...] = ()

    @property
    def tablespaces_created(self) -> tuple[TablespaceCreated, ...]:
        return tuple(event for event in self.directories if isinstance(event, TablespaceCreated))


class FactsCollector:
    """Feed it the records of FACT_KINDS and XACT_END_KINDS in order. Memory grows with the directory events alone."""

    def __init__(self) -> None:
        self._directories: list[DirectoryEvent] = []
        self._open: dict[int, HalfDone] = {}
        self._invalidated: dict[int, Lsn] = {}
        self._unknown_in_place: Lsn | None = None
        self._facts = Facts()

    def facts(self) -> Facts:
        """About the records so far."""
        return replace(
            self._facts,
            directories=tuple(self._directories),
            half_done=tuple(self._open.values()),
            invalidated=tuple(self._invalidated.items()),
        )

    def add(self, record: Record) -> None:
        if is_transaction_end(record):
            if self._open:
                self._open.pop(ended_xid(record), None)
        elif record.rmid == RM_HEAP:
            self._in_place(record)
        else:
            self._event(record)

    def _event(self, record: Record) -> None:
        event, facts = xlog_event(record), self._facts
        match event:
            case TablespaceCreated() | TablespaceDropped() | DatabaseCreated() | DatabaseDropped():
                self._directory(event)
            case ParameterChange():
                self._facts = replace(facts, parameters=_highest(facts.parameters, event))
                self._wal_level(event.wal_level == "minimal", event.lsn)
            case Checkpoint():
                if not event.online:
                    # No transaction outlives a shutdown or a crash but prepared ones, which drop no directories: what
                    # is half done now stayed so on the source as well.
                    self._open.clear()
                self._wal_level(event.wal_level == "minimal", event.lsn)
                if not event.full_page_writes:
                    self._full_page_writes_off(event.lsn)
            case FullPageWritesChange(on=False):
                self._full_page_writes_off(event.lsn)
            case EndOfRecovery():
                self._open.clear()
                self._facts = replace(facts, promotions=(*facts.promotions, event))
            case _:
                pass

    def _wal_level(self, minimal: bool, lsn: Lsn) -> None:
        if minimal and self._facts.wal_level_minimal is None:
            self._facts = replace(self._facts, wal_level_minimal=lsn)

    def _full_page_writes_off(self, lsn: Lsn) -> None:
        if self._facts.full_page_writes_off is None:
            self._facts = replace(self._facts, full_page_writes_off=lsn)

    def _directory(self, event: DirectoryEvent) -> None:
        self._directories.append(event)
        lsn = event.lsn
        if isinstance(event, DatabaseDropped):
            # DROP DATABASE first marks the database invalid, in place and before it has an xid.
            marked = self._invalidated.pop(event.oid, self._unknown_in_place)
            lsn = lsn if marked is None else marked
        begun = self._open.get(event.xid)
        self._open[event.xid] = (
            HalfDone(event.xid, lsn, (event,))
            if begun is None
            else replace(begun, lsn=min(begun.lsn, lsn), events=(*begun.events, event))
        )

    def _in_place(self, record: Record) -> None:
        oid = marked_database(record)
        if oid == 0:
            self._unknown_in_place = record.lsn
        elif oid is not None:
            self._invalidated[oid] = record.lsn


def marked_database(record: Record) -> int | None:
    """The database that an in-place update marks as being dropped; None if it does nothing of the kind.

    0: it may, but the row is in a page image (VACUUM updates rows of pg_database in place too).
    """
    block = next(iter(record.body().blocks), None)
    if block is None or block.locator != PG_DATABASE:
        return None
    # datconnlimit stands behind oid, name, owner, encoding and, before 15, two names for the collation.
    offset = 80 if record.major >= 15 else 208
    if len(block.data) < offset + 4:
        return 0
    (oid,), (limit,) = struct.unpack_from("<I", block.data), struct.unpack_from("<i", block.data, offset)
    return int(oid) if limit == _CONNECTION_LIMIT_INVALID else None


def _highest(known: ParameterChange | None, change: ParameterChange) -> ParameterChange:
    if known is None:
        return change
    return replace(
        change,
        max_connections=max(known.max_connections, change.max_connections),
        max_worker_processes=max(known.max_worker_processes, change.max_worker_processes),
        max_wal_senders=max(known.max_wal_senders, change.max_wal_senders),
        max_prepared_transactions=max(known.max_prepared_transactions, change.max_prepared_transactions),
        max_locks_per_transaction=max(known.max_locks_per_transaction, change.max_locks_per_transaction),
    )
