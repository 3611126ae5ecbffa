"""Walking a directory in the order of object names, and the few file system calls behind PosixStore."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from pitr.store.names import is_segment

_NO_HARD_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_AT_FDCWD = -100
_RENAME_NOREPLACE = 1


def walk(root: Path, prefix: str, after: str) -> Iterator[tuple[str, os.stat_result]]:
    """Files below root whose name (relative, with slashes) begins with prefix and sorts behind after, by name.

    What vanishes meanwhile is passed over, and so are files that could not be objects.
    """
    directory, _, _ = prefix.rpartition("/")
    yield from _walk(root, directory + "/" if directory else "", prefix, after)


def _walk(root: Path, base: str, prefix: str, after: str) -> Iterator[tuple[str, os.stat_result]]:
    for name, is_directory in _entries(root, base):
        if is_directory:
            if name.startswith(prefix) and (name > after or after.startswith(name)):
                yield from _walk(root, name, prefix, after)
        elif name.startswith(prefix) and name > after:
            with contextlib.suppress(FileNotFoundError):
                yield name, (root / name).stat()


def _entries(root: Path, base: str) -> list[tuple[str, bool]]:
    """Names in one directory in the order of the objects in them: a directory counts with its slash, for in byte
    order ``a.b`` comes before ``a/b``, and ``a`` before both."""
    found = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(root / base) as entries:
        for entry in entries:
            if is_segment(entry.name) and not (not base and entry.name == "lost+found"):
                is_directory = entry.is_dir()
                if is_directory or entry.is_file():
                    found.append((base + entry.name + ("/" if is_directory else ""), is_directory))
    found.sort()
    return found


def link_new(temporary: Path, target: Path) -> None:
    """Give the file its name unless that is taken (FileExistsError), atomically."""
    try:
        os.link(temporary, target)
    except FileExistsError:
        if temporary.stat().st_nlink == 2:  # over NFS the answer to the first try may be lost
            return
        raise
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        _rename_new(temporary, target)


def _rename_new(temporary: Path, target: Path) -> None:
    """renameat2(2) with RENAME_NOREPLACE, for file systems without hard links (exFAT, some FUSE)."""
    import ctypes  # nearly always there are hard links

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(temporary), _AT_FDCWD, os.fsencode(target), _RENAME_NOREPLACE) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(target))


def remove_stale(directory: Path, older_than_s: float) -> None:
    """Remove files not written to for so long, by the clock of the file system (which may be another host's)."""
    probe = directory / f"{os.getpid()}-{os.urandom(8).hex()}"
    probe.touch(mode=0o600)
    now = probe.stat().st_mtime
    probe.unlink()
    with os.scandir(directory) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError, IsADirectoryError):
                if entry.stat(follow_symlinks=False).st_mtime < now - older_than_s:
                    Path(entry.path).unlink()
