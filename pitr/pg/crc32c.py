"""CRC-32C (Castagnoli) as in port/pg_crc32c.h: for pg_control and WAL records, a few hundred bytes at a time."""

from __future__ import annotations

import struct

_POLYNOMIAL = 0x82F63B78  # reflected


def _make_tables() -> tuple[tuple[int, ...], ...]:
    """Slicing by eight: table k advances a byte over k more zero bytes."""
    first = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        first.append(value)
    tables = [tuple(first)]
    for _ in range(7):
        tables.append(tuple(first[value & 0xFF] ^ value >> 8 for value in tables[-1]))
    return tuple(tables)


_TABLES = _make_tables()
_PAIR = struct.Struct("<II")


def crc32c(data: bytes | bytearray | memoryview, crc: int = 0) -> int:
    """The CRC of data, or of what gave ``crc`` followed by data."""
    t0, t1, t2, t3, t4, t5, t6, t7 = _TABLES
    view = memoryview(data).cast("B")
    whole = len(view) & ~7
    crc ^= 0xFFFFFFFF
    for low, high in _PAIR.iter_unpack(view[:whole]):
        low ^= crc
        crc = (
            t7[low & 0xFF]
            ^ t6[low >> 8 & 0xFF]
            ^ t5[low >> 16 & 0xFF]
            ^ t4[low >> 24]
            ^ t3[high & 0xFF]
            ^ t2[high >> 8 & 0xFF]
            ^ t1[high >> 16 & 0xFF]
            ^ t0[high >> 24]
        )
    for byte in view[whole:]:
        crc = crc >> 8 ^ t0[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF
