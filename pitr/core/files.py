"""Durable file operations. Everything acknowledged rests on these few functions."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from pitr.core.errors import NoSpace, PitrError, StoreDenied

Buffer = bytes | bytearray | memoryview


def fsync_directory(path: Path) -> None:
    """Make renames and creations in this directory durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_directory(path: Path, mode: int = 0o700) -> None:
    """Create the directory and its missing parents, durably."""
    if path.is_dir():
        return
    make_directory(path.parent, mode)
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=mode)
    fsync_directory(path.parent)


def write_all(fd: int, data: Buffer) -> None:
    view = memoryview(data).cast("B")
    while view:
        view = view[os.write(fd, view) :]


def write_file_durably(path: Path, chunks: Iterable[Buffer], *, mode: int = 0o600, replace: bool = True) -> None:
    """Write path whole or not at all: temporary name in the same directory, fsync, rename, fsync of the directory.

    Without ``replace`` an existing file is left as it is and FileExistsError raised.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        try:
            for chunk in chunks:
                write_all(fd, chunk)
            os.fsync(fd)
        finally:
            os.close(fd)
        if replace:
            temporary.rename(path)
        else:
            os.link(temporary, path)
            temporary.unlink()
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()
        raise
    fsync_directory(path.parent)


def sync_filesystem(path: Path) -> None:
    """syncfs(2) of the file system that holds path: one call makes everything written there durable."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(path, os.O_RDONLY)
    try:
        if libc.syncfs(fd) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(path))
    finally:
        os.close(fd)


@contextlib.contextmanager
def os_errors_as_pitr(what: str) -> Iterator[None]:
    """Turn an OSError from a local path into the error a user should see. ``what``: "cannot write /backups/x"."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(f"{what}: no space left", detail=str(error)) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StoreDenied(f"{what}: permission denied", detail=str(error)) from error
        raise LocalFileError(f"{what}: {os.strerror(error.errno or 0)}", detail=str(error)) from error


class LocalFileError(PitrError):
    """A local file could not be read or written for a reason that is neither space nor permission."""

    code = "local-file"
    exit_code = 41
