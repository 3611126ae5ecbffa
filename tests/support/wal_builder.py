"""Writes WAL record by record, for layouts that a server makes once in a million records and majors not at hand."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from pitr.pg.crc32c import crc32c
from pitr.pg.lsn import Lsn
from pitr.pg.segments import SegmentName
from pitr.wal.pages import FIRST_IS_CONTRECORD, LONG_HEADER, MAJOR_OF_MAGIC
from pitr.wal.records import RECORD_HEADER, RM_XLOG, XLOG_SWITCH
from pitr.wal.stream import Segment, align

SYSTEM_ID = 7_000_000_000_000_000_001
MAGIC_OF_MAJOR = {major: magic for magic, major in MAJOR_OF_MAGIC.items()}


def main_data(data: bytes) -> bytes:
    """The body of a record that has only main data."""
    if len(data) < 256:
        return bytes([255, len(data)]) + data
    return bytes([254]) + struct.pack("<I", len(data)) + data


@dataclass
class WalBuilder:
    major: int = 15
    segment_size: int = 1024 * 1024
    block_size: int = 8192
    timeline: int = 1
    at: int = 1024 * 1024
    prev: int = 0
    files: dict[int, bytearray] = field(default_factory=dict)

    @property
    def room(self) -> int:
        """Bytes left on the page."""
        return -self.at % self.block_size

    def add(self, body: bytes = b"", *, rmid: int = 10, info: int = 0, xid: int = 0, checksum: bool = True) -> Lsn:
        """Returns where the record begins. ``checksum``: False saves time where nobody looks at it."""
        total = 24 + len(body)
        head = RECORD_HEADER.pack(total, xid, self.prev, info | rmid << 8, 0)[:-4]
        record = head + struct.pack("<I", crc32c(head, crc32c(body)) if checksum else 0) + body
        if self.room == 0:
            self._page(0)
        start = Lsn(self.at)
        at = 0
        while at < total:
            if self.room == 0:
                self._page(total - at)
            piece = record[at : at + self.room]
            self._write(piece)
            at += len(piece)
        self.at = align(self.at)
        self.prev = start
        return start

    def switch(self) -> Lsn:
        start = self.add(rmid=RM_XLOG, info=XLOG_SWITCH)
        self.at += -self.at % self.segment_size
        return start

    def fill_to(self, bytes_before_segment_end: int) -> None:
        """Records up to exactly that many bytes before the end of the segment."""
        while self.room == 0 or -self.at % self.segment_size > self.block_size:
            self.add(bytes(max(0, min(self.room, 2000) - 24) or self.block_size // 2))
        size = self.room - bytes_before_segment_end
        assert size >= 24, "the last page is too full"
        self.add(bytes(size - 24))

    def segment(self, number: int) -> SegmentName:
        return SegmentName(self.timeline, number, self.segment_size)

    def fetch(self, name: SegmentName) -> Segment | None:
        """The segments that are full are complete."""
        data = self.files.get(name.number)
        return None if data is None else Segment.read(bytes(data), name, complete=name.end <= self.at)

    def _page(self, remaining: int) -> None:
        offset = self.at % self.segment_size
        flags = FIRST_IS_CONTRECORD if remaining else 0
        if offset == 0:
            flags |= LONG_HEADER
        header = struct.pack("<HHIQI4x", MAGIC_OF_MAJOR[self.major], flags, self.timeline, self.at, remaining)
        if offset == 0:
            header += struct.pack("<QII", SYSTEM_ID, self.segment_size, self.block_size)
        self._write(header)

    def _write(self, data: bytes) -> None:
        number, offset = divmod(self.at, self.segment_size)
        segment = self.files.setdefault(number, bytearray(self.segment_size))
        segment[offset : offset + len(data)] = data
        self.at += len(data)
