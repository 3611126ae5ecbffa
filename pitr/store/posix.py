"""A directory as an object store. One file per object, no metadata beside it.

New content is written to ``<root>/~tmp`` (no object name can hold a ``~``), made durable and then given its name by
rename(2), or by link(2) where it must not replace anything. A name therefore is absent or complete at any moment.
A name cannot at the same time be the directory of another (``a/b`` and ``a/b/c``); repository names never are.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat as stat_module
import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from pitr.core.errors import NoSpace, ObjectExists, ObjectNotFound, StoreDenied, StoreError, StoreUnavailable
from pitr.core.files import Buffer, fsync_directory, make_directory, write_all
from pitr.store import posix_tree
from pitr.store.base import ObjectInfo, StoreCaps
from pitr.store.names import check_name, check_prefix
from pitr.store.ranges import behind_the_end, checked_range

TEMPORARY = "~tmp"
STALE_AFTER_S = 86400.0
READ_BYTES = 256 << 10
PLACE_ATTEMPTS = 100
"""How often a put makes its directory anew when others keep removing it as empty."""

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)
_AWAY = (errno.ESTALE, errno.ETIMEDOUT, errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENODEV)
_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)


class PosixStore:
    """An ObjectStore in a directory. Times are those of the file system.

    The directory is made by the first put of a store that never saw it. Once seen, a missing or another directory in
    its place (an unmounted disk) is StoreUnavailable; so is reading from a directory that does not exist.
    """

    def __init__(self, root: Path, *, group_readable: bool = False) -> None:
        self._root = root.absolute()
        self._group_readable = group_readable
        self._identity: tuple[int, int] | None = None
        self._lock = threading.Lock()
        self._prepared = False
        self._durable: set[Path] = set()

    @property
    def caps(self) -> StoreCaps:
        return StoreCaps(local_path=True)

    @property
    def url(self) -> str:
        return f"file://{self._root}"

    def put(self, name: str, body: Iterable[Buffer], *, if_absent: bool = False) -> ObjectInfo:
        check_name(name)
        target = self._root / name
        with self._errors(f"cannot write {target}"):
            self._prepare()
            if if_absent and target.exists():
                raise self._exists(target, name)  # without reading the body; link() below is what decides
            fd, temporary = self._open_temporary()
        try:
            try:
                self._write(fd, body, target)
                with self._errors(f"cannot write {target}"):
                    if self._group_readable:
                        os.fchmod(fd, 0o640)
                    os.fsync(fd)
                    written = os.fstat(fd)
            finally:
                os.close(fd)
            with self._errors(f"cannot write {target}"):
                self._place(temporary, target, name, if_absent=if_absent)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        return _info(name, written)

    def get(self, name: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        check_name(name)
        with self._errors(f"cannot read {self._root / name}", name):
            fd = os.open(self._root / name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            found = os.fstat(fd)
            if not stat_module.S_ISREG(found.st_mode):
                raise self._missing(name)
            position, end = checked_range(name, found.st_size, offset, length)
            while position < end:
                with self._errors(f"cannot read {self._root / name}"):
                    chunk = os.pread(fd, min(READ_BYTES, end - position), position)
                if not chunk:
                    raise behind_the_end(name, position, offset, length)
                position += len(chunk)
                yield chunk
        finally:
            os.close(fd)

    def stat(self, name: str) -> ObjectInfo:
        check_name(name)
        with self._errors(f"cannot read {self._root / name}", name):
            found = (self._root / name).stat()
        if not stat_module.S_ISREG(found.st_mode):
            raise self._missing(name)
        return _info(name, found)

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        self._check_root()
        with self._errors(f"cannot list {self._root}"):
            for name, found in posix_tree.walk(self._root, prefix, after):
                yield _info(name, found)
        self._check_root()  # a disk that went away meanwhile must not look like the end of the list

    def delete(self, names: Iterable[str]) -> None:
        refusal: StoreError | None = None
        touched: set[Path] = set()
        for name in names:
            check_name(name)
            target = self._root / name
            try:
                with self._errors(f"cannot delete {target}"):
                    with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                        target.unlink()
                        touched.add(target.parent)
                    self._remove_empty(target.parent, touched)
            except StoreError as error:
                refusal = refusal or error
        for directory in touched:
            with self._errors(f"cannot delete in {directory}"), contextlib.suppress(FileNotFoundError):
                fsync_directory(directory)
        if refusal is not None:
            raise refusal
        self._check_root()

    def close(self) -> None:
        """Nothing to release."""

    def _open_temporary(self) -> tuple[int, Path]:
        temporary = self._root / TEMPORARY / f"{os.getpid()}-{os.urandom(8).hex()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return os.open(temporary, flags, 0o600), temporary
        except FileNotFoundError:  # somebody cleared the directory
            make_directory(temporary.parent)
            return os.open(temporary, flags, 0o600), temporary

    def _write(self, fd: int, body: Iterable[Buffer], target: Path) -> None:
        """An exception of the body passes as it is, an OSError of its own included."""
        for chunk in body:
            with self._errors(f"cannot write {target}"):
                write_all(fd, chunk)

    def _place(self, temporary: Path, target: Path, name: str, *, if_absent: bool) -> None:
        for _ in range(PLACE_ATTEMPTS):
            try:
                self._make_parents(target.parent)
                if if_absent:
                    posix_tree.link_new(temporary, target)
                else:
                    temporary.rename(target)
            except FileExistsError:
                raise self._exists(target, name) from None
            except FileNotFoundError:  # a directory was removed as empty by a delete in between
                self._check_root()
                self._forget(target.parent)
                continue
            with contextlib.suppress(FileNotFoundError):  # the object itself was deleted in between
                fsync_directory(target.parent)
            return
        raise StoreUnavailable(f"cannot write {target}: its directory keeps vanishing")

    def _exists(self, target: Path, name: str) -> ObjectExists:
        """Callers take it as stored when the content is theirs. Whoever gave it its name may have been killed before
        that was durable, so this is seen to here."""
        directory = target
        while directory != self._root:
            directory = directory.parent
            with contextlib.suppress(FileNotFoundError):
                fsync_directory(directory)
        return ObjectExists(f"object exists: {name}")

    def _make_parents(self, directory: Path) -> None:
        """Make the directories down to this one, each durable before something below it is acknowledged. One that
        another writer made a moment ago may not be durable yet, so only those synced by this process are trusted."""
        if directory == self._root or directory in self._durable:
            return
        self._make_parents(directory.parent)
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
            self._open_to_group(directory)
        fsync_directory(directory.parent)
        self._durable.add(directory)

    def _forget(self, directory: Path) -> None:
        while directory != self._root:
            self._durable.discard(directory)
            directory = directory.parent

    def _remove_empty(self, directory: Path, touched: set[Path]) -> None:
        """Remove this directory and those above it as long as they are empty. ``touched`` are those to be synced."""
        while directory != self._root:
            try:
                directory.rmdir()
            except OSError:
                return
            self._durable.discard(directory)
            touched.discard(directory)
            touched.add(directory.parent)
            directory = directory.parent

    def _prepare(self) -> None:
        """Once per store: the root, the place of temporary files, and an end to those left by killed writers."""
        with self._lock:
            if self._identity is None and not self._root.exists():
                make_directory(self._root)
                self._open_to_group(self._root)
            self._check_root()
            if self._prepared:
                return
            place = self._root / TEMPORARY
            make_directory(place)
            posix_tree.remove_stale(place, STALE_AFTER_S)
            self._prepared = True

    def _open_to_group(self, directory: Path) -> None:
        if self._group_readable:
            directory.chmod(stat_module.S_IMODE(directory.stat().st_mode) | 0o050)  # keeps a set-group-id bit

    def _check_root(self) -> None:
        """Raises StoreUnavailable unless the root is there, and the same directory as before."""
        try:
            found = self._root.stat()
        except FileNotFoundError:
            raise StoreUnavailable(
                f"directory of the repository is missing: {self._root}",
                hint="is its disk mounted? A new repository is made by pitr init",
                transient=False,
            ) from None
        except OSError as error:
            raise self._translated(error, f"cannot read {self._root}", None) from error
        identity = (found.st_dev, found.st_ino)
        if self._identity is None:
            self._identity = identity
        elif self._identity != identity:
            raise StoreUnavailable(
                f"another directory is in the place of the repository: {self._root}",
                hint="was its disk unmounted?",
                transient=False,
            )

    def _missing(self, name: str) -> ObjectNotFound:
        self._check_root()
        return ObjectNotFound(f"no such object: {name}", detail=str(self._root / name))

    @contextlib.contextmanager
    def _errors(self, what: str, name: str | None = None) -> Iterator[None]:
        """Turn an OSError into the StoreError it means; with a name, "not there" is ObjectNotFound."""
        try:
            yield
        except OSError as error:
            raise self._translated(error, what, name) from error

    def _translated(self, error: OSError, what: str, name: str | None) -> StoreError:
        if error.errno in _NOT_THERE and name is not None:
            return self._missing(name)
        if error.errno in _NO_SPACE:
            return NoSpace(
                f"{what}: no space left", detail=str(error), hint="enlarge the file system, or make room on it"
            )
        if error.errno in _DENIED:
            return StoreDenied(f"{what}: permission denied", detail=str(error))
        if error.errno in _AWAY:
            return StoreUnavailable(f"{what}: {os.strerror(error.errno)}", detail=str(error))
        return StoreError(f"{what}: {os.strerror(error.errno or 0)}", detail=str(error))


def _info(name: str, found: os.stat_result) -> ObjectInfo:
    return ObjectInfo(name, found.st_size, datetime.fromtimestamp(found.st_mtime, UTC))
