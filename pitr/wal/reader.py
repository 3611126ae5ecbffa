"""Reads records along a history, across pages, segments and timelines, as xlogreader.c does."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pitr.core.errors import IntegrityError
from pitr.pg.lsn import Lsn
from pitr.pg.segments import SegmentName
from pitr.pg.timelines import History
from pitr.wal.pages import SHORT_HEADER_SIZE, Fault
from pitr.wal.records import (
    MAX_RECORD_SIZE,
    RECORD_HEADER,
    RECORD_HEADER_SIZE,
    XLOG_OVERWRITE_CONTRECORD,
    XLOG_SWITCH,
    Record,
)
from pitr.wal.stream import Fetch, Segment, Stream, align

_YIELD = 1
_SWITCH = 2
_COLLECT = 4
_NEVER = 1 << 64
_CONTINUES_BEHIND = 0
_OVERWRITE_TOTAL = RECORD_HEADER_SIZE + 2 + 16

EndReason = Literal["missing segment", "zero", "invalid"]


class EndOfWal(NamedTuple):
    """Why reading ended. ``lsn``: behind the last complete record, where the next one begins or would begin.

    missing segment: the source has no more; zero: nothing was written behind; invalid: what stands there is no record
    that follows (torn, or left over from an older use of the file). ``detail`` says what was found.
    """

    lsn: Lsn
    reason: EndReason
    detail: str


class Selection:
    """Which records a reader yields: pairs of resource manager and operation (upper four bits of xl_info).

    ``collected``: records of these kinds are not yielded one by one, their places are gathered (see Collected).
    """

    __slots__ = ("table",)

    def __init__(self, kinds: Iterable[tuple[int, int]] | None, *, collected: Iterable[tuple[int, int]] = ()) -> None:
        """None selects all."""
        table = bytearray([_YIELD if kinds is None else 0]) * 0x10000
        marked = [(kind, _YIELD) for kind in kinds or ()] + [(kind, _COLLECT) for kind in collected]
        for (rmid, operation), mark in marked:
            first = rmid << 8 | operation
            table[first : first + 0x10] = bytes([mark]) * 0x10
        for code in range(XLOG_SWITCH, XLOG_SWITCH + 0x10):
            table[code] |= _SWITCH
        self.table = bytes(table)
        """Indexed by xl_rmid << 8 | xl_info"""


ALL = Selection(None)


class Collected(NamedTuple):
    """Records that were selected to be collected and lie whole in one segment.

    ``by_xid``: the positions in ``stream`` of each xid's records, xids in the order in which they appear.
    """

    stream: Stream
    by_xid: defaultdict[int, list[int]]


@dataclass(slots=True)
class _Begun:
    """A record that begins in one segment and ends in a later one."""

    lsn: int
    total_length: int
    pieces: list[bytes]
    missing: int


class _Stop(Exception):
    """The chain of records ends here, rightly or not."""

    def __init__(self, lsn: int, detail: str, reason: EndReason = "invalid") -> None:
        self.lsn, self.reason, self.detail = lsn, reason, detail


class RecordReader:
    """Iterates once over the records from ``start`` on, along ``history``; afterwards ``end`` says why it stopped.

    Only selected records are yielded, and those that end at or behind ``from_lsn``; all are followed and their chain
    (xl_prev, lengths, continuations) is checked. Checksums are computed for every record of a segment that is not
    complete, and for the first record (unless ``trust_start``: it is known that one begins there). Segments that begin
    at or behind ``until`` are not asked for.

    Raises IntegrityError when WAL ends inside a complete segment: its last record must lead on to the next. What
    ``fetch`` raises passes through.
    """

    def __init__(
        self,
        fetch: Fetch,
        start: int,
        history: History,
        segment_size: int,
        *,
        selection: Selection = ALL,
        from_lsn: int | None = None,
        until: int | None = None,
        system_id: int | None = None,
        trust_start: bool = False,
    ) -> None:
        self.start = Lsn(start)
        self.end: EndOfWal | None = None
        self.last: Record | None = None
        """The last complete record, selected or not; known once the end is reached."""
        self.collected: Collected | None = None
        """Of the segment read last. A collected record that spans segments is yielded; so are all of a segment that is
        not complete, where checksums have to be verified."""
        self._fetch = fetch
        self._history = history
        self._segment_size = segment_size
        self._selection = selection
        self._from_lsn = _NEVER if from_lsn is None else int(from_lsn)
        self._until = _NEVER if until is None else int(until)
        self._system_id = system_id
        self._number = int(start) // segment_size
        self._trust_start = trust_start
        self._begun: _Begun | None = None
        self._previous: int | None = None

    def __iter__(self) -> Iterator[Record]:
        while (segment := self._open(self._number)) is not None:
            try:
                yield from self._segment(segment)
            except _Stop as stop:
                self._judge(stop, segment)
                self.end = EndOfWal(Lsn(stop.lsn), stop.reason, stop.detail)
                return
            self._number += 1
        self.end = EndOfWal(
            Lsn(self._begun.lsn) if self._begun else self._reached(),
            "missing segment",
            f"there is no segment {self._name(self._number)}",
        )

    @property
    def unfinished(self) -> tuple[Lsn, bytes] | None:
        """Where the record begins of which the segments read hold only the beginning, and that beginning."""
        return None if self._begun is None else (Lsn(self._begun.lsn), b"".join(self._begun.pieces))

    def _reached(self) -> Lsn:
        return self.last.end_lsn if self.last else self.start

    def _name(self, number: int) -> SegmentName:
        return SegmentName(self._history.owner(number, self._segment_size), number, self._segment_size)

    def _open(self, number: int) -> Segment | None:
        name = self._name(number)
        found = self._fetch(name) if name.start < self._until else None
        if found is None:
            return None
        segment = found if isinstance(found, Segment) else Segment.read(found, name)
        segment.pages.header.require(name, system_id=self._system_id)
        self._system_id = segment.pages.header.system_id
        return segment

    def _judge(self, stop: _Stop, segment: Segment) -> None:
        """WAL may end inside a segment that is not complete; inside any other it is damage. Raises IntegrityError."""
        if segment.complete:
            raise IntegrityError(
                f"WAL segment {segment.name} is damaged", detail=f"record at {Lsn(stop.lsn)}: {stop.detail}"
            )

    def _segment(self, segment: Segment) -> Iterator[Record]:
        if self._previous is None and self._begun is None:
            stream, position = self._enter_at_start(segment)
        else:
            stream, position = Stream(segment), 0
            if self._begun is None:
                if segment.pages.remaining[0]:
                    raise _Stop(self._reached(), f"a record continues in {segment.name} that did not begin before")
            else:
                record, position = self._continue(self._begun, segment, stream)
                if record is not None:
                    kind = self._selection.table[record.rmid << 8 | record.info]
                    if kind & (_YIELD | _COLLECT) or record.end >= self._from_lsn:
                        yield record
                    if kind & _SWITCH:
                        return
        yield from self._walk(segment, stream, position)
        if self._begun is None and self.last is not None and self.last.end < segment.name.end:
            fault = segment.pages.fault
            detail, reason = _why(fault)
            raise _Stop(self.last.end, detail, reason)

    def _enter_at_start(self, segment: Segment) -> tuple[Stream, int]:
        pages = segment.pages
        page = (self.start - segment.name.start) // pages.header.block_size
        if page >= pages.good:
            detail, reason = _why(pages.fault)
            raise _Stop(self.start, detail, reason)
        stream = Stream(segment, page)
        position = stream.position(self.start)
        if position is None or (position == 0 and pages.remaining[page]):
            raise IntegrityError(f"no WAL record begins at {self.start}", detail=f"segment {segment.name}, page {page}")
        return stream, position

    def _continue(self, begun: _Begun, segment: Segment, stream: Stream) -> tuple[Record | None, int]:
        """Take what this segment holds of a record begun in an earlier one.

        Returns the record when it is whole, and the position behind: the end of the stream if it goes on.
        """
        pages = segment.pages
        if not pages.overwrites(0) and pages.remaining[0] != begun.missing:
            detail = f"{pages.remaining[0]} bytes continue in {segment.name}, not {begun.missing}"
            raise _Stop(begun.lsn, detail)
        for page in range(min(stream.page_of(begun.missing) + 1, pages.good)):
            if pages.overwrites(page) and stream.page_start(page) < begun.missing:
                position = stream.page_start(page)
                _require_overwrite(stream, position, begun.lsn, page)
                self._begun = None
                return None, position
        piece = stream.body[: min(begun.missing, stream.size)]
        begun.pieces.append(piece)
        begun.missing -= len(piece)
        if begun.missing:
            if pages.fault is not None:
                raise _Stop(begun.lsn, pages.fault.detail)
            return None, stream.size
        self._begun = None
        record = self._join(begun, stream.end_lsn(len(piece)), segment)
        self.last, self._previous = record, record.start
        return record, align(len(piece))

    def _join(self, begun: _Begun, end: int, segment: Segment) -> Record:
        buffer = b"".join(begun.pieces)
        total, xid, prev, code, crc = RECORD_HEADER.unpack_from(buffer)
        if code & ~0x0F == XLOG_SWITCH:
            end = segment.name.end
        major = segment.pages.header.major
        record = Record(begun.lsn, end, prev, xid, code >> 8, code & 0xFF, total, crc, major, buffer, 0)
        if prev != self._previous and (self._previous is not None or prev >= begun.lsn):
            raise _Stop(begun.lsn, f"xl_prev is {Lsn(prev)}, expected {_show(self._previous)}")
        if self._must_verify(segment) and not record.crc_is_right():
            raise _Stop(begun.lsn, "wrong checksum")
        return record

    def _must_verify(self, segment: Segment) -> bool:
        """Whether the next record's checksum is computed."""
        return not segment.complete or (self._previous is None and not self._trust_start)

    def _walk(self, segment: Segment, stream: Stream, position: int) -> Iterator[Record]:  # noqa: C901
        """The records that begin in this segment, from position on. The one loop that must be fast, so in one piece."""
        pages, body, size, payload = segment.pages, stream.body, stream.size, stream.payload
        remaining, major, table, from_lsn = pages.remaining, pages.header.major, self._selection.table, self._from_lsn
        unpack = RECORD_HEADER.unpack_from
        self.collected = Collected(stream, defaultdict(list))
        by_xid = self.collected.by_xid
        page = stream.page_of(position)
        edge, shift = stream.page_start(page + 1), stream.shift(page)
        previous, last = self._previous, -1
        verify = self._must_verify(segment)
        try:
            while position < size:
                if position >= edge:
                    page, edge, shift = page + 1, edge + payload, shift + SHORT_HEADER_SIZE
                    if remaining[page]:
                        raise _Stop(position + shift, f"page {page} continues a record that ended before")
                total, xid, prev, code, crc = unpack(body, position)
                lsn = position + shift
                if prev != previous or total < RECORD_HEADER_SIZE:
                    _suspect(stream, position, lsn, previous)
                following = position + total
                if following > edge:
                    crossed = self._cross(stream, page, position, lsn, total)
                    if crossed == _CONTINUES_BEHIND:
                        return
                    page = abs(crossed)
                    edge, shift = stream.page_start(page + 1), stream.shift(page)
                    if crossed < 0:
                        position = stream.page_start(page)
                        continue
                following = following + 7 & -8
                kind = table[code]
                end = following + shift
                if kind == _COLLECT and not verify:
                    by_xid[xid].append(position)
                elif kind or verify or end >= from_lsn:
                    if kind & _SWITCH:
                        end, following = segment.name.end, size
                    record = Record(lsn, end, prev, xid, code >> 8, code & 0xFF, total, crc, major, body, position)
                    if verify:
                        if not record.crc_is_right():
                            raise _Stop(lsn, "wrong checksum")
                        verify = not segment.complete
                    if kind & (_YIELD | _COLLECT) or end >= from_lsn:
                        yield record
                previous, last, position = lsn, position, following
        finally:
            if last >= 0:
                self._previous = previous
                self.last = stream.record(last)

    def _cross(self, stream: Stream, page: int, position: int, lsn: int, total: int) -> int:
        """Follow a record over the end of its page.

        Returns the page on which it ends, _CONTINUES_BEHIND if that is in a later segment (then ``_begun`` holds its
        beginning), or the negated number of the page at which it was given up and written over.
        """
        pages = stream.pages
        following = position + total
        if total > MAX_RECORD_SIZE:
            raise _Stop(lsn, f"length {total}")
        at = stream.page_start(page + 1)
        while at < following:
            page += 1
            if page >= pages.good:
                if pages.fault is not None:
                    raise _Stop(lsn, pages.fault.detail)
                self._begun = _Begun(lsn, total, [stream.body[position : stream.size]], following - stream.size)
                return _CONTINUES_BEHIND
            if pages.overwrites(page):
                _require_overwrite(stream, at, lsn, page)
                return -page
            if pages.remaining[page] != following - at:
                detail = f"{pages.remaining[page]} bytes continue on page {page}, not {following - at}"
                raise _Stop(lsn, detail)
            at += stream.payload
        return page


def _why(fault: Fault | None) -> tuple[str, EndReason]:
    if fault is None:
        return "the file ends", "invalid"
    return fault.detail, "zero" if fault.kind in ("zero", "end") else "invalid"


def _show(lsn: int | None) -> str:
    return "less" if lsn is None else str(Lsn(lsn))


def _suspect(stream: Stream, position: int, lsn: int, previous: int | None) -> None:
    """A header that does not follow the one before: raise _Stop, unless it is only cut by the end of the segment."""
    total, _, prev, _, _ = RECORD_HEADER.unpack_from(stream.body, position)
    if total < RECORD_HEADER_SIZE:
        zero = total == 0 and not stream.body[position:].strip(b"\0")
        raise _Stop(lsn, "zero bytes" if zero else f"length {total}", "zero" if zero else "invalid")
    cut = position + RECORD_HEADER_SIZE > stream.size
    if not cut and (previous is not None or prev >= lsn):
        raise _Stop(lsn, f"xl_prev is {Lsn(prev)}, expected {_show(previous)}")


def _require_overwrite(stream: Stream, position: int, lsn: int, page: int) -> None:
    """Where a record was given up, an OVERWRITE_CONTRECORD record must stand that names it (13.5, 14 and newer)."""
    total, _, _, code, _ = RECORD_HEADER.unpack_from(stream.body, position)
    if code & ~0x0F == XLOG_OVERWRITE_CONTRECORD and total == _OVERWRITE_TOTAL:
        data = stream.record(position).main_data()
        if int.from_bytes(data[:8], "little") == lsn:
            return
    raise _Stop(lsn, f"page {page} says that the record was written over, but names another")
