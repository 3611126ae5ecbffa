"""The files of a data directory as they are now, after pg_backup_start returned: what a backup takes, with sizes."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pitr.base.read import unreadable
from pitr.core.errors import IntegrityError
from pitr.pg.relfiles import (
    classify,
    directories_to_back_up,
    files_to_back_up,
    relation_directory,
    tablespace_version_directory,
)
from pitr.repo.maps import FileEntry, FileFlag, FileKind

FORK_NUMBERS: Final = {"main": 0, "fsm": 1, "vm": 2, "init": 3}
_TABLESPACES: Final = "pg_tblspc"
_LOST_AND_FOUND: Final = "lost+found"


@dataclass(frozen=True, slots=True)
class Walked:
    """``tablespaces``: OID to location, as the link says; relative for one made in place."""

    entries: list[FileEntry]
    tablespaces: dict[int, str]


@dataclass(frozen=True, slots=True)
class _Found:
    """One directory's content: names of files and of directories, and the stat of each."""

    files: dict[str, os.stat_result] = field(default_factory=dict)
    directories: dict[str, os.stat_result] = field(default_factory=dict)


class Walk:
    """Walks one data directory. ``warn`` is told what is passed over or taken otherwise than it lies there.

    ``emptied``: directories (relative) whose files are left out beside those that PostgreSQL always rebuilds.
    """

    def __init__(
        self,
        data_directory: str,
        *,
        block_size: int,
        major: int,
        catalog_version: int,
        warn: Callable[[str], None],
        emptied: frozenset[str] = frozenset(),
    ) -> None:
        self._root = data_directory
        self._block_size = block_size
        self._version_directory = tablespace_version_directory(major, catalog_version)
        self._warn = warn
        self._emptied = emptied
        self._entries: list[FileEntry] = []
        self._tablespaces: dict[int, str] = {}
        self._tablespace_places: set[tuple[int, int]] = set()

    def run(self) -> Walked:
        """Raises SourceUnreadable; IntegrityError when this is no data directory."""
        self._find_tablespaces()
        root = Path(self._root).stat()
        self._directory("", ((root.st_dev, root.st_ino),))
        if not any(entry.path == "global/pg_control" for entry in self._entries):
            raise IntegrityError(f"{self._root} has no global/pg_control")
        return Walked(self._entries, self._tablespaces)

    def _path(self, relative: str) -> str:
        return f"{self._root}/{relative}" if relative else self._root

    def _find_tablespaces(self) -> None:
        for entry in self._scan(_TABLESPACES):
            if not (entry.name.isascii() and entry.name.isdigit()):
                continue
            relative = f"{_TABLESPACES}/{entry.name}"
            location = str(Path(entry.path).readlink()) if entry.is_symlink() else relative
            try:
                found = entry.stat()
            except FileNotFoundError:
                self._warn(f"tablespace {entry.name}: {location} does not exist")
                continue
            self._tablespaces[int(entry.name)] = location
            if entry.is_symlink():
                self._tablespace_places.add((found.st_dev, found.st_ino))

    def _scan(self, relative: str) -> Iterator[os.DirEntry[str]]:
        try:
            with os.scandir(self._path(relative)) as entries:
                yield from entries
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise unreadable(self._path(relative), error) from error

    def _directory(self, relative: str, ancestors: tuple[tuple[int, int], ...]) -> None:
        if relative in self._emptied:
            return
        found = self._look(relative)
        inside = f"{relative}/" if relative else ""
        for name in files_to_back_up(relative, found.files):
            if relative == _TABLESPACES or _is_tablespace(relative):
                break  # whatever lies beside the directories of the server's versions is not this cluster's
            self._entries.append(self._file(inside + name, relative, found.files[name]))
        for name in directories_to_back_up(relative, found.directories):
            place = found.directories[name]
            identity = (place.st_dev, place.st_ino)
            if identity in ancestors or name == _LOST_AND_FOUND:
                continue
            if not self._is_ours(relative, name):
                continue
            path = inside + name
            self._entries.append(_entry(path, place, FileKind.DIRECTORY, 0))
            if identity not in self._tablespace_places or relative == _TABLESPACES:
                self._directory(path, (*ancestors, identity))

    def _is_ours(self, relative: str, name: str) -> bool:
        """In pg_tblspc only tablespaces; in those only the directory of this server's version."""
        if relative == _TABLESPACES:
            return name.isascii() and name.isdigit() and int(name) in self._tablespaces
        if _is_tablespace(relative):
            return name == self._version_directory
        return True

    def _look(self, relative: str) -> _Found:
        found = _Found()
        for entry in self._scan(relative):
            try:
                link = entry.is_symlink()
                status = entry.stat(follow_symlinks=link)
            except FileNotFoundError:
                if entry.is_symlink() and relative != _TABLESPACES:
                    self._warn(f"{entry.path} is a symbolic link to nothing: left out")
                continue
            except OSError as error:
                if error.errno == errno.ELOOP and relative != _TABLESPACES:
                    self._warn(f"{entry.path} is a symbolic link to itself: left out")
                    continue
                raise unreadable(entry.path, error) from error
            if stat.S_ISDIR(status.st_mode):
                found.directories[entry.name] = status
            elif stat.S_ISREG(status.st_mode):
                found.files[entry.name] = status
            else:
                self._warn(f"{entry.path} is neither a file nor a directory: left out")
                continue
            if link and not self._link_is_usual(relative, entry.name, found):
                self._warn(f"{entry.path} is a symbolic link: what it points to is stored in its place")
        return found

    def _link_is_usual(self, relative: str, name: str, found: _Found) -> bool:
        """Tablespaces, pg_wal elsewhere, and whatever is left out anyway."""
        if relative == _TABLESPACES:
            return True
        if name in found.files:
            return not files_to_back_up(relative, [name])
        path = f"{relative}/{name}" if relative else name
        return path in self._emptied or files_to_back_up(path, ["x"]) == []

    def _file(self, path: str, directory: str, status: os.stat_result) -> FileEntry:
        relation = classify(path) if relation_directory(directory) is not None else None
        if relation is None:
            return _entry(path, status, FileKind.OTHER, status.st_size)
        rest = status.st_size % self._block_size
        return FileEntry(
            path,
            status.st_size - rest,
            stat.S_IMODE(status.st_mode),
            status.st_mtime_ns,
            status.st_ino,
            FileKind.RELATION,
            FileFlag.PARTIAL_TAIL if rest else FileFlag(0),
            relation.tablespace,
            relation.database,
            relation.filenode,
            FORK_NUMBERS[relation.fork],
            relation.segment,
        )


def _entry(path: str, status: os.stat_result, kind: FileKind, size: int) -> FileEntry:
    return FileEntry(path, size, stat.S_IMODE(status.st_mode), status.st_mtime_ns, status.st_ino, kind)


def _is_tablespace(relative: str) -> bool:
    return relative.startswith(f"{_TABLESPACES}/") and relative.count("/") == 1


def config_entry(path: str) -> FileEntry:
    """A configuration file outside the data directory, by its absolute path. Raises OSError."""
    status = Path(path).stat()
    return _entry(path, status, FileKind.CONFIG, status.st_size)
