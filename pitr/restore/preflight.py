"""What is checked of the target directory before anything is written there."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pitr.core.errors import HistoryMismatch, Locked, NoSpace, OverwriteRefused, PitrError, StoreDenied, UsageError
from pitr.core.files import os_errors_as_pitr
from pitr.core.units import format_size
from pitr.pg.cluster_files import server_running
from pitr.pg.control import CONTROL_FILE, read_control
from pitr.restore.destination import MARKER


@dataclass(frozen=True, slots=True)
class Target:
    """The directory as it was found. ``owner``: uid and gid for everything written, None when it is ours anyway."""

    path: Path
    occupied: bool
    owner: tuple[int, int] | None


def examine(to: Path, *, delta: bool, system_id: int) -> Target:
    """Raises UsageError, OverwriteRefused, StoreDenied or HistoryMismatch unless the directory may be written."""
    path = Path(os.path.realpath(to))
    with os_errors_as_pitr(f"cannot look into {path}"):
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is not a directory", hint="choose another --to")
        occupied = path.is_dir() and any(path.iterdir())
    if occupied:
        _require_stopped(path)
        if not delta:
            raise UsageError(
                f"{path} is not empty",
                hint=f"choose an empty directory, or bring an existing data directory up to date with --delta "
                f"(it removes what is not in the backup): pitr restore base --to {path} --delta",
            )
        _require_same_system(path, system_id)
    parent = next(parent for parent in (path, *path.parents) if parent.exists())
    if not os.access(parent, os.W_OK | os.X_OK):
        raise StoreDenied(f"{parent} cannot be written by this user", hint="run as the server's user, or as root")
    return Target(path, occupied, _owner(parent))


@contextlib.contextmanager
def only_restore(path: Path) -> Iterator[None]:
    """Keep other restores out of the directory: one that ends would make startable what the other is still writing.

    The lock goes with the process. Raises Locked.
    """
    with os_errors_as_pitr(f"cannot open {path}"):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Locked(
                f"another restore is writing to {path}", hint="wait for it, or end it and go on with --delta"
            ) from error
        except OSError:
            pass  # a file system without locks on directories
        yield
    finally:
        os.close(descriptor)


def _require_stopped(path: Path) -> None:
    pid = server_running(path)
    if pid is not None:
        raise OverwriteRefused(
            f"a server is running on {path}",
            detail=f"process {pid}, by postmaster.pid",
            hint=f"stop it first (pg_ctl -D {path} stop), or restore to another directory",
        )


def _require_same_system(path: Path, system_id: int) -> None:
    """--delta removes and overwrites: only inside a data directory of the very same cluster."""
    found = _system_id_of(path)
    if found is None:
        raise OverwriteRefused(
            f"{path} is not empty and not a data directory",
            detail=f"it has no readable {CONTROL_FILE}",
            hint="--delta works on an existing data directory of the same cluster; choose an empty directory otherwise",
        )
    if found != system_id:
        raise HistoryMismatch(
            f"{path} is the data directory of another cluster",
            detail=f"system identifier {found} there, {system_id} in the backup",
            hint="choose an empty directory",
        )


def _system_id_of(path: Path) -> int | None:
    if not (path / "PG_VERSION").is_file() and not (path / MARKER).is_file():
        return None
    try:
        document = json.loads((path / MARKER).read_text())
        return int(document["system_id"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    try:
        return read_control(path / CONTROL_FILE).system_identifier
    except PitrError:
        return None


def _owner(existing: Path) -> tuple[int, int] | None:
    """As root, files belong to whom the directory (or its parent, when it is new) belongs to."""
    if os.geteuid() != 0:
        return None
    found = existing.stat()
    return (found.st_uid, found.st_gid) if (found.st_uid, found.st_gid) != (0, 0) else None


def require_space(needed: Mapping[str, int], reusable: Iterable[str] = ()) -> None:
    """``needed``: bytes for each place. Raises NoSpace; places of one file system are added up.

    ``reusable``: places whose present content will be replaced; it counts as free.
    """
    by_device: dict[int, tuple[str, int]] = {}
    for place, size in needed.items():
        existing = _existing(place)
        device = existing.stat().st_dev
        name, total = by_device.get(device, (str(existing), 0))
        by_device[device] = (name, total + size)
    freed: dict[int, int] = {}
    for place in reusable:
        device = _existing(place).stat().st_dev
        freed[device] = freed.get(device, 0) + _used_bytes(place)
    for device, (name, size) in by_device.items():
        found = os.statvfs(name)
        free = found.f_bavail * found.f_frsize + freed.get(device, 0)
        if size > free:
            raise NoSpace(
                f"the file system of {name} has not enough space",
                detail=f"{format_size(size)} are needed, {format_size(free)} are free",
            )


def _existing(place: str) -> Path:
    path = Path(place)
    return next(candidate for candidate in (path, *path.parents) if candidate.exists())


def _used_bytes(place: str) -> int:
    total = 0
    for directory, _, names in os.walk(place):
        for name in names:
            try:
                total += os.lstat(os.path.join(directory, name)).st_blocks * 512  # noqa: PTH118 - many files
            except OSError:
                continue
    return total
