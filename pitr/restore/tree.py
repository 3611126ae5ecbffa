"""The directories, links and empty files of a restore; with --delta, the removal of what the backup does not have."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from pitr.core.files import os_errors_as_pitr
from pitr.core.pool import Stop, run_parallel
from pitr.repo.maps import HOLE, BackupMap, FileKind
from pitr.restore.destination import MARKER, relative_paths
from pitr.restore.files import make_file
from pitr.restore.request import TablespacePlan

Owner = tuple[int, int] | None
_REQUIRED = ("global", "pg_tblspc", "pg_wal", "pg_wal/archive_status")
_FILES_AT_ONCE = 500
_IN_TABLESPACE = re.compile(r"pg_tblspc/[0-9]+/PG_[^/]*")


def make_root(to: Path, mode: int, owner: Owner) -> None:
    """The data directory itself and its missing parents; others may read the parents, only the owner this one."""
    with os_errors_as_pitr(f"cannot create {to}"):
        missing = list(itertools.takewhile(lambda path: not path.exists(), (to, *to.parents)))
        for path in reversed(missing):
            path.mkdir(mode=0o755 if path != to else 0o700)
            if owner is not None:
                os.chown(path, *owner)
        to.chmod(mode)
        if owner is not None:
            os.chown(to, *owner)


def root_mode(built: BackupMap) -> int:
    """0750 when the source allowed its group to read (initdb --allow-group-access), else 0700."""
    index = built.find("PG_VERSION")
    mode = int(built.files["mode"][index]) if index is not None else 0
    return 0o750 if mode & 0o040 else 0o700


def link_tablespaces(to: Path, plans: Iterable[TablespacePlan], mode: int, owner: Owner) -> None:
    """pg_tblspc/<oid> -> new location. No tablespace_map is written: PostgreSQL re-creates links from it at start.

    A link that points elsewhere is replaced; what it pointed to is left alone.
    """
    wanted = {str(plan.oid): plan.location for plan in plans}
    directory = to / "pg_tblspc"
    with os_errors_as_pitr(f"cannot link tablespaces in {directory}"):
        _make_directory(str(directory), mode, owner)
        for entry in list(directory.iterdir()):
            if entry.is_symlink() and wanted.get(entry.name) != str(entry.readlink()):
                entry.unlink()
        for name, location in wanted.items():
            make_root(Path(location), mode, owner)
            link = directory / name
            if not link.is_symlink():
                if link.is_dir():
                    shutil.rmtree(link)
                link.symlink_to(location)
                if owner is not None:
                    os.lchown(link, *owner)


def make_directories(to: Path, built: BackupMap, mode: int, owner: Owner) -> None:
    """All directories of the map, the parents of its files, and those that a server needs."""
    kinds, modes = built.files["kind"].tolist(), built.files["mode"].tolist()
    made = {".", ""}
    for path in _REQUIRED:
        _make_parents(to, path, made, mode, owner)
        _make_one(to, path, made, mode, owner)
    for path, kind, file_mode in zip(relative_paths(built), kinds, modes, strict=True):
        _make_parents(to, path, made, mode, owner)
        if kind == FileKind.DIRECTORY:
            _make_one(to, path, made, file_mode or mode, owner)


def _make_parents(to: Path, path: str, made: set[str], mode: int, owner: Owner) -> None:
    parent = path.rpartition("/")[0]
    if parent and parent not in made:
        _make_parents(to, parent, made, mode, owner)
        _make_one(to, parent, made, mode, owner)


def _make_one(to: Path, path: str, made: set[str], mode: int, owner: Owner) -> None:
    if path not in made:
        with os_errors_as_pitr(f"cannot create {path}"):
            _make_directory(f"{to}/{path}", mode, owner)
        made.add(path)


def _make_directory(path: str, mode: int, owner: Owner) -> None:
    """Links to directories (pg_wal, tablespaces) are kept; anything else that is in the way goes (--delta)."""
    if not os.path.isdir(path):  # noqa: PTH112
        if os.path.lexists(path):
            os.unlink(path)  # noqa: PTH108
        os.mkdir(path, mode)  # noqa: PTH102
    os.chmod(path, mode)  # noqa: PTH101
    if owner is not None:
        os.chown(path, *owner)


def make_files(to: Path, built: BackupMap, owner: Owner, *, keep: bool, threads: int) -> None:
    """Every file with its final size and mode, so that ranges can be written in any order."""
    is_file = built.files["kind"] != FileKind.DIRECTORY
    sparse = _files_with_holes(built)
    columns = zip(
        relative_paths(built),
        is_file.tolist(),
        built.files["size"].tolist(),
        built.files["mode"].tolist(),
        sparse.tolist(),
        strict=True,
    )
    wanted = (row for row in columns if row[1] and row[0] != MARKER)

    def make(rows: list[tuple[str, bool, int, int, bool]], stop: Stop) -> None:
        for path, _, size, mode, has_holes in rows:
            stop.check()
            make_file(f"{to}/{path}", size, mode & 0o777 or 0o600, owner, keep=keep, sparse=has_holes)

    run_parallel(_batches(wanted), make, threads=threads)


def _batches(
    rows: Iterator[tuple[str, bool, int, int, bool]],
) -> Iterator[list[tuple[str, bool, int, int, bool]]]:
    while batch := list(itertools.islice(rows, _FILES_AT_ONCE)):
        yield batch


def _files_with_holes(built: BackupMap) -> np.ndarray:
    holes = np.flatnonzero(built.extents.pack == HOLE)
    found = np.zeros(built.file_count, bool)
    found[np.searchsorted(built.extent_end, holes, side="right")] = True
    return found


def extra_paths(to: Path, built: BackupMap) -> tuple[list[str], list[str]]:
    """Files (and links) and directories, deepest first, that are there and not in the map.

    Links are not followed, but for pg_wal and the tablespaces of the map; in a tablespace only the directory of the
    backup's version is looked at.
    """
    wanted = set(relative_paths(built)) | {MARKER, *_REQUIRED}
    for path in list(wanted):
        while path := path.rpartition("/")[0]:
            wanted.add(path)
    files: list[str] = []
    directories: list[str] = []
    pending = [""]
    while pending:
        base = pending.pop()
        with os.scandir(f"{to}/{base}") as entries:
            for entry in entries:
                path = f"{base}/{entry.name}" if base else entry.name
                if path not in wanted and _IN_TABLESPACE.fullmatch(path):
                    continue  # of another major version
                is_link = entry.is_symlink()
                if path in wanted and is_link and not _is_lawful_link(path, entry.path):
                    files.append(path)
                elif entry.is_dir(follow_symlinks=not is_link or path in wanted):
                    pending.append(path)
                    if path not in wanted:
                        directories.append(path)
                elif path not in wanted:
                    files.append(path)
    return files, sorted(directories, key=lambda path: (-path.count("/"), path))


def _is_lawful_link(path: str, full: str) -> bool:
    return (path in ("pg_wal", "pg_wal/archive_status") or path.startswith("pg_tblspc/")) and stat.S_ISDIR(
        os.stat(full).st_mode if os.path.exists(full) else 0  # noqa: PTH110, PTH116
    )


def remove_extra(to: Path, files: Iterable[str], directories: Iterable[str]) -> int:
    """Returns how many files went."""
    count = 0
    for path in files:
        with os_errors_as_pitr(f"cannot remove {path}"):
            os.unlink(f"{to}/{path}")  # noqa: PTH108
        count += 1
    for path in directories:
        with os_errors_as_pitr(f"cannot remove {path}"):
            os.rmdir(f"{to}/{path}")  # noqa: PTH106
    return count
