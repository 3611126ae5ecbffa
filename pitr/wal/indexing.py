"""Builds the index of a segment: one pass over its records, in pure Python, as every archive_command does it."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pitr.core.errors import IntegrityError
from pitr.core.files import Buffer
from pitr.pg.lsn import Lsn
from pitr.pg.segments import SegmentName
from pitr.pg.timelines import History
from pitr.wal.catalog_rows import DatabaseBorn, RelationBorn, birth, births
from pitr.wal.facts import FACT_KINDS, marked_database
from pitr.wal.heap import DELETED, HEAP_INSERT, ROW_KINDS, UPDATED, RowCounts, count_row, count_rows
from pitr.wal.index import (
    ROW_THRESHOLD,
    Commit,
    Created,
    End,
    Ends,
    Rows,
    SegmentIndex,
    ranges_of,
)
from pitr.wal.pages import Pages
from pitr.wal.reader import Collected, RecordReader, Selection
from pitr.wal.records import (
    INFO_MASK,
    RECORD_HEADER_SIZE,
    RM_HEAP,
    RM_HEAP2,
    RM_RELMAP,
    RM_SMGR,
    RM_STANDBY,
    RM_XACT,
    Record,
)
from pitr.wal.storage import (
    STORAGE_KINDS,
    ExclusiveLock,
    FileCreated,
    MappedFiles,
    exclusive_locks,
    file_change,
    mapped_files,
)
from pitr.wal.stream import Segment, Stream, first_record, header_size
from pitr.wal.xact import XACT_COMMIT, XACT_END_KINDS, TransactionEnd, end_microseconds, has_details, transaction_end
from pitr.wal.xlog import XlogEvent, microseconds, xlog_event

PIECE_LIMIT = 32 * 1024
"""A longer piece of a record that spans segments is not kept; readers fetch the segments."""
_HORIZON_BYTES = 64 * 1024
_PLAIN_COMMIT = (RM_XACT, XACT_COMMIT)
INDEXED_KINDS = XACT_END_KINDS | FACT_KINDS | STORAGE_KINDS | ROW_KINDS
_SELECTION = Selection(INDEXED_KINDS - ROW_KINDS - {_PLAIN_COMMIT}, collected=ROW_KINDS | {_PLAIN_COMMIT})
_TEMPORARY = "t"
"""relpersistence. Temporary relations can be very many, and nothing of them is listed."""
_FIRST_USER_FILE = 16384
_TIME_OFFSET = RECORD_HEADER_SIZE + 2


def build_index(
    data: Buffer | Segment, name: SegmentName, *, system_id: int | None = None, threshold: int = ROW_THRESHOLD
) -> SegmentIndex:
    """Read one segment. ``threshold`` 0 lists every transaction. About 0.2 s for 16 MiB of small transactions.

    A Segment that is not complete is read up to where its WAL ends. Raises IntegrityError for a damaged segment.
    """
    segment = data if isinstance(data, Segment) else Segment.read(data, name, system_id=system_id)
    try:
        return _build(segment, threshold)
    except (struct.error, IndexError) as error:  # of records that are read without decoding them one by one
        raise IntegrityError(f"WAL segment {name} is damaged", detail=str(error)) from error


def _build(segment: Segment, threshold: int) -> SegmentIndex:
    name, pages = segment.name, segment.pages
    lead_length, given_up = _lead(pages)
    start = first_record(pages)
    found = _Found()
    end, tail, tail_data, collected = name.end, None, b"", None
    if start is not None:
        reader = RecordReader(
            lambda asked: segment if asked == name else None,
            start,
            History.initial(name.timeline),
            name.size_bytes,
            selection=_SELECTION,
            until=name.end,
            trust_start=True,
        )
        for record in reader:
            found.add(record)
        assert reader.end is not None
        end, collected = reader.end.lsn, reader.collected
        if reader.unfinished is not None:
            tail, tail_data = reader.unfinished
    return _Chosen(found, collected, pages.header.major, name.start + _HORIZON_BYTES, threshold).index(
        name=name,
        start=start,
        end=end,
        complete=segment.complete,
        lead_length=lead_length,
        lead=_first_bytes(segment, lead_length) if lead_length <= PIECE_LIMIT and not given_up else None,
        lead_given_up=given_up,
        tail=tail,
        tail_data=tail_data if len(tail_data) <= PIECE_LIMIT else tail_data[:RECORD_HEADER_SIZE],
        tail_cut=len(tail_data) > PIECE_LIMIT,
    )


def index_records(records: Sequence[Record], name: SegmentName) -> SegmentIndex:
    """The index of these records alone, everything of them listed: one that spans segments, once its pieces are joined.

    ``name``: the segment in which the first one begins.
    """
    found = _Found()
    for record in records:
        found.add(record)
    first, last = records[0], records[-1]
    return _Chosen(found, None, first.major, first.lsn, 0).index(
        name=name,
        start=first.lsn,
        end=last.end_lsn,
        complete=True,
        lead_length=0,
        lead=None,
        lead_given_up=False,
        tail=None,
        tail_data=b"",
        tail_cut=False,
    )


def is_indexed(header: bytes) -> bool:
    """Whether a record that begins so says anything to the index; yes when too little of it is there to tell."""
    if len(header) < RECORD_HEADER_SIZE:
        return True
    return _SELECTION.table[int.from_bytes(header[16:18], "little")] not in (0, _SWITCH_ONLY)


_SWITCH_ONLY = 2


def _lead(pages: Pages) -> tuple[int, bool]:
    """How many bytes of a record begun earlier this segment holds, and whether that was given up and written over."""
    length = pages.remaining[0]
    room = 0
    for page in range(pages.good):
        if pages.overwrites(page):
            return min(length, room), True
        room += pages.header.block_size - header_size(page)
        if room >= length:
            break
    return min(length, room), False


def _first_bytes(segment: Segment, length: int) -> bytes:
    pieces, page, block = [], 0, segment.pages.header.block_size
    view = memoryview(segment.data)
    while length > 0:
        begin = page * block + header_size(page)
        piece = bytes(view[begin : begin + min(length, block - header_size(page))])
        pieces.append(piece)
        length -= len(piece)
        page += 1
    return b"".join(pieces)


@dataclass(slots=True)
class _Found:
    """What the yielded records say."""

    ends: list[TransactionEnd] = field(default_factory=list)
    plain_commits: list[End] = field(default_factory=list)
    locks: list[ExclusiveLock] = field(default_factory=list)
    created: list[Created] = field(default_factory=list)
    born: list[RelationBorn | DatabaseBorn] = field(default_factory=list)
    events: list[XlogEvent] = field(default_factory=list)
    marks: list[tuple[Lsn, int]] = field(default_factory=list)
    mapped: list[MappedFiles] = field(default_factory=list)
    rows: dict[int, RowCounts] = field(default_factory=dict)

    def add(self, record: Record) -> None:
        match record.rmid:
            case 1:  # RM_XACT
                if record.info & 0x70 == XACT_COMMIT and not has_details(record):
                    self.plain_commits.append(End(record.start, end_microseconds(record), record.xid))
                else:
                    self.ends.append(transaction_end(record))
            case 9 | 10:  # RM_HEAP2, RM_HEAP
                self._heap(record)
            case 2:  # RM_SMGR
                change = file_change(record)
                if isinstance(change, FileCreated) and change.fork == 0:
                    self.created.append(Created(change.xid, change.locator))
            case 8:  # RM_STANDBY
                self.locks += exclusive_locks(record)
            case 7:  # RM_RELMAP
                self.mapped.append(mapped_files(record))
            case _:
                event = xlog_event(record)
                if event is not None:
                    self.events.append(event)

    def _heap(self, record: Record) -> None:
        if (record.rmid, record.info & INFO_MASK) not in ROW_KINDS:
            marked = marked_database(record)
            if marked is not None:
                self.marks.append((record.lsn, marked))
            return
        count_row(self.rows.setdefault(record.xid, {}), record)
        if record.rmid == RM_HEAP and record.info & 0x70 == HEAP_INSERT:
            born = birth(record)
            if born is not None:
                self.born.append(born)


assert (RM_XACT, RM_SMGR, RM_RELMAP, RM_STANDBY, RM_HEAP2, RM_HEAP) == (1, 2, 7, 8, 9, 10)


class _Chosen:
    """Decides what is listed: notable and unfinished transactions, and those that may have begun earlier."""

    def __init__(
        self, found: _Found, collected: Collected | None, major: int, horizon_lsn: Lsn, threshold: int
    ) -> None:
        self.found, self.major, self.threshold = found, major, threshold
        self.stream: Stream | None = None if collected is None else collected.stream
        self.positions: dict[int, list[int]] = {} if collected is None else collected.by_xid
        self.commits: list[Commit] = []
        self.plain: dict[int, tuple[int, int]] = {}
        """Commits without details that were collected: xid to position and time."""
        self._take_plain_commits()
        self.horizon = self._horizon(horizon_lsn)
        self.born = self._born()
        self.temporary = {
            (born.database, born.oid)
            for born in self.born
            if isinstance(born, RelationBorn) and born.persistence == _TEMPORARY and threshold
        }
        self.locks = {lock for lock in found.locks if (lock.database, lock.relation) not in self.temporary}

    def index(
        self,
        *,
        name: SegmentName,
        start: Lsn | None,
        end: Lsn,
        complete: bool,
        lead_length: int,
        lead: bytes | None,
        lead_given_up: bool,
        tail: Lsn | None,
        tail_data: bytes,
        tail_cut: bool,
    ) -> SegmentIndex:
        found = self.found
        committed = [one for one in found.ends if one.committed]
        aborted = [one for one in found.ends if not one.committed]
        gone = {xid for one in aborted for xid in (one.xid, *one.subxacts)}
        done = {xid for one in committed for xid in (one.xid, *one.subxacts)}
        done.update(self.plain, (one.xid for one in found.plain_commits))
        listed = self._listed(committed)
        kept = {xid for commit in listed for xid in (commit.xid, *commit.subxacts)}
        kept.update(self._raw_xids() - done - gone)
        born = [one for one in self.born if one.xid in kept]
        return SegmentIndex(
            name=name,
            major=self.major,
            start=start,
            end=end,
            complete=complete,
            lead_length=lead_length,
            lead=lead,
            lead_given_up=lead_given_up,
            tail=tail,
            tail_data=tail_data,
            tail_cut=tail_cut,
            threshold=self.threshold,
            horizon=self.horizon,
            commits=self._commit_ends(committed),
            aborts=_ends([End(one.lsn, microseconds(one.time), one.xid) for one in aborted]),
            committed=ranges_of(done),
            aborted=ranges_of(gone),
            transactions=tuple(sorted(listed, key=lambda commit: commit.lsn)),
            rows=tuple(self._rows(kept)),
            locks=tuple(sorted(lock for lock in self.locks if lock.xid in kept)),
            created=tuple(created for created in found.created if created.xid in kept),
            relations=tuple(one for one in born if isinstance(one, RelationBorn) and one.persistence != _TEMPORARY),
            databases=tuple(one for one in born if isinstance(one, DatabaseBorn)),
            events=tuple(found.events),
            marks=tuple(found.marks),
            mapped=tuple(found.mapped),
        )

    def _take_plain_commits(self) -> None:
        if self.stream is None:
            return
        body = self.stream.body
        for xid, positions in self.positions.items():
            last = positions[-1]
            if body[last + 17] == RM_XACT:
                time = int.from_bytes(body[last + _TIME_OFFSET : last + _TIME_OFFSET + 8], "little", signed=True)
                self.plain[xid] = last, time

    def _horizon(self, lsn: Lsn) -> int:
        """The highest xid that appears in the first part of the segment: a higher one has, as a rule, begun here.

        Of the first xid that appears at all if that is later.
        """
        seen = [(int(end.lsn), end.xid) for end in self.found.ends]
        seen += [(end.lsn, end.xid) for end in self.found.plain_commits]
        if self.stream is not None:
            for xid, positions in self.positions.items():
                first = self.stream.lsn(positions[0])
                seen.append((first, xid))
                if first >= lsn:
                    break
        limit = max(int(lsn), min((at for at, _ in seen), default=0) + 1)
        return max((xid for at, xid in seen if at < limit), default=0)

    def _raw_xids(self) -> set[int]:
        found = self.found
        xids = {*self.positions, *found.rows}
        xids.update(one.xid for items in (found.created, found.locks, found.born) for one in items)
        xids.discard(0)
        return xids

    def _commit_ends(self, committed: Sequence[TransactionEnd]) -> Ends | None:
        ends = [End(one.lsn, microseconds(one.time), one.xid) for one in committed] + self.found.plain_commits
        stream = self.stream
        summary = _ends(ends)
        if stream is None or not self.plain:
            return summary
        by_place = sorted((position, time, xid) for xid, (position, time) in self.plain.items())
        first, last = (End(stream.lsn(at), time, xid) for at, time, xid in (by_place[0], by_place[-1]))
        times = [time for _, time, _ in by_place]
        plain = Ends(len(by_place), first, last, min(times), max(times))
        if summary is None:
            return plain
        return Ends(
            plain.number + summary.number,
            min(plain.first, summary.first),
            max(plain.last, summary.last),
            min(plain.earliest, summary.earliest),
            max(plain.latest, summary.latest),
        )

    # Which commits are listed

    def _listed(self, committed: Sequence[TransactionEnd]) -> list[Commit]:
        found = self.found
        special = {one.xid for items in (self.locks, found.created) for one in items}
        special.update(getattr(event, "xid", 0) for event in found.events)
        commits: list[Commit] = []
        for end in committed:
            commit = Commit(
                end.lsn, microseconds(end.time), end.xid, end.prepared, end.database,
                end.subxacts, end.relations,
                tuple(one for one in end.dropped_stats if (one.database, one.object_id) not in self.temporary),
            )  # fmt: skip
            if self._is_notable(commit, special):
                commits.append(commit)
        for plain in found.plain_commits:
            commit = Commit(plain.lsn, plain.time, plain.xid, False, 0, (), (), ())
            if self._is_notable(commit, special):
                commits.append(commit)
        limit, stream = self.threshold, self.stream
        for xid, (position, time) in self.plain.items():
            if xid <= self.horizon or xid in special or len(self.positions[xid]) > limit:
                assert stream is not None
                commit = Commit(stream.lsn(position), time, xid, False, 0, (), (), ())
                if self._is_notable(commit, special):
                    commits.append(commit)
        return commits

    def _is_notable(self, commit: Commit, special: set[int]) -> bool:
        xids = (commit.xid, *commit.subxacts)
        if self.threshold == 0 or commit.removed or commit.dropped or commit.prepared:
            return True
        if min(xids) <= self.horizon or not special.isdisjoint(xids):
            return True
        counts: RowCounts = {}
        records = sum(len(self.positions.get(xid, ())) for xid in xids)
        if records < self.threshold:
            return False
        for xid in xids:
            self._count(counts, xid)
        return any(
            max(row[DELETED], row[UPDATED]) >= self.threshold
            for file, row in counts.items()
            if file.number >= _FIRST_USER_FILE
        )

    # What is listed of them

    def _count(self, counts: RowCounts, xid: int) -> None:
        positions = self.positions.get(xid)
        if self.stream is not None and positions:
            count_rows(counts, self.stream, positions)
        for file, row in self.found.rows.get(xid, {}).items():
            known = counts.setdefault(file, [0, 0, 0])
            for column, value in enumerate(row):
                known[column] += value

    def _rows(self, xids: Iterable[int]) -> list[Rows]:
        rows = []
        for xid in sorted(xids):
            counts: RowCounts = {}
            self._count(counts, xid)
            rows += [Rows(xid, file, *row) for file, row in sorted(counts.items())]
        return rows

    def _born(self) -> list[RelationBorn | DatabaseBorn]:
        """Whoever makes a relation locks it, so only the rows of those transactions are looked at."""
        found = list(self.found.born)
        locking = {lock.xid for lock in self.found.locks} | {getattr(event, "xid", 0) for event in self.found.events}
        if self.stream is not None:
            for xid in sorted(locking & self.positions.keys()):
                found += births(self.stream, self.positions[xid], self.major)
        return found


def _ends(ends: Sequence[End]) -> Ends | None:
    if not ends:
        return None
    times = [end.time for end in ends]
    return Ends(len(ends), min(ends), max(ends), min(times), max(times))
