"""What there is: backups, windows, the state of archiving. Needs the store and the key; changes nothing."""

from __future__ import annotations

from pitr.api.opening import cluster_name, open_repo
from pitr.archive import wal_status as archiver
from pitr.config.settings import Settings
from pitr.core.clock import Clock, utc_now
from pitr.core.errors import ServerUnreachable
from pitr.core.events import Report, silent, warn
from pitr.status import backups, cluster


def list_backups(settings: Settings, *, report: Report = silent) -> backups.BackupList:
    """The committed backups of the selected cluster, oldest first."""
    repository = open_repo(settings.one_repo(), report)
    return backups.list_backups(repository, cluster_name(settings, repository))


def show_backup(settings: Settings, word: str, *, report: Report = silent) -> backups.BackupDetails:
    """Everything known of one backup; ``word`` is an id, prefix, suffix, label, latest or oldest."""
    repository = open_repo(settings.one_repo(), report)
    return backups.show_backup(repository, cluster_name(settings, repository), word)


def status(settings: Settings, *, clock: Clock = utc_now, report: Report = silent) -> cluster.ClusterStatus:
    """Which moments can be restored, and what is amiss by the configured policy."""
    repository = open_repo(settings.one_repo(), report)
    policy = settings.cluster.policy
    return cluster.cluster_status(repository, cluster_name(settings, repository), now=clock(), base_policy=policy.base)


def wal_status(settings: Settings, *, report: Report = silent) -> archiver.WalStatus:
    """The archive, and the server's archiver when the server can be reached (a warning says when not)."""
    from pitr.api.backups import conninfo
    from pitr.pg.server import connect

    repository = open_repo(settings.one_repo(), report)
    name = cluster_name(settings, repository)
    directory, rpo = settings.cluster.data_directory, settings.cluster.policy.rpo
    try:
        connection = connect(conninfo(settings), "wal-status")
    except ServerUnreachable as error:
        warn(report, f"the server's side is not shown: {error.message}")
        return archiver.wal_status(repository, name, None, data_directory=directory, rpo=rpo)
    with connection:
        return archiver.wal_status(repository, name, connection, data_directory=directory, rpo=rpo)
