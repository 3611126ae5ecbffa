"""WAL records: header, block references, main data (access/xlogrecord.h)."""

from __future__ import annotations

import struct
from typing import NamedTuple

from pitr.core.errors import IntegrityError
from pitr.pg.crc32c import crc32c
from pitr.pg.lsn import Lsn

RECORD_HEADER = struct.Struct("<IIQHxxI")
"""xl_tot_len, xl_xid, xl_prev, xl_info | xl_rmid << 8, xl_crc"""
RECORD_HEADER_SIZE = 24
MAX_RECORD_SIZE = 1020 * 1024 * 1024

RM_XLOG = 0
RM_XACT = 1
RM_SMGR = 2
RM_CLOG = 3
RM_DBASE = 4
RM_TBLSPC = 5
RM_MULTIXACT = 6
RM_RELMAP = 7
RM_STANDBY = 8
RM_HEAP2 = 9
RM_HEAP = 10

XLOG_CHECKPOINT_SHUTDOWN = 0x00
XLOG_CHECKPOINT_ONLINE = 0x10
XLOG_SWITCH = 0x40
XLOG_END_OF_RECOVERY = 0x90
XLOG_OVERWRITE_CONTRECORD = 0xD0

BEGINS_TIMELINE = frozenset(
    {
        (RM_XLOG, XLOG_CHECKPOINT_SHUTDOWN),
        (RM_XLOG, XLOG_CHECKPOINT_ONLINE),
        (RM_XLOG, XLOG_END_OF_RECOVERY),
    }
)
"""Kinds of records that name the timeline they were written on (see xlog.begun_timeline)."""

# The upper four bits of xl_info belong to the resource manager.
INFO_MASK = 0xF0

_BLOCK_ID_MAX = 32
_ID_DATA_SHORT = 255
_ID_DATA_LONG = 254
_ID_ORIGIN = 253
_ID_TOPLEVEL_XID = 252

_FORK_MASK = 0x0F
_HAS_IMAGE = 0x10
_WILL_INIT = 0x40
_SAME_REL = 0x80
_IMAGE_HAS_HOLE = 0x01

_BLOCK_HEADER = struct.Struct("<BH")
_IMAGE_HEADER = struct.Struct("<HHB")
_RELATION = struct.Struct("<III")
_UINT32 = struct.Struct("<I")


class RelFileLocator(NamedTuple):
    """Physical identity of a relation: OIDs of tablespace and database (0: shared), and its file number."""

    tablespace: int
    database: int
    number: int


PG_DATABASE = RelFileLocator(tablespace=1664, database=0, number=1262)
"""Its file until somebody runs VACUUM FULL on it."""


class BlockReference(NamedTuple):
    """One block that a record touches. ``fork``: 0 main, 1 fsm, 2 vm, 3 init."""

    id: int
    locator: RelFileLocator
    fork: int
    block: int
    has_image: bool
    image_applies: bool
    """Replay puts the image in place (else it is there for checking only)."""
    will_init: bool
    data: bytes


class RecordBody(NamedTuple):
    main_data: bytes
    blocks: tuple[BlockReference, ...]
    origin: int | None
    top_xid: int | None
    """The top-level transaction, given once per subtransaction with wal_level = logical (14 and newer)."""


class Record(NamedTuple):
    """One record's header; the rest is decoded when asked for.

    Keeps the segment that it came from in memory: keep decoded values, not records.
    """

    start: int
    """LSN of the first byte (PostgreSQL's ReadRecPtr), as a plain int; see ``lsn``."""
    end: int
    """LSN behind the last byte, aligned (EndRecPtr); of a switch record the segment's end."""
    prev: int
    xid: int
    rmid: int
    info: int
    """xl_info whole; its upper four bits are the resource manager's."""
    total_length: int
    crc: int
    major: int
    buffer: bytes
    position: int
    """Where the record begins in ``buffer``."""

    @property
    def lsn(self) -> Lsn:
        return Lsn(self.start)

    @property
    def end_lsn(self) -> Lsn:
        return Lsn(self.end)

    @property
    def operation(self) -> int:
        return self.info & INFO_MASK

    def crc_is_right(self) -> bool:
        """Compute the checksum; about 12 MB/s."""
        begin, end = self.position, self.position + self.total_length
        view = memoryview(self.buffer)
        crc = crc32c(view[begin + RECORD_HEADER_SIZE : end])
        return crc32c(view[begin : begin + RECORD_HEADER_SIZE - 4], crc) == self.crc

    def require_crc(self) -> None:
        """Raises IntegrityError when the checksum is wrong."""
        if not self.crc_is_right():
            raise IntegrityError(f"WAL record at {self.lsn} is damaged", detail="its checksum is wrong")

    def main_data(self) -> bytes:
        """The resource manager's own data. Raises IntegrityError."""
        buffer, begin = self.buffer, self.position + RECORD_HEADER_SIZE
        if self.total_length >= RECORD_HEADER_SIZE + 2 and buffer[begin] == _ID_DATA_SHORT:
            length = buffer[begin + 1]
            if self.total_length == RECORD_HEADER_SIZE + 2 + length:
                return buffer[begin + 2 : begin + 2 + length]
        return self.body().main_data

    def body(self) -> RecordBody:
        """Decode everything behind the header (DecodeXLogRecord). Raises IntegrityError."""
        begin = self.position + RECORD_HEADER_SIZE
        raw = self.buffer[begin : self.position + self.total_length]
        try:
            return _decode(raw, self.major)
        except (struct.error, IndexError, ValueError) as error:
            raise IntegrityError(f"WAL record at {self.lsn} is damaged", detail=f"body: {error}") from None

    def packed_image(self, block_id: int) -> PackedImage | None:
        """The full-page image of one block reference, None if it has none. Raises IntegrityError."""
        begin = self.position + RECORD_HEADER_SIZE
        raw = self.buffer[begin : self.position + self.total_length]
        try:
            return _image(raw, self.major, block_id)
        except (struct.error, IndexError, ValueError) as error:
            raise IntegrityError(f"WAL record at {self.lsn} is damaged", detail=f"body: {error}") from None


class _ImageFlags(NamedTuple):
    applies: int
    compressed: int


def _image_flags(major: int) -> _ImageFlags:
    """bimg_info: the bits moved in 15, when lz4 and zstd came."""
    return _ImageFlags(0x02, 0x1C) if major >= 15 else _ImageFlags(0x04, 0x02)


class _BlockHeader(NamedTuple):
    id: int
    flags: int
    data_length: int
    image_length: int
    image_info: int
    hole_offset: int
    hole_length: int | None
    """None: what the image lacks to a page"""
    locator: RelFileLocator
    block: int


class PackedImage(NamedTuple):
    """A page as it stands in a record: without its hole, perhaps compressed. ``info``: bimg_info."""

    data: bytes
    info: int
    hole_offset: int
    hole_length: int | None


def _decode(raw: bytes, major: int) -> RecordBody:
    headers, at, main_length, origin, top_xid = _headers(raw, major)
    blocks = []
    for header in headers:
        at += header.image_length
        blocks.append(_reference(header, raw[at : at + header.data_length], major))
        at += header.data_length
    return RecordBody(raw[at : at + main_length], tuple(blocks), origin, top_xid)


def _image(raw: bytes, major: int, block_id: int) -> PackedImage | None:
    headers, at, *_ = _headers(raw, major)
    for header in headers:
        if header.id == block_id and header.flags & _HAS_IMAGE:
            data = raw[at : at + header.image_length]
            return PackedImage(data, header.image_info, header.hole_offset, header.hole_length)
        at += header.image_length + header.data_length
    return None


def _headers(raw: bytes, major: int) -> tuple[list[_BlockHeader], int, int, int | None, int | None]:
    """The blocks' headers, where the data begin, the length of the main data, origin, top-level xid."""
    headers: list[_BlockHeader] = []
    origin = top_xid = None
    main_length = 0
    payload = 0
    at = 0
    # All headers stand before all data; what is left when the headers are read is exactly the data.
    while len(raw) - at > payload:
        identity = raw[at]
        if identity == _ID_DATA_SHORT:
            main_length, at = raw[at + 1], at + 2
            payload += main_length
            break
        if identity == _ID_DATA_LONG:
            (main_length,), at = _UINT32.unpack_from(raw, at + 1), at + 5
            payload += main_length
            break
        if identity == _ID_ORIGIN:
            origin, at = int.from_bytes(raw[at + 1 : at + 3], "little"), at + 3
        elif identity == _ID_TOPLEVEL_XID:
            (top_xid,), at = _UINT32.unpack_from(raw, at + 1), at + 5
        elif identity <= _BLOCK_ID_MAX:
            header, at = _block_header(raw, at, headers[-1].locator if headers else None, major)
            headers.append(header)
            payload += header.data_length + header.image_length
        else:
            raise ValueError(f"block id {identity}")
    if len(raw) - at != payload:
        raise ValueError(f"{len(raw) - at} bytes of data, expected {payload}")
    return headers, at, main_length, origin, top_xid


def _block_header(raw: bytes, at: int, previous: RelFileLocator | None, major: int) -> tuple[_BlockHeader, int]:
    identity = raw[at]
    flags, data_length = _BLOCK_HEADER.unpack_from(raw, at + 1)
    at += 4
    image_length = image_info = hole_offset = 0
    hole_length = None
    if flags & _HAS_IMAGE:
        image_length, hole_offset, image_info = _IMAGE_HEADER.unpack_from(raw, at)
        at += 5
        if image_info & _image_flags(major).compressed:
            hole_length = 0
            if image_info & _IMAGE_HAS_HOLE:  # an image that is not compressed implies the length
                hole_length, at = int.from_bytes(raw[at : at + 2], "little"), at + 2
    if flags & _SAME_REL:
        if previous is None:
            raise ValueError("block reference without a relation")
        locator = previous
    else:
        locator = RelFileLocator(*_RELATION.unpack_from(raw, at))
        at += 12
    (block,) = _UINT32.unpack_from(raw, at)
    header = _BlockHeader(
        identity, flags, data_length, image_length, image_info, hole_offset, hole_length, locator, block
    )
    return header, at + 4


def _reference(header: _BlockHeader, data: bytes, major: int) -> BlockReference:
    has_image = header.flags & _HAS_IMAGE != 0
    return BlockReference(
        id=header.id,
        locator=header.locator,
        fork=header.flags & _FORK_MASK,
        block=header.block,
        has_image=has_image,
        image_applies=has_image and header.image_info & _image_flags(major).applies != 0,
        will_init=header.flags & _WILL_INIT != 0,
        data=data,
    )
