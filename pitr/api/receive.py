"""``pitr wal receive`` from settings."""

from __future__ import annotations

from datetime import timedelta

from pitr.api.backups import conninfo
from pitr.api.wal import remotes
from pitr.archive.receive import ReceiveRequest, ReceiveResult, receive_wal
from pitr.config.settings import Settings
from pitr.core.events import Report, silent
from pitr.pg.lsn import Lsn

_RETRY = timedelta(seconds=3)
"""The receiver itself tries for ever; it has to end within seconds when it is told to."""


def wal_receive(
    settings: Settings,
    *,
    slot: str = "pitr",
    create_slot: bool = False,
    partial_interval_s: float | None = None,
    synchronous: bool = False,
    until: Lsn | None = None,
    skip_gap: bool = False,
    lock_wait_s: float = 0.0,
    report: Report = silent,
) -> ReceiveResult:
    """Stream the server's WAL into every repository: for ever, or until that LSN is durable. Errors as of receive_wal.

    Runs on any machine that reaches server and repositories.
    """
    request = ReceiveRequest(
        cluster=settings.cluster.name,
        conninfo=conninfo(settings),
        slot=slot,
        create_slot=create_slot,
        interval_s=partial_interval_s,
        synchronous=synchronous,
        until=until,
        skip_gap=skip_gap,
    )
    return receive_wal(remotes(settings, _RETRY, report), request, lock_wait_s=lock_wait_s, report=report)
