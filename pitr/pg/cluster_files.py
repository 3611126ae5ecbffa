"""What a cluster's files tell without a server: whether it runs, where its tablespaces are, who manages it."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pitr.core.errors import IntegrityError

_DEBIAN_CONFIGURATION = Path("/etc/postgresql")
_DATA_DIRECTORY = re.compile(r"^\s*data_directory\s*=?\s*'((?:[^']|'')*)'", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class PostmasterFile:
    """postmaster.pid (utils/pidfile.h). A server that is starting has not written all lines yet: None."""

    pid: int
    data_directory: str
    started: datetime | None
    port: int | None
    socket_directory: str | None
    listen_address: str | None
    status: str | None
    """starting, stopping, ready, standby."""


def read_postmaster_file(data_directory: Path) -> PostmasterFile | None:
    """The lock file, live or stale; None without one. Raises IntegrityError when it names no process."""
    path = data_directory / "postmaster.pid"
    try:
        lines = path.read_text("utf-8", "surrogateescape").splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    field = dict(enumerate(line.strip() for line in lines))
    first = field.get(0, "")
    if not re.fullmatch(r"-?[0-9]+", first) or int(first) == 0:
        raise IntegrityError(
            f"{path} names no process",
            detail=first[:40] or "it is empty",
            hint="make sure that no server runs on this directory, then remove the file",
        )
    return PostmasterFile(
        pid=abs(int(first)),  # a standalone backend writes its id negated
        data_directory=field.get(1, ""),
        started=datetime.fromtimestamp(int(field[2]), UTC) if field.get(2, "").isdigit() else None,
        port=int(field[3]) if field.get(3, "").isdigit() else None,
        socket_directory=field.get(4) or None,
        listen_address=field.get(5) or None,
        status=field.get(7) or None,
    )


def server_running(data_directory: Path) -> int | None:
    """The process id of the server on this directory, or None (no lock file, or a stale one), as pg_ctl decides.

    A process of another user counts as running. In another pid namespace the process cannot be seen.
    """
    lock = read_postmaster_file(data_directory)
    if lock is None or lock.pid in (os.getpid(), os.getppid()):
        return None
    try:
        os.kill(lock.pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return lock.pid


def tablespace_links(data_directory: Path) -> dict[int, Path]:
    """OID and target of every symbolic link in pg_tblspc; tablespaces made in place are directories, not links."""
    links: dict[int, Path] = {}
    try:
        with os.scandir(data_directory / "pg_tblspc") as entries:
            for entry in entries:
                if entry.name.isascii() and entry.name.isdigit() and entry.is_symlink():
                    links[int(entry.name)] = Path(entry.path).readlink()
    except FileNotFoundError:
        return {}
    return links


@dataclass(frozen=True, slots=True)
class DebianCluster:
    """A cluster of postgresql-common: configuration outside the data directory, managed by pg_ctlcluster."""

    major: int
    name: str
    config_directory: Path

    def control_argv(self, action: str) -> list[str]:
        """The command that starts, stops or reloads it: ``action`` is pg_ctlcluster's."""
        return ["pg_ctlcluster", str(self.major), self.name, action]


def debian_cluster(data_directory: Path, *, configuration: Path = _DEBIAN_CONFIGURATION) -> DebianCluster | None:
    """The Debian cluster whose postgresql.conf names this data directory, or None."""
    wanted = data_directory.resolve()
    for conf in sorted(configuration.glob("[0-9]*/*/postgresql.conf")):
        major, name = conf.parent.parent.name, conf.parent.name
        if not major.isdigit():
            continue
        try:
            matches = _DATA_DIRECTORY.findall(conf.read_text("utf-8", "surrogateescape"))
        except OSError:
            continue
        if matches and Path(matches[-1].replace("''", "'")).resolve() == wanted:
            return DebianCluster(int(major), name, conf.parent)
    return None
