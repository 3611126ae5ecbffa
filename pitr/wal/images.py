"""Full-page images in WAL records (access/xlogrecord.h, XLogRecordBlockImageHeader; RestoreBlockImage)."""

from __future__ import annotations

from pitr.wal.records import PackedImage, Record

_PGLZ = 0x04
_ZSTD = 0x10
_COMPRESSED = 0x1C
_COMPRESSED_BEFORE_15 = 0x02


def page_image(record: Record, block_id: int, page_size: int = 8192) -> bytes | None:
    """The page as the record leaves it; None without an image, or when it is compressed in a way that is not read here.

    pglz and zstd are read, lz4 is not. Raises IntegrityError for a record that cannot be decoded.
    """
    packed = record.packed_image(block_id)
    if packed is None:
        return None
    hole = page_size - len(packed.data) if packed.hole_length is None else packed.hole_length
    try:
        data = _unpacked(packed, page_size - hole, record.major)
    except (IndexError, ValueError):
        return None
    if data is None:
        return None
    page = data[: packed.hole_offset] + bytes(hole) + data[packed.hole_offset :]
    return page if len(page) == page_size else None


def _unpacked(packed: PackedImage, size: int, major: int) -> bytes | None:
    if major < 15:
        return pglz_decompress(packed.data, size) if packed.info & _COMPRESSED_BEFORE_15 else packed.data
    if not packed.info & _COMPRESSED:
        return packed.data
    if packed.info & _PGLZ:
        return pglz_decompress(packed.data, size)
    if packed.info & _ZSTD:
        import zstandard

        try:
            return zstandard.ZstdDecompressor().decompress(packed.data, max_output_size=size)
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
