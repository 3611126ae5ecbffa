"""Recovery targets, resolved to the record where recovery stops, by the rules of xlogrecovery.c.

The records begin at a backup's redo LSN and follow one history. The answer is always an LSN for
``recovery_target_lsn``: recovery stops before (exclusive) or after (inclusive) the record that begins there.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pitr.core.errors import UsageError
from pitr.pg.lsn import Lsn
from pitr.pg.timelines import History
from pitr.wal.facts import FACT_KINDS, Facts, FactsCollector
from pitr.wal.reader import EndOfWal, RecordReader, Selection
from pitr.wal.records import RM_XLOG, Record
from pitr.wal.stream import Fetch
from pitr.wal.xact import (
    XACT_END_KINDS,
    TransactionEnd,
    end_microseconds,
    ended_xid,
    has_details,
    is_commit,
    is_transaction_end,
    transaction_end,
)
from pitr.wal.xlog import XLOG_RESTORE_POINT, RestorePoint, xlog_event

_POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
LOOK_AHEAD_BYTES = 64 * 1024 * 1024
"""How far behind the target the first excluded commit is looked for."""


@dataclass(frozen=True, slots=True)
class TimeTarget:
    """Stop before the first commit or abort later than ``time`` (aware); at or later when not inclusive."""

    time: datetime
    inclusive: bool = True


@dataclass(frozen=True, slots=True)
class XidTarget:
    """The commit or abort of this transaction."""

    xid: int
    inclusive: bool = True


@dataclass(frozen=True, slots=True)
class NameTarget:
    """A restore point; recovery always includes it."""

    name: str


@dataclass(frozen=True, slots=True)
class LsnTarget:
    """The first record that begins at or behind ``lsn``."""

    lsn: Lsn
    inclusive: bool = True


@dataclass(frozen=True, slots=True)
class LatestTarget:
    """The last complete record."""


@dataclass(frozen=True, slots=True)
class ImmediateTarget:
    """The first record that ends at or behind ``consistent_lsn``: of a backup of a primary, its BACKUP_END record."""

    consistent_lsn: Lsn


Target = TimeTarget | XidTarget | NameTarget | LsnTarget | LatestTarget | ImmediateTarget


@dataclass(frozen=True, slots=True)
class Resolved:
    """``lsn``: the start of a record, for recovery_target_lsn. ``end_lsn``: behind that record.

    ``last_included``: the last commit that recovery will replay since the backup's redo LSN. ``first_excluded``: the
    first commit that it will not; for time and xid targets it may be the abort that recovery stops before; None when
    none was found within LOOK_AHEAD_BYTES.
    """

    lsn: Lsn
    end_lsn: Lsn
    inclusive: bool
    last_included: TransactionEnd | None
    first_excluded: TransactionEnd | None
    facts: Facts
    """About the records that will be replayed."""


@dataclass(frozen=True, slots=True)
class ScanResult:
    """``resolved`` is None when the target was not reached; then ``facts`` and ``last_commit`` tell of all WAL read."""

    target: Target
    resolved: Resolved | None
    restore_points: tuple[RestorePoint, ...]
    """For a name: all of that name up to the end of WAL; more than one is ambiguous."""
    top_xid: int | None
    """For an xid that is a committed subtransaction's: its transaction."""
    last_commit: TransactionEnd | None
    """The last commit before the target."""
    end: EndOfWal | None
    """Where WAL ended, if reading went that far."""
    facts: Facts


@dataclass(frozen=True, slots=True)
class WalRange:
    """WAL along a history from the record at ``start`` on, up to ``until`` (segments that begin there are not read)."""

    fetch: Fetch
    start: Lsn
    history: History
    segment_size: int
    until: Lsn | None = None
    system_id: int | None = None

    def read(self, selection: Selection, from_lsn: Lsn | None = None) -> RecordReader:
        return RecordReader(
            self.fetch,
            self.start,
            self.history,
            self.segment_size,
            selection=selection,
            from_lsn=from_lsn,
            until=self.until,
            system_id=self.system_id,
        )


def resolve(wal: WalRange, target: Target) -> ScanResult:
    """Read WAL until the target is known, and a little further to name the first commit behind it.

    Raises IntegrityError for damaged WAL, UsageError for a time without zone; what ``fetch`` raises passes through.
    """
    scan = _Scan(target)
    reader = wal.read(Selection(FACT_KINDS | XACT_END_KINDS), scan.from_lsn)
    for record in reader:
        if scan.feed(record):
            break
    if reader.end is not None and reader.last is not None and isinstance(target, LatestTarget):
        scan.stop_after(reader.last)
    return scan.result(reader.end)


class _Scan:
    """Feeds on records up to the target, then looks ahead for the first commit that is excluded."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.from_lsn: Lsn | None = None
        self._microseconds = 0
        self._collector = FactsCollector()
        self._last_commit: Record | None = None
        self._found: Record | None = None
        self._inclusive = True
        self._facts: Facts | None = None
        self._excluded: Record | None = None
        self._restore_points: list[RestorePoint] = []
        self._top_xid: int | None = None
        match target:
            case TimeTarget():
                self._microseconds = _microseconds(target.time)
            case LsnTarget():
                self.from_lsn = target.lsn
            case ImmediateTarget():
                self.from_lsn = target.consistent_lsn
            case _:
                pass

    def feed(self, record: Record) -> bool:
        """Returns whether nothing more needs to be read."""
        if self._found is not None:
            return self._look_ahead(record)
        if not self._matches(record):
            self._include(record)
            return False
        if _stops_after(self.target):
            self._include(record)
            self.stop_after(record)
            return False
        self._stop(record, inclusive=False)
        if is_commit(record) or (is_transaction_end(record) and not isinstance(self.target, LsnTarget)):
            self._excluded = record
        return self._excluded is not None

    def stop_after(self, record: Record) -> None:
        self._stop(record, inclusive=True)

    def result(self, end: EndOfWal | None) -> ScanResult:
        last_commit = _decoded(self._last_commit)
        facts = self._collector.facts() if self._facts is None else self._facts
        resolved = None
        if self._found is not None:
            resolved = Resolved(
                lsn=self._found.lsn,
                end_lsn=self._found.end_lsn,
                inclusive=self._inclusive,
                last_included=last_commit,
                first_excluded=_decoded(self._excluded),
                facts=facts,
            )
        return ScanResult(
            target=self.target,
            resolved=resolved,
            restore_points=tuple(self._restore_points),
            top_xid=self._top_xid,
            last_commit=last_commit,
            end=end,
            facts=facts,
        )

    def _stop(self, record: Record, *, inclusive: bool) -> None:
        record.require_crc()
        self._found, self._inclusive, self._facts = record, inclusive, self._collector.facts()

    def _include(self, record: Record) -> None:
        self._collector.add(record)
        if is_commit(record):
            self._last_commit = record

    def _look_ahead(self, record: Record) -> bool:
        found = self._found
        if isinstance(self.target, NameTarget):
            self._matches(record)
        if self._excluded is None and is_commit(record):
            self._excluded = record
        if isinstance(self.target, NameTarget):
            return False
        return self._excluded is not None or (found is not None and record.start > found.start + LOOK_AHEAD_BYTES)

    def _matches(self, record: Record) -> bool:
        """Whether recovery stops before or after this record (recoveryStopsBefore, recoveryStopsAfter)."""
        match self.target:
            case TimeTarget(inclusive=inclusive):
                if not is_transaction_end(record):
                    return False
                time = end_microseconds(record)
                return time > self._microseconds if inclusive else time >= self._microseconds
            case XidTarget(xid=xid):
                return is_transaction_end(record) and self._ends(record, xid)
            case NameTarget(name=name):
                return self._is_restore_point(record, name)
            case LsnTarget(lsn=lsn):
                return record.start >= lsn
            case ImmediateTarget(consistent_lsn=lsn):
                return record.end >= lsn
            case LatestTarget():
                return False

    def _ends(self, record: Record, xid: int) -> bool:
        if ended_xid(record) == xid:
            return True
        if self._top_xid is None and is_commit(record) and has_details(record):
            ended = transaction_end(record)
            if xid in ended.subxacts:
                self._top_xid = ended.xid
        return False

    def _is_restore_point(self, record: Record, name: str) -> bool:
        if record.rmid != RM_XLOG or record.operation != XLOG_RESTORE_POINT:
            return False
        point = xlog_event(record)
        if not isinstance(point, RestorePoint) or point.name != name:
            return False
        self._restore_points.append(point)
        return True


def _stops_after(target: Target) -> bool:
    """A time target always ends before a record: inclusive or not says which one."""
    match target:
        case TimeTarget():
            return False
        case XidTarget(inclusive=inclusive) | LsnTarget(inclusive=inclusive):
            return inclusive
        case NameTarget() | LatestTarget() | ImmediateTarget():
            return True


def _decoded(record: Record | None) -> TransactionEnd | None:
    if record is None:
        return None
    record.require_crc()
    return transaction_end(record)


def _microseconds(time: datetime) -> int:
    if time.tzinfo is None:
        raise UsageError(
            "a time target needs a time zone", detail=time.isoformat(), hint="write it like 2026-07-01 12:00:00+02"
        )
    return (time - _POSTGRES_EPOCH) // timedelta(microseconds=1)
