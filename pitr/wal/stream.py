"""The bytes of a segment's records without the page headers, and how positions in them map to LSNs.

PostgreSQL counts the same way inside: usable byte positions (XLogBytePosToRecPtr in xlog.c).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pitr.core.files import Buffer
from pitr.pg.lsn import Lsn
from pitr.pg.segments import SegmentName
from pitr.wal.pages import LONG_HEADER_SIZE, MAXIMUM_ALIGNMENT, SHORT_HEADER_SIZE, Pages
from pitr.wal.records import RECORD_HEADER, RECORD_HEADER_SIZE, XLOG_SWITCH, Record

_LONGER = LONG_HEADER_SIZE - SHORT_HEADER_SIZE


class Segment(NamedTuple):
    """A WAL segment with its page headers read.

    ``complete``: the server had finished it (it comes from an archive), so WAL that ends inside is damage. A
    ``.partial`` file and the segment a server is writing are not complete: behind the end of WAL lie zeros or the pages
    of an older segment whose file was reused, and the last pages may have reached the disk in any order.
    """

    name: SegmentName
    data: Buffer
    pages: Pages
    complete: bool

    @classmethod
    def read(cls, data: Buffer, name: SegmentName, *, complete: bool = True, system_id: int | None = None) -> Segment:
        """Raises IntegrityError, HistoryMismatch or VersionUnsupported when the first page is not that segment's."""
        return cls(name, data, Pages.read(data, name, system_id=system_id), complete)


Fetch = Callable[[SegmentName], Buffer | Segment | None]
"""Gives a segment's content (bytes: complete), or None when it does not exist; other failures are raised."""


def align(size: int) -> int:
    """MAXALIGN."""
    return size + MAXIMUM_ALIGNMENT - 1 & -MAXIMUM_ALIGNMENT


def header_size(page: int) -> int:
    return SHORT_HEADER_SIZE if page else LONG_HEADER_SIZE


def first_record(pages: Pages, page: int = 0) -> Lsn | None:
    """Where the first record begins on this good page or behind it; None: the rest is one record's continuation."""
    block = pages.header.block_size
    while page < pages.good:
        header = header_size(page)
        left = align(pages.remaining[page])
        if left < block - header:
            return pages.header.address + page * block + header + left
        page += 1
    return None


class Stream:
    """Record bytes of the good pages from page ``first`` on.

    Positions count bytes of ``body``, which has room for a record header of zeros behind its ``size`` bytes.
    """

    __slots__ = ("_base", "_segment", "_start", "body", "pages", "payload", "size")

    def __init__(self, segment: Segment, first: int = 0) -> None:
        pages = segment.pages
        block = pages.header.block_size
        view = memoryview(segment.data)
        self._segment = segment
        self.pages = pages
        self.payload = block - SHORT_HEADER_SIZE
        self._start = int(pages.header.address)
        self._base = first * self.payload - _LONGER if first else 0
        pieces = [view[page * block + header_size(page) : (page + 1) * block] for page in range(first, pages.good)]
        self.body = b"".join([*pieces, bytes(RECORD_HEADER_SIZE)])
        self.size = len(self.body) - RECORD_HEADER_SIZE

    def page_start(self, page: int) -> int:
        """The position of the first byte behind the header of the page."""
        return (page * self.payload - _LONGER if page else 0) - self._base

    def shift(self, page: int) -> int:
        """LSN minus position, for all positions on the page."""
        return self._start + self._base + LONG_HEADER_SIZE + SHORT_HEADER_SIZE * page

    def page_of(self, position: int) -> int:
        """The page of a position; one at the border of two pages belongs to the second."""
        return (position + self._base + _LONGER) // self.payload

    def position(self, lsn: int) -> int | None:
        """The position of an LSN at or behind page ``first``; of the page's first record byte when it names the page.

        None when the LSN lies inside a page header.
        """
        page, offset = divmod(int(lsn) - self._start, self.pages.header.block_size)
        header = header_size(page)
        if 0 < offset < header:
            return None
        return self.page_start(page) + max(offset - header, 0)

    def end_lsn(self, position: int) -> int:
        """The aligned LSN behind a record of which ``position`` is the end; a page's border, not its first record."""
        end = align(position)
        return end + self.shift(self.page_of(end - 1))

    def lsn(self, position: int) -> int:
        """Of a record that begins at this position."""
        return position + self.shift(self.page_of(position))

    def record(self, position: int) -> Record:
        """The record that lies whole at this position."""
        total, xid, prev, code, crc = RECORD_HEADER.unpack_from(self.body, position)
        lsn = self.lsn(position)
        end = self._segment.name.end if code & ~0x0F == XLOG_SWITCH else self.end_lsn(position + total)
        major = self.pages.header.major
        return Record(lsn, end, prev, xid, code >> 8, code & 0xFF, total, crc, major, self.body, position)
