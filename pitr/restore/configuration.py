"""Configuration of the restored directory: files from outside, the recovery settings, the signal file."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pitr.core.files import os_errors_as_pitr
from pitr.repo.manifest import ServerRecord
from pitr.restore.request import Role
from pitr.restore.settings import AUTO_CONF, EXTERNAL_PID_FILE, LAST_WITH_STATS_FILES, merge_auto_conf, quote

Owner = tuple[int, int] | None
_CONF = "postgresql.conf"
_STALE = (
    "tablespace_map",
    "recovery.conf",
    "recovery.done",
    "recovery.signal",
    "standby.signal",
    "postmaster.pid",
    "postmaster.opts",
    "backup_label.old",
    "tablespace_map.old",
)
"""What would make PostgreSQL refuse to start, or recover otherwise than asked."""
_HBA = "local all all peer\n"


@dataclass(frozen=True, slots=True)
class Layout:
    """``outside``: configuration files of the source that stood outside its data directory and are in the backup;
    ``config``: where they go, below ``to``."""

    to: Path
    role: Role
    server: ServerRecord
    outside: frozenset[str]
    config: str
    owner: Owner


def write_small_file(path: Path, text: str, owner: Owner, mode: int = 0o600) -> None:
    """Replaces what is there, also a symbolic link. Durable with the syncfs that follows."""
    with os_errors_as_pitr(f"cannot write {path}"):
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape", newline="") as file:
            file.write(text)
            if owner is not None:
                os.fchown(file.fileno(), *owner)


def write_recovery(layout: Layout, lines: Sequence[str], heading: str, backup_label: str) -> None:
    """backup_label, postgresql.auto.conf and the signal file; everything that would get in their way goes."""
    to, owner = layout.to, layout.owner
    for name in _STALE:
        with os_errors_as_pitr(f"cannot remove {to / name}"):
            (to / name).unlink(missing_ok=True)
    write_small_file(to / "backup_label", backup_label, owner)
    auto_conf = to / AUTO_CONF
    with os_errors_as_pitr(f"cannot read {auto_conf}"):
        existing = auto_conf.read_text("utf-8", "surrogateescape") if auto_conf.is_file() else ""
    write_small_file(auto_conf, merge_auto_conf(existing, lines, heading), owner)
    signal = "standby.signal" if layout.role == "standby" else "recovery.signal"
    write_small_file(to / signal, "", owner)


def write_configuration(layout: Layout) -> None:
    """A postgresql.conf with which plain ``pg_ctl -D`` works, whatever the source's layout was.

    Never one that leads to the source's data directory: data_directory in a restored file would start a server there.
    """
    to, server = layout.to, layout.server
    inside = _is_inside(server.config_file, server.data_directory)
    conf = to / _CONF
    if inside and conf.is_file():
        with os_errors_as_pitr(f"cannot read {conf}"):
            text = conf.read_text("utf-8", "surrogateescape")
        added = _overrides(layout)
        if added:
            write_small_file(conf, text.rstrip("\n") + "\n" + added, layout.owner)
        return
    if conf.is_file():  # not the one that was in use
        write_small_file(to / f"{_CONF}.unused", conf.read_text("utf-8", "surrogateescape"), layout.owner)
    head = "# Written by pitr restore: the configuration of the source stood outside its data directory.\n"
    if server.config_file in layout.outside:
        head += f"include = {quote(layout.config + server.config_file)}\n"
    write_small_file(conf, head + _overrides(layout, whole=True), layout.owner)


def _overrides(layout: Layout, *, whole: bool = False) -> str:
    """Settings that would lead out of the restored directory, with their new values. ``whole``: all of them."""
    to, server = layout.to, layout.server
    values: dict[str, str] = {}
    text = "" if whole else (to / _CONF).read_text("utf-8", "surrogateescape")
    if whole or _sets(text, "data_directory"):
        values["data_directory"] = str(to)
    for name, path, usual in (
        ("hba_file", server.hba_file, "pg_hba.conf"),
        ("ident_file", server.ident_file, "pg_ident.conf"),
    ):
        relative = os.path.relpath(path, server.data_directory) if _is_inside(path, server.data_directory) else None
        if path in layout.outside:
            values[name] = f"{to}/{layout.config}{path}"
        elif whole or relative != usual or _sets(text, name):
            there = to / (relative or usual)
            if not there.exists():
                write_small_file(there, _HBA if name == "hba_file" else "", layout.owner)
            values[name] = str(there)
    if whole:
        values["external_pid_file"] = EXTERNAL_PID_FILE
        if server.major <= LAST_WITH_STATS_FILES:
            values["stats_temp_directory"] = "pg_stat_tmp"
    if not values:
        return ""
    lines = [f"{name} = {quote(value)}\n" for name, value in values.items()]
    return "".join(["# pitr restore: the restored directory's own files\n", *lines])


def _sets(text: str, name: str) -> bool:
    return re.search(rf"^\s*{name}\s*[=\s]", text, re.M | re.I) is not None


def _is_inside(path: str, directory: str) -> bool:
    return os.path.commonpath([os.path.normpath(path), os.path.normpath(directory)]) == os.path.normpath(directory)
