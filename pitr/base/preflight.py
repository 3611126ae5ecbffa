"""Before anything is written: which server this is, that the data directory is its own, and whether there is work."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pitr.base.request import BaseBackupRequest
from pitr.core.errors import ConfigError, HistoryMismatch
from pitr.core.units import format_duration
from pitr.pg.cluster_files import read_postmaster_file
from pitr.pg.control import CONTROL_FILE, ControlData, read_control
from pitr.pg.facts import ServerFacts
from pitr.pg.lsn import Lsn
from pitr.repo.catalog import backup_ids, load_backup
from pitr.repo.names import HistoryNames
from pitr.repo.repository import Repository


@dataclass(frozen=True, slots=True)
class Server:
    """The server to be backed up. ``control``: its pg_control, read from the data directory."""

    facts: ServerFacts
    data_directory: Path
    control: ControlData


def inspect_server(facts: ServerFacts, request: BaseBackupRequest) -> Server:
    """Raises ConfigError when the data directory cannot be found or is another server's."""
    directory = request.data_directory or (Path(facts.data_directory) if facts.data_directory else None)
    if directory is None:
        raise ConfigError(
            "the data directory is not known",
            detail=f"role {facts.user} may not see the setting data_directory",
            hint="set data_directory of the cluster in the configuration, or GRANT pg_read_all_settings to the role",
        )
    if not directory.is_dir():
        raise ConfigError(
            f"the data directory {directory} is not on this machine",
            hint="a base backup reads the files: run it on the database host, or set data_directory",
        )
    control = read_control(directory / CONTROL_FILE)
    _check_same_server(facts, directory, control)
    return Server(facts, directory, control)


def _check_same_server(facts: ServerFacts, directory: Path, control: ControlData) -> None:
    """Files of one server must never be saved with the positions of another, such as a standby beside its primary."""
    hint = "check dsn and data_directory of the cluster in the configuration"
    if control.system_identifier != facts.system_identifier:
        raise HistoryMismatch(
            f"{directory} belongs to another cluster than the server that answers",
            detail=f"system identifier {control.system_identifier} in the directory, {facts.system_identifier} there",
            hint=hint,
        )
    lock = read_postmaster_file(directory)
    port = facts.settings["port"].value
    if lock is None or (lock.port is not None and str(lock.port) != port):
        found = "no server runs on the directory" if lock is None else f"the directory's server has port {lock.port}"
        raise ConfigError(
            f"{directory} is not the data directory of the server that answers",
            detail=f"{found}, the one that answers has {port}",
            hint=hint,
        )


def check_redo(directory: Path, start_lsn: Lsn) -> None:
    """pg_backup_start has just written a checkpoint (standby: found a restartpoint). It must be in this directory."""
    redo = read_control(directory / CONTROL_FILE).redo_lsn
    if redo < start_lsn:
        raise ConfigError(
            f"{directory} is not the data directory of the server that answers",
            detail=f"its checkpoint begins at {redo}, the backup's at {start_lsn}",
            hint="check dsn and data_directory of the cluster in the configuration",
        )


@dataclass(frozen=True, slots=True)
class Skip:
    """A reason to do nothing."""

    reason: str
    backup_id: str | None = None


def skip_for_role(facts: ServerFacts, request: BaseBackupRequest) -> Skip | None:
    role = "standby" if facts.is_standby else "primary"
    if request.if_role is not None and request.if_role != role:
        return Skip(f"this server is a {role}, a {request.if_role} was asked for")
    return None


def skip_for_age(repository: Repository, names: HistoryNames, request: BaseBackupRequest, now: datetime) -> Skip | None:
    if request.if_older_s is None:
        return None
    ids = backup_ids(repository, names)
    if not ids:
        return None
    age_s = (now - load_backup(repository, names, ids[-1]).started_at).total_seconds()
    if age_s >= request.if_older_s:
        return None
    return Skip(f"backup {ids[-1]} is {format_duration(max(0.0, age_s))} old", ids[-1])
