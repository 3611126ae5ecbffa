"""Full-page images in WAL records (access/xlogrecord.h, XLogRecordBlockImageHeader; RestoreBlockImage)."""

from __future__ import annotations

import struct

from pitr.wal.records import RECORD_HEADER_SIZE, Record

_IMAGE = struct.Struct("<HHB")
_BLOCK_FLAGS_IMAGE = 0x10
_HAS_HOLE = 0x01


def first_image(record: Record, page_size: int = 8192) -> bytes | None:
    """The page in the record's only block reference; None without one, or compressed in a way not read here.

    pglz and zstd are read, lz4 is not.
    """
    raw = record.buffer[record.position + RECORD_HEADER_SIZE : record.position + record.total_length]
    try:
        return _first_image(raw, record.major, page_size)
    except (struct.error, IndexError, KeyError, ValueError):
        return None


def _first_image(raw: bytes, major: int, page_size: int) -> bytes | None:
    if raw[0] != 0 or not raw[1] & _BLOCK_FLAGS_IMAGE:
        return None
    length, hole_offset, info = _IMAGE.unpack_from(raw, 4)
    has_hole, compressed = info & _HAS_HOLE, info & (0x1C if major >= 15 else 0x02)
    at = 9
    hole = page_size - length
    if compressed:
        hole = struct.unpack_from("<H", raw, at)[0] if has_hole else 0
        at += 2 if has_hole else 0
    at += 12 + 4  # locator and block; the main data's header is the last one
    begin = at + {255: 2, 254: 5}[raw[at]]
    image = raw[begin : begin + length]
    if compressed:
        unpacked = _decompress(image, page_size - hole, info, major)
        if unpacked is None:
            return None
        image = unpacked
    page = image[:hole_offset] + bytes(hole) + image[hole_offset:] if hole else image
    return page if len(page) == page_size else None


def _decompress(image: bytes, size: int, info: int, major: int) -> bytes | None:
    if major < 15 or info & 0x04:
        return pglz_decompress(image, size)
    if info & 0x10:
        import zstandard

        try:
            return zstandard.ZstdDecompressor().decompress(image, max_output_size=size)
        except zstandard.ZstdError:
            return None
    return None


def pglz_decompress(source: bytes, size: int) -> bytes:
    """common/pg_lzcompress.c. Raises ValueError or IndexError for what is no such data."""
    out = bytearray()
    at = 0
    while at < len(source) and len(out) < size:
        control = source[at]
        at += 1
        for bit in range(8):
            if at >= len(source) or len(out) >= size:
                break
            if not control >> bit & 1:
                out.append(source[at])
                at += 1
                continue
            length = (source[at] & 0x0F) + 3
            offset = (source[at] & 0xF0) << 4 | source[at + 1]
            at += 2
            if length == 18:
                length += source[at]
                at += 1
            if not 0 < offset <= len(out):
                raise ValueError("offset behind the beginning")
            for _ in range(min(length, size - len(out))):
                out.append(out[-offset])
    if len(out) != size:
        raise ValueError(f"{len(out)} bytes instead of {size}")
    return bytes(out)
