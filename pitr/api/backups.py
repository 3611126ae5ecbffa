"""Base backups and restores of the selected cluster, from settings to result."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from pitr.api.opening import cluster_name, open_repo
from pitr.base.backup import run_base_backup
from pitr.base.request import BaseBackupRequest, BaseBackupResult, Role
from pitr.config.prefix import command_prefix
from pitr.config.settings import Settings
from pitr.core.errors import NoSuitableBackup
from pitr.core.events import Report, silent
from pitr.core.ids import match_id
from pitr.repo.catalog import backup_ids, load_backup
from pitr.repo.identity import current_identity
from pitr.repo.names import HistoryNames
from pitr.repo.repository import Repository
from pitr.restore.engine import plan_restore, run_restore
from pitr.restore.request import (
    Action,
    Latest,
    RecoveryTarget,
    RestorePlan,
    RestoreRequest,
    RestoreResult,
)
from pitr.restore.request import Role as RestoreRole


def conninfo(settings: Settings) -> str:
    """The configured connection; empty (libpq's environment and defaults) without one. Raises ConfigError."""
    return "" if settings.cluster.dsn is None else settings.cluster.dsn.load().reveal()


def backup_base(
    settings: Settings,
    *,
    full: bool = False,
    label: str | None = None,
    annotations: dict[str, str] | None = None,
    if_older_s: float | None = None,
    if_role: Role | None = None,
    max_rate_bytes_per_s: int | None = None,
    lock_wait_s: float = 300.0,
    report: Report = silent,
) -> BaseBackupResult:
    """A physical backup of the running cluster into its first repository. Raises PitrError."""
    repository = open_repo(settings.one_repo(), report)
    request = BaseBackupRequest(
        cluster=cluster_name(settings, repository),
        conninfo=conninfo(settings),
        data_directory=settings.cluster.data_directory,
        label=label,
        annotations=dict(annotations or {}),
        jobs=settings.cluster.worker_count,
        max_rate_bytes_per_s=max_rate_bytes_per_s,
        lock_wait_s=lock_wait_s,
        if_older_s=if_older_s,
        if_role=if_role,
        full=full,
    )
    return run_base_backup(repository, request, report)


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOptions:
    """What a caller says of a restore; see RestoreRequest. ``backup``: id, prefix, suffix, label, latest or oldest."""

    to: Path
    target: RecoveryTarget = field(default_factory=Latest)
    backup: str | None = None
    timeline: int | None = None
    role: RestoreRole = "copy"
    delta: bool = False
    tablespaces: dict[str, Path] = field(default_factory=dict)
    action: Action = "pause"
    max_rate: int | None = None
    primary_conninfo: str | None = None


def plan_base_restore(settings: Settings, options: RestoreOptions, *, report: Report = silent) -> RestorePlan:
    """Resolve and prove everything, write nothing. Raises PitrError."""
    repository = open_repo(settings.one_repo(), report)
    return plan_restore(repository, _restore_request(settings, repository, options), report)


def restore_base(settings: Settings, options: RestoreOptions, *, report: Report = silent) -> RestoreResult:
    """Restore the selected cluster into a directory. Raises PitrError."""
    repository = open_repo(settings.one_repo(), report)
    return run_restore(repository, _restore_request(settings, repository, options), report)


def _restore_request(settings: Settings, repository: Repository, options: RestoreOptions) -> RestoreRequest:
    cluster = cluster_name(settings, repository)
    return RestoreRequest(
        cluster=cluster,
        to=options.to,
        target=options.target,
        backup_id=None if options.backup is None else find_backup(repository, cluster, options.backup),
        timeline=options.timeline,
        role=options.role,
        delta=options.delta,
        tablespaces=options.tablespaces,
        action=options.action,
        jobs=settings.cluster.worker_count,
        fetch_command=tuple(command_prefix(replace(settings, cluster=replace(settings.cluster, name=cluster)))),
        max_rate=options.max_rate,
        primary_conninfo=options.primary_conninfo,
    )


def find_backup(repository: Repository, cluster: str, word: str) -> str:
    """The id that an ID word means, among the base backups of the current system id."""
    identity = current_identity(repository, cluster)
    if identity is None:
        raise NoSuitableBackup(f'cluster "{cluster}" has no backup in {repository.store.url}')
    names = HistoryNames(cluster, int(identity.system_id))
    ids = backup_ids(repository, names)
    if word not in ids and word not in ("latest", "oldest"):
        manifests = [load_backup(repository, names, one) for one in ids]
        labels = {manifest.label: manifest.id for manifest in manifests if manifest.label is not None}
        return match_id(word, ids, labels=labels)
    return match_id(word, ids)
