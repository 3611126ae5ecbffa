"""What PostgreSQL there is on this machine, as a proposal for the configuration file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from pitr.core.errors import PitrError
from pitr.core.processes import run_tool


@dataclass(frozen=True, slots=True)
class DetectedCluster:
    """``name`` is a proposal. ``sources``: pg_lsclusters, process PID, PGDATA."""

    name: str
    data_directory: Path
    version: str | None
    port: int | None
    socket_directory: str | None
    bin_dir: Path | None
    running: bool
    sources: tuple[str, ...]


def detect(environ: Mapping[str, str] | None = None, *, proc: Path = Path("/proc")) -> tuple[DetectedCluster, ...]:
    """Clusters of pg_lsclusters, of running servers and of $PGDATA, each once, named apart."""
    environ = os.environ if environ is None else environ
    merged: dict[Path, DetectedCluster] = {}
    for found in (*_debian_clusters(), *_running_servers(proc), *_from_pgdata(environ)):
        known = merged.get(found.data_directory)
        merged[found.data_directory] = found if known is None else _merge(known, found)
    return _named_apart(merged.values())


def _merge(first: DetectedCluster, second: DetectedCluster) -> DetectedCluster:
    live, other = (second, first) if second.running else (first, second)
    return replace(
        live,
        name=first.name,
        version=live.version or other.version,
        port=live.port or other.port,
        socket_directory=live.socket_directory or other.socket_directory,
        bin_dir=live.bin_dir or other.bin_dir,
        sources=first.sources + second.sources,
    )


def _named_apart(clusters: Iterable[DetectedCluster]) -> tuple[DetectedCluster, ...]:
    """Names repeat over versions (Debian's 13/main, 15/main): then the version is appended, then a number."""
    found = list(clusters)
    names = [cluster.name for cluster in found]
    with_version = [
        f"{name}-{cluster.version}" if names.count(name) > 1 and cluster.version else name
        for name, cluster in zip(names, found, strict=True)
    ]
    result = []
    for index, (name, cluster) in enumerate(zip(with_version, found, strict=True)):
        before = with_version[:index].count(name)
        result.append(replace(cluster, name=f"{name}-{before + 1}" if before else name))
    return tuple(result)


def _debian_clusters() -> Iterator[DetectedCluster]:
    try:
        listing = run_tool(["pg_lsclusters", "--no-header"], timeout_s=10).stdout.decode("utf-8", "replace")
    except PitrError:
        return
    yield from parse_lsclusters(listing)


def parse_lsclusters(listing: str) -> Iterator[DetectedCluster]:
    """Lines "15 main 5432 online postgres /var/lib/postgresql/15/main /var/log/..."; the status may be
    "online,recovery"."""
    for line in listing.splitlines():
        words = line.split()
        if len(words) < 6 or not words[2].isdigit():
            continue
        version, name, port, status = words[:4]
        bin_dir = Path(f"/usr/lib/postgresql/{version}/bin")
        yield DetectedCluster(
            name=clean_name(name),
            data_directory=Path(words[5]),
            version=version,
            port=int(port),
            socket_directory="/var/run/postgresql",
            bin_dir=bin_dir if bin_dir.is_dir() else None,
            running=status.startswith("online"),
            sources=("pg_lsclusters",),
        )


def _running_servers(proc: Path) -> Iterator[DetectedCluster]:
    """Every server process has the data directory as its working directory; the postmaster is the one whose pid is
    the first line of postmaster.pid there (miscinit.c, CreateLockFile)."""
    for entry in proc.glob("[0-9]*"):
        try:
            if (entry / "comm").read_text().strip() not in ("postgres", "postmaster"):
                continue
            directory = (entry / "cwd").readlink()
            lock_file = (directory / "postmaster.pid").read_text().splitlines()
        except (OSError, UnicodeDecodeError):
            continue
        if lock_file[:1] != [entry.name]:
            continue
        yield _running_server(entry, directory, lock_file)


def _running_server(process: Path, directory: Path, lock_file: list[str]) -> DetectedCluster:
    """Lines of postmaster.pid: pid, data directory, start time, port, socket directory, listen address (pidfile.h)."""
    try:
        bin_dir: Path | None = (process / "exe").readlink().parent
    except OSError:
        bin_dir = None
    port = lock_file[3] if len(lock_file) > 3 else ""
    return DetectedCluster(
        name=_name_from(directory),
        data_directory=directory,
        version=_version(directory),
        port=int(port) if port.isdigit() else None,
        socket_directory=(lock_file[4] or None) if len(lock_file) > 4 else None,
        bin_dir=bin_dir,
        running=True,
        sources=(f"process {process.name}",),
    )


def _from_pgdata(environ: Mapping[str, str]) -> Iterator[DetectedCluster]:
    text = environ.get("PGDATA")
    if not text:
        return
    directory = Path(text).resolve()
    version = _version(directory)
    if version is not None:
        yield DetectedCluster(_name_from(directory), directory, version, None, None, None, False, ("PGDATA",))


def _version(directory: Path) -> str | None:
    try:
        return (directory / "PG_VERSION").read_text().strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def _name_from(directory: Path) -> str:
    """/var/lib/postgresql/15/main -> main; directories named data or pgdata say nothing."""
    name = clean_name(directory.name)
    return "main" if name.lower() in ("data", "pgdata") or name.isdigit() else name


def clean_name(text: str) -> str:
    cleaned = re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-.")[:40]
    return cleaned or "main"


def to_toml(clusters: Iterable[DetectedCluster]) -> str:
    """A configuration file: the clusters found, and a repository to be filled in."""
    lines = [
        "# Proposal; see pitr help config for every key.",
        "#[repo.main]",
        '#url = "file:///backups"              # or "s3://bucket/prefix"',
        '#key_file = "/etc/pitr/main.key"',
    ]
    for cluster in clusters:
        state = "running" if cluster.running else "not running"
        lines += [
            "",
            f"# PostgreSQL {cluster.version or '(version unknown)'}, {state}; from {', '.join(cluster.sources)}",
        ]
        lines += [f"[cluster.{_quoted_key(cluster.name)}]"]
        lines += [f"data_directory = {quoted(str(cluster.data_directory))}"]
        if cluster.port is not None:
            host = f"host={cluster.socket_directory} " if cluster.socket_directory else ""
            lines += [f"dsn = {quoted(f'{host}port={cluster.port}')}"]
        if cluster.bin_dir is not None:
            lines += [f"bin_dir = {quoted(str(cluster.bin_dir))}"]
    return "\n".join(lines) + "\n"


def _quoted_key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else quoted(name)


def quoted(text: str) -> str:
    """A TOML basic string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'
