"""Writing the files of a restore: direct where the file system allows it, only what differs with --delta."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator

import numpy as np

from pitr.core.errors import NoSpace
from pitr.core.files import os_errors_as_pitr, write_all

_ALIGNMENT = 4096
"""Memory, position and length of a direct write; the logical block size of a disk is at most that."""
_DIRECT_FROM = 64 << 10
"""Shorter writes go through the page cache: a direct one waits for the disk."""
_PREALLOCATE_FROM = 1 << 20
_OPEN_FILES = 64
"""Descriptors that each thread keeps open."""
_NO_DIRECT = (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP)
_COMPARED = 4096
_FALLOC_KEEP_SIZE_PUNCH_HOLE = 0x01 | 0x02


class Buffer:
    """Page-aligned memory that is used again and again (a fresh megabyte per frame costs its page faults)."""

    def __init__(self, size: int) -> None:
        self._map = mmap.mmap(-1, max(size, mmap.PAGESIZE))
        self.view = memoryview(self._map)
        self.array = np.frombuffer(self._map, np.uint8)


class _ThreadState(threading.local):
    def __init__(self) -> None:
        self.descriptors: OrderedDict[tuple[int, bool], int] = OrderedDict()
        self.bounce: Buffer | None = None
        self.existing: Buffer | None = None


class FileWriter:
    """Writes ranges of files by their index. Thread-safe, each thread has descriptors of its own.

    The files exist with their final size (see make_file). ``delta``: what is there is compared, and only blocks of
    4 KiB that differ are written.
    """

    def __init__(self, directory: str, path_of: Callable[[int], str], *, delta: bool, buffer_size: int) -> None:
        self._directory = directory
        self._path_of = path_of
        self._delta = delta
        self._buffer_size = buffer_size
        self._direct_refused: set[int] = set()
        self._thread = _ThreadState()
        self._lock = threading.Lock()
        self._open: set[int] = set()
        self.bytes_written = 0

    def write(self, file: int, position: int, source: Buffer, offset: int, length: int) -> None:
        """``source[offset:offset + length]`` to ``position`` of the file.

        Raises NoSpace, StoreDenied, LocalFileError.
        """
        with os_errors_as_pitr(f"cannot write {self._path_of(file)}"):
            if self._delta:
                written = self._write_differing(file, position, source, offset, length)
            else:
                self._write(file, position, source, offset, length)
                written = length
        with self._lock:
            self.bytes_written += written

    def clear(self, file: int, position: int, length: int) -> None:
        """Make a range of an existing file read as zeros; nothing is done when it does already."""
        with os_errors_as_pitr(f"cannot write {self._path_of(file)}"):
            descriptor = self._descriptor(file, direct=False)
            existing = self._existing()
            end = position + length
            while position < end:
                step = min(len(existing.view), end - position)
                got = os.preadv(descriptor, [existing.view[:step]], position)
                if existing.array[:got].any():
                    _zero(descriptor, position, step)
                    with self._lock:
                        self.bytes_written += step
                position += step

    def close(self) -> None:
        """Close the descriptors of all threads, which are done."""
        with self._lock:
            for descriptor in self._open:
                with contextlib.suppress(OSError):
                    os.close(descriptor)
            self._open.clear()

    def _write_differing(self, file: int, position: int, source: Buffer, offset: int, length: int) -> int:
        existing = self._existing()
        got = os.preadv(self._descriptor(file, direct=False), [existing.view[:length]], position)
        written = 0
        for start, stop in differing(existing.array[:got], source.array[offset : offset + got]):
            self._write(file, position + start, source, offset + start, stop - start)
            written += stop - start
        if got < length:
            self._write(file, position + got, source, offset + got, length - got)
            written += length - got
        return written

    def _existing(self) -> Buffer:
        if self._thread.existing is None:
            self._thread.existing = Buffer(self._buffer_size)
        return self._thread.existing

    def _write(self, file: int, position: int, source: Buffer, offset: int, length: int) -> None:
        done = 0
        if length >= _DIRECT_FROM and position % _ALIGNMENT == 0:
            done = self._write_direct(file, position, source, offset, length & -_ALIGNMENT)
        view = source.view[offset + done : offset + length]
        position += done
        if view:
            descriptor = self._descriptor(file, direct=False)
            while view:
                written = os.pwrite(descriptor, view, position)
                view, position = view[written:], position + written

    def _write_direct(self, file: int, position: int, source: Buffer, offset: int, length: int) -> int:
        """Bytes written; fewer than asked for where the file system does not take direct writes."""
        view = source.view[offset : offset + length]
        if offset % _ALIGNMENT:
            if self._thread.bounce is None:
                self._thread.bounce = Buffer(self._buffer_size)
            bounce = self._thread.bounce.view[:length]
            bounce[:] = view
            view = bounce
        done = 0
        try:
            descriptor = self._descriptor(file, direct=True)
            while done < length and done % _ALIGNMENT == 0:
                done += os.pwrite(descriptor, view[done:], position + done)
        except OSError as error:
            if error.errno not in _NO_DIRECT:
                raise
            self._refuse_direct(file)
        return done

    def _refuse_direct(self, file: int) -> None:
        self._direct_refused.add(os.fstat(self._descriptor(file, direct=False)).st_dev)

    def _descriptor(self, file: int, *, direct: bool) -> int:
        """From this thread's cache. With ``direct``, EINVAL is raised where it is known that direct is not possible."""
        cached = self._thread.descriptors
        key = (file, direct)
        descriptor = cached.get(key)
        if descriptor is not None:
            cached.move_to_end(key)
            return descriptor
        if direct and self._direct_refused:
            device = os.fstat(self._descriptor(file, direct=False)).st_dev
            if device in self._direct_refused:
                raise OSError(errno.EINVAL, "no direct writes here")
        flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_DIRECT if direct else 0)
        descriptor = os.open(os.path.join(self._directory, self._path_of(file)), flags)  # noqa: PTH118 - hot path
        with self._lock:
            self._open.add(descriptor)
        cached[key] = descriptor
        if len(cached) > _OPEN_FILES:
            _, oldest = cached.popitem(last=False)
            with self._lock:
                self._open.discard(oldest)
            os.close(oldest)
        return descriptor


def differing(existing: np.ndarray, wanted: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges, in whole blocks of 4 KiB but for the last, in which two byte arrays of equal length differ."""
    whole = len(wanted) // _COMPARED * _COMPARED
    unequal = (existing[:whole] != wanted[:whole]).reshape(-1, _COMPARED).any(axis=1)
    if len(wanted) > whole:
        unequal = np.append(unequal, bool((existing[whole:] != wanted[whole:]).any()))
    edges = np.flatnonzero(np.diff(unequal.astype(np.int8), prepend=0, append=0)).tolist()
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        yield start * _COMPARED, min(stop * _COMPARED, len(wanted))


def make_file(path: str, size: int, mode: int, owner: tuple[int, int] | None, *, keep: bool, sparse: bool) -> None:
    """Create a file of its final size. ``keep``: an existing regular file keeps what it has; else it must not exist.

    One with other hard links is replaced, so that they keep theirs: pg_upgrade --link ties the old data directory to
    the running server's, cp -al a copy to its original.

    ``sparse``: space is not reserved, as parts of it stay holes. Raises NoSpace before anything is written.
    """
    with os_errors_as_pitr(f"cannot create {path}"):
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        if keep and not _is_ours_or_absent(path):
            os.unlink(path)  # noqa: PTH108
        descriptor = os.open(path, flags if keep else flags | os.O_EXCL, 0o600)
        try:
            if size >= _PREALLOCATE_FROM and not sparse and not keep:
                _reserve(descriptor, size)
            os.ftruncate(descriptor, size)
            os.fchmod(descriptor, mode)
            if owner is not None:
                os.fchown(descriptor, *owner)
        finally:
            os.close(descriptor)


def _is_ours_or_absent(path: str) -> bool:
    """A regular file without another name."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return True
    return stat.S_ISREG(found.st_mode) and found.st_nlink == 1


def _fallocate(descriptor: int, mode: int, position: int, length: int) -> int:
    """fallocate(2) without the emulation of posix_fallocate(3), which writes. Returns 0 or an errno."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong]
    return 0 if libc.fallocate(descriptor, mode, position, length) == 0 else ctypes.get_errno()


def _reserve(descriptor: int, size: int) -> None:
    if _fallocate(descriptor, 0, 0, size) in (errno.ENOSPC, errno.EDQUOT):
        raise NoSpace("no space left for the restored files", detail=f"{size} bytes could not be reserved")


def _zero(descriptor: int, position: int, length: int) -> None:
    if _fallocate(descriptor, _FALLOC_KEEP_SIZE_PUNCH_HOLE, position, length) != 0:
        os.lseek(descriptor, position, os.SEEK_SET)
        write_all(descriptor, bytes(length))
