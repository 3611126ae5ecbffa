"""The one rule about ranges of an object, shared by the drivers."""

from __future__ import annotations

from pitr.core.errors import IntegrityError


def checked_range(name: str, size_bytes: int, offset: int, length: int | None) -> tuple[int, int]:
    """``(start, end)`` of the wanted bytes. Raises IntegrityError when they do not lie within the object, for then it
    is not the object that the caller's offsets were made for."""
    end = size_bytes if length is None else offset + length
    if offset < 0 or end < offset or end > size_bytes:
        raise behind_the_end(name, size_bytes, offset, length)
    return offset, end


def behind_the_end(name: str, size_bytes: int | None, offset: int, length: int | None) -> IntegrityError:
    wanted = f"{length} bytes" if length is not None else "the rest"
    size = "it is shorter" if size_bytes is None else f"it has {size_bytes} bytes"
    return IntegrityError(
        f"object is shorter than expected: {name}",
        detail=f"{wanted} at offset {offset} wanted, {size}",
        hint="the object was cut off in the store; take it from a copy, or restore from another backup",
    )
