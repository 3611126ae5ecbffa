"""Reading past the page cache's contents: what was not cached before is not left behind, what was stays.

A backup reads everything once. Left to itself it would push the database's working set out of memory; dropping
everything behind the read position would do the same to what the database holds there.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable
from functools import cache

import numpy as np

_PAGE = mmap.PAGESIZE


@cache
def _mincore() -> Callable[[int, int, int], int] | None:
    try:
        function = ctypes.CDLL(None, use_errno=True).mincore
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    function.restype = ctypes.c_int
    return lambda address, length, vector: int(function(address, length, vector))


def is_cached(fd: int, offset: int, length: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """For each memory page of a file's range, whether it is in the page cache. ``offset``: a multiple of the page size.

    All true when it cannot be told (also where the kernel does not tell who does not own the file).
    """
    pages = -(-length // _PAGE)
    call = _mincore()
    if call is None or pages == 0:
        return np.ones(pages, np.bool_)
    try:
        mapped = mmap.mmap(fd, length, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE, offset=offset)
    except (OSError, ValueError):  # the file became shorter
        return np.ones(pages, np.bool_)
    vector = np.zeros(pages, np.uint8)
    place = (ctypes.c_char * length).from_buffer(mapped)
    try:
        failed = call(ctypes.addressof(place), length, vector.ctypes.data) != 0
    finally:
        del place
        mapped.close()
    return np.ones(pages, np.bool_) if failed else (vector & 1).astype(np.bool_)


class CacheKeeper:
    """Drops a read range of a file from the page cache unless a part of it was there before the reading began."""

    def __init__(self, fd: int, offset: int, length: int) -> None:
        self._fd = fd
        self._offset = offset
        self._cached = is_cached(fd, offset, length) if offset % _PAGE == 0 else np.ones(1, np.bool_)
        self._keep_all = bool(self._cached.all())
        os.posix_fadvise(fd, offset, length, os.POSIX_FADV_SEQUENTIAL)

    def done(self, offset: int, length: int) -> None:
        """[offset, offset + length) has been read and is not needed again."""
        if self._keep_all:
            return
        first = (offset - self._offset) // _PAGE
        last = -(-(offset + length - self._offset) // _PAGE)
        if not self._cached[first:last].any():
            os.posix_fadvise(self._fd, offset, length, os.POSIX_FADV_DONTNEED)
