"""WAL pages: headers, and how far the pages of a segment hang together (access/xlog_internal.h, xlogreader.c).

WAL is written in the byte order of its server; little-endian servers are supported.
"""

from __future__ import annotations

import struct
from typing import Literal, NamedTuple

from pitr.core.errors import HistoryMismatch, IntegrityError, VersionUnsupported
from pitr.core.files import Buffer
from pitr.pg.lsn import Lsn
from pitr.pg.segments import SegmentName, is_segment_size

MAJOR_OF_MAGIC = {0xD106: 13, 0xD10D: 14, 0xD110: 15, 0xD113: 16, 0xD116: 17, 0xD118: 18}

FIRST_IS_CONTRECORD = 0x0001
LONG_HEADER = 0x0002
FIRST_IS_OVERWRITE_CONTRECORD = 0x0008
_KNOWN_FLAGS = 0x000F
# Of the word that holds magic, flags and timeline: all but FIRST_IS_CONTRECORD and BKP_REMOVABLE (0x0004).
_IGNORING_USUAL_FLAGS = ~(0x0005 << 16)

SHORT_HEADER_SIZE = 24
LONG_HEADER_SIZE = 40
MAXIMUM_ALIGNMENT = 8

_LONG_HEADER = struct.Struct("<HHIQI4xQII")
_MIN_BLOCK_SIZE = 1024
_MAX_BLOCK_SIZE = 64 * 1024


class LongHeader(NamedTuple):
    """The header of a segment's first page (XLogLongPageHeaderData)."""

    major: int
    magic: int
    timeline: int
    address: Lsn
    system_id: int
    segment_size: int
    block_size: int

    @classmethod
    def read(cls, data: Buffer, what: object) -> LongHeader:
        """Raises IntegrityError for anything that is not the beginning of a segment, VersionUnsupported for other WAL.

        ``what`` names the data in messages.
        """
        if len(data) < LONG_HEADER_SIZE:
            raise IntegrityError(f"WAL segment {what} is truncated", detail=f"{len(data)} bytes")
        magic, info, timeline, address, _, system_id, segment_size, block_size = _LONG_HEADER.unpack_from(data)
        major = MAJOR_OF_MAGIC.get(magic)
        if major is None and magic & 0xFF00 == 0xD100:
            raise VersionUnsupported(
                f"WAL segment {what} was written by a version of PostgreSQL that is not known here",
                detail=f"page magic 0x{magic:04X}; known are those of PostgreSQL 13 to 18",
            )
        if major is None:
            raise IntegrityError(
                f"{what} is not a WAL segment", detail=f"page 0: magic 0x{magic:04X} is that of no PostgreSQL version"
            )
        if info & LONG_HEADER == 0 or info & ~_KNOWN_FLAGS:
            raise IntegrityError(f"WAL segment {what} is damaged", detail=f"page 0: flags 0x{info:04X}")
        if not _MIN_BLOCK_SIZE <= block_size <= _MAX_BLOCK_SIZE or block_size & (block_size - 1):
            raise IntegrityError(f"WAL segment {what} is damaged", detail=f"page 0: block size {block_size}")
        if not is_segment_size(segment_size):
            raise IntegrityError(f"WAL segment {what} is damaged", detail=f"page 0: segment size {segment_size}")
        return cls(major, magic, timeline, Lsn(address), system_id, segment_size, block_size)

    def require(self, name: SegmentName, *, system_id: int | None = None) -> None:
        """Raises HistoryMismatch unless this begins the named segment of that cluster."""
        if system_id is not None and self.system_id != system_id:
            raise HistoryMismatch(
                f"WAL segment {name} belongs to another cluster",
                detail=f"page 0: system identifier {self.system_id}, expected {system_id}",
            )
        if self.segment_size != name.size_bytes:
            raise HistoryMismatch(
                f"WAL segment {name} has another segment size",
                detail=f"page 0: {self.segment_size} bytes, expected {name.size_bytes}",
            )
        if self.address != name.start:
            raise HistoryMismatch(
                f"WAL segment {name} has the content of another segment",
                detail=f"page 0: address {self.address}, expected {name.start}",
            )
        if self.timeline == 0 or self.timeline > name.timeline:
            raise HistoryMismatch(
                f"WAL segment {name} has the content of another timeline",
                detail=f"page 0: timeline {self.timeline}, expected at most {name.timeline}",
            )


class Fault(NamedTuple):
    """The first page that does not follow its predecessor; ``detail`` says what was expected and what was found."""

    page: int
    kind: Literal["zero", "end", "magic", "flags", "address", "timeline", "continuation"]
    detail: str


class Pages(NamedTuple):
    """The headers of all whole pages of one segment. Lists are indexed by page."""

    header: LongHeader
    words: list[int]
    """magic | flags << 16 | timeline << 32"""
    addresses: list[int]
    remaining: list[int]
    """Bytes of a record begun on an earlier page that are still to come, from this page on (xlp_rem_len)."""
    good: int
    """How many leading pages hang together."""
    fault: Fault | None
    """Why page ``good`` does not; None when the segment is full."""

    @classmethod
    def read(cls, data: Buffer, name: SegmentName, *, system_id: int | None = None) -> Pages:
        """Read a segment or its beginning. A first page that is not this segment's raises (see LongHeader)."""
        header = LongHeader.read(data, name)
        header.require(name, system_id=system_id)
        block = header.block_size
        view = memoryview(data).cast("B")[: len(data) // block * block]
        if not view:
            raise IntegrityError(f"WAL segment {name} is truncated", detail=f"{len(data)} bytes, not one page")
        words = view.cast("Q")[:: block // 8].tolist()
        addresses = view.cast("Q")[1 :: block // 8].tolist()
        remaining = view.cast("I")[4 :: block // 4].tolist()
        good, fault = _follow(words, addresses, remaining, header, name.timeline)
        if fault is None and good * block < name.size_bytes:
            fault = Fault(good, "end", f"page {good}: the file ends")
        return cls(header, words, addresses, remaining, good, fault)

    def timeline(self, page: int) -> int:
        return self.words[page] >> 32

    def overwrites(self, page: int) -> bool:
        """Whether the record that should have continued here was given up and written over (13.5, 14 and newer)."""
        return self.words[page] >> 16 & FIRST_IS_OVERWRITE_CONTRECORD != 0

    def timeline_runs(self) -> list[tuple[int, int, int]]:
        """(timeline, first page, last page) of the good pages, in order."""
        runs: list[tuple[int, int, int]] = []
        for page, word in enumerate(self.words[: self.good]):
            timeline = word >> 32
            if runs and runs[-1][0] == timeline:
                runs[-1] = (timeline, runs[-1][1], page)
            else:
                runs.append((timeline, page, page))
        return runs


def _follow(
    words: list[int], addresses: list[int], remaining: list[int], header: LongHeader, newest: int
) -> tuple[int, Fault | None]:
    """Count the leading pages with the right magic, flags, address, timeline and continuation."""
    block = header.block_size
    address = int(header.address)
    room = block - LONG_HEADER_SIZE
    regular = header.magic | header.timeline << 32
    expected = -1
    """What must continue on this page; -1: a record may have begun on the page before, so anything may"""
    for page, word in enumerate(words):
        left = remaining[page]
        if (
            word & _IGNORING_USUAL_FLAGS != regular
            or addresses[page] != address
            or (left != 0) != (word >> 16 & FIRST_IS_CONTRECORD != 0)
            or (expected >= 0 and left != expected)
        ):
            fault = _fault(page, word, addresses[page], left, expected, header, regular >> 32, newest)
            if fault is not None:
                return page, fault
            regular = header.magic | word >> 32 << 32
        expected = max(left - room, 0) if left > room - MAXIMUM_ALIGNMENT else -1
        address += block
        room = block - SHORT_HEADER_SIZE
    return len(words), None


def _fault(
    page: int, word: int, address: int, left: int, expected_left: int, header: LongHeader, oldest: int, newest: int
) -> Fault | None:
    """What is wrong with a page that is not wholly regular; None when it is one of the lawful exceptions."""
    magic, flags, timeline = word & 0xFFFF, word >> 16 & 0xFFFF, word >> 32
    right = header.address + page * header.block_size
    if word == 0 and address == 0:
        return Fault(page, "zero", f"page {page}: zero bytes, expected the page at {right}")
    if magic != header.magic:
        return Fault(page, "magic", f"page {page}: magic 0x{magic:04X}, expected 0x{header.magic:04X}")
    if address != right:
        return Fault(page, "address", f"page {page}: address {Lsn(address)}, expected {right}")
    if flags & ~_KNOWN_FLAGS or (flags & LONG_HEADER != 0) != (page == 0):
        return Fault(page, "flags", f"page {page}: flags 0x{flags:04X}")
    if not oldest <= timeline <= newest:
        return Fault(page, "timeline", f"page {page}: timeline {timeline}, expected {oldest} to {newest}")
    if (left != 0) != (flags & FIRST_IS_CONTRECORD != 0):
        return Fault(page, "continuation", f"page {page}: {left} bytes of a record continue, flags 0x{flags:04X}")
    if expected_left not in (-1, left) and not flags & FIRST_IS_OVERWRITE_CONTRECORD:
        return Fault(page, "continuation", f"page {page}: {left} bytes of a record continue, expected {expected_left}")
    return None
