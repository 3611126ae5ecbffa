"""Log sequence numbers: byte positions in the write-ahead log."""

from __future__ import annotations

import re
from typing import Self

_TEXT = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")


class Lsn(int):
    """A position in the WAL; an int that shows itself as PostgreSQL does: ``0/16B3748``.

    ``Lsn + int`` is an Lsn, ``Lsn - Lsn`` a distance in bytes (a plain int).
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse of ``str``; lower case and leading zeros are taken as by the type pg_lsn. Raises ValueError."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise ValueError(f"not an LSN: {text!r} (example: 0/16B3748)")
        return cls(int(match[1], 16) << 32 | int(match[2], 16))

    def __add__(self, distance_bytes: int) -> Lsn:
        return Lsn(int(self) + int(distance_bytes))

    __radd__ = __add__

    def __str__(self) -> str:
        return f"{int(self) >> 32:X}/{int(self) & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"Lsn({self})"
