"""Puts together what the indexes of neighbouring segments hold of a record that spans them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from pitr.pg.lsn import Lsn
from pitr.wal.index import SegmentIndex
from pitr.wal.indexing import index_records, is_indexed
from pitr.wal.records import RECORD_HEADER, RECORD_HEADER_SIZE, Record

ReadRecord = Callable[[Lsn], Record | None]
"""Reads the record that begins there from the segments themselves; None when it was never finished."""


def stitched(indexes: Iterable[SegmentIndex], read_record: ReadRecord) -> Iterator[SegmentIndex]:
    """The indexes of consecutive segments, and behind each the index of the record that begins in it and ends later.

    Records that say nothing to an index are passed over. ``read_record`` is called where a piece was too long to be
    kept. A segment that is not there ends what was begun.
    """
    begun: _Begun | None = None
    for index in indexes:
        if begun is not None:
            if index.name.start == begun.next_segment and not index.lead_given_up:
                record = begun.add(index, read_record)
                if record is not None:
                    yield index_records([record], begun.index.name)
                begun = None if begun.done else begun
            else:
                begun = None
        yield index
        if index.tail is not None and is_indexed(index.tail_data):
            begun = _Begun(index, index.tail)


class _Begun:
    def __init__(self, index: SegmentIndex, lsn: Lsn) -> None:
        self.index, self.lsn = index, lsn
        self.data = index.tail_data
        self.next_segment = index.name.end
        self.done = False

    def add(self, following: SegmentIndex, read_record: ReadRecord) -> Record | None:
        if following.lead is None or self.index.tail_cut:
            self.done = True
            return read_record(self.lsn)
        self.data += following.lead
        self.next_segment = following.name.end
        if len(self.data) < RECORD_HEADER_SIZE:
            return None
        total, xid, prev, code, crc = RECORD_HEADER.unpack_from(self.data)
        if len(self.data) < total:
            return None
        self.done = True
        end = following.start if following.start is not None else following.name.end
        record = Record(
            self.lsn, end, prev, xid, code >> 8, code & 0xFF, total, crc, following.major, self.data[:total], 0
        )
        return record if record.crc_is_right() else read_record(self.lsn)
