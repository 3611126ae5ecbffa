"""pitr wal receive."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta

import click

from pitr.api.receive import wal_receive
from pitr.archive.receive import ReceiveResult
from pitr.cli.command import Context, command
from pitr.cli.options import DURATION
from pitr.core.errors import UsageError
from pitr.pg.lsn import Lsn

_SLOT = re.compile(r"[a-z0-9_]{1,63}")


def render_receive(result: ReceiveResult) -> Iterator[str]:
    yield (
        f"received up to {result.received_lsn} on timeline {result.timeline}, durable up to {result.durable_lsn}: "
        f"{result.segments} segments, {result.partials} partial segments stored"
    )


@command(schema="pitr.wal-receive/1", render=render_receive)
@click.option("--slot", default="pitr", metavar="NAME", help="Physical replication slot. Default: pitr.")
@click.option("--create-slot", is_flag=True, help="Make the slot when it is missing.")
@click.option(
    "--partial-interval",
    type=DURATION,
    metavar="TIME",
    help="Least time between two uploads of the unfinished segment. Default: 500ms; 10s where the store lets nothing "
    "be deleted, so that each of them stays.",
)
@click.option(
    "--synchronous",
    is_flag=True,
    help="Upload at once what arrives. Default: when synchronous_standby_names has pitr_receive, as looked up when "
    "connecting.",
)
@click.option("--until", metavar="LSN", help="End when WAL up to there is durable.")
@click.option("--skip-gap", is_flag=True, help="Begin where the slot does, though the archive ends before it.")
def receive(
    context: Context,
    slot: str,
    create_slot: bool,
    partial_interval: timedelta | None,
    synchronous: bool,
    until: str | None,
    skip_gap: bool,
) -> object:
    """Stream the server's WAL into every repository, as it is written.

    A service: it runs until it is told to end, and reconnects by itself. Finished segments are checked and stored as
    archive_command does, beside it or instead of it; the unfinished one is stored as a partial segment, so that a
    restore reaches to within a second of a lost server. The server hears of WAL as flushed when it is durable in every
    required repository: with "pitr_receive" in synchronous_standby_names each commit waits for that. A slot keeps what
    is not stored yet. Needs a role with REPLICATION; runs on any machine.

    Ends with exit code 32 when the server has removed WAL that the archive lacks.
    """
    if _SLOT.fullmatch(slot) is None:
        raise UsageError(f'"{slot}" cannot be the name of a slot', detail="a-z, 0-9 and _, at most 63")
    return wal_receive(
        context.settings(),
        slot=slot,
        create_slot=create_slot,
        partial_interval_s=None if partial_interval is None else partial_interval.total_seconds(),
        synchronous=synchronous,
        until=_lsn(until),
        skip_gap=skip_gap,
        lock_wait_s=context.options.lock_wait.total_seconds(),
        report=context.report,
    )


def _lsn(text: str | None) -> Lsn | None:
    try:
        return None if text is None else Lsn.parse(text)
    except ValueError as error:
        raise UsageError(f"--until: {error}") from error
