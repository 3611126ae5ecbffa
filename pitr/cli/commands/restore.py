"""pitr restore base."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal

import click

from pitr.api.backups import RestoreOptions, plan_base_restore, restore_base
from pitr.cli.command import Context, command
from pitr.cli.options import SIZE
from pitr.cli.render import moment
from pitr.core.errors import UsageError
from pitr.core.times import parse_target_time
from pitr.core.units import format_duration, format_size
from pitr.pg.lsn import Lsn
from pitr.restore.request import (
    Boundary,
    Immediate,
    Latest,
    RecoveryTarget,
    ResolvedTarget,
    RestorePlan,
    RestoreResult,
    TargetLsn,
    TargetName,
    TargetTime,
    TargetXid,
)


def render_restore(result: RestorePlan | RestoreResult) -> Iterator[str]:
    if isinstance(result, RestorePlan):
        yield from _plan_lines(result)
        yield "nothing was written (--dry-run)"
        return
    yield from _plan_lines(result.plan)
    yield (
        f"restored {format_size(result.bytes_written)} in {result.files} files to {result.plan.to} "
        f"in {format_duration(result.elapsed_s)}"
    )
    if result.removed_files:
        yield f"  {result.removed_files} files that are not in the backup were removed"
    if result.config_directory is not None:
        yield f"  configuration files from outside the data directory: {result.config_directory}"
    yield "start it with:"
    yield from (f"  {line}" for line in result.start_commands)
    yield from result.next_steps


def _plan_lines(plan: RestorePlan) -> Iterator[str]:
    yield f"backup {plan.backup_id} (ended {moment(plan.backup_ended_at)}), timeline {plan.timeline}, role {plan.role}"
    if plan.target is not None:
        yield from _target_lines(plan.target)
    if plan.segments is not None:
        segments = plan.segments
        yield f"  WAL proven: {segments.count} segments, {segments.first} to {segments.last}"
    for tablespace in plan.tablespaces:
        yield f"  tablespace {tablespace.name}: {tablespace.original} -> {tablespace.location}"
    yield f"  {plan.files} files, {format_size(plan.bytes)} to restore, {format_size(plan.fetched_bytes)} to fetch"


def _target_lines(target: ResolvedTarget) -> Iterator[str]:
    where = "after" if target.inclusive else "before"
    yield f"  target {target.asked}: recovery stops {where} the record at {target.lsn}"
    if target.last_included is not None:
        yield f"  last transaction in:   {_boundary(target.last_included)}"
    if target.first_excluded is not None:
        yield f"  first transaction out: {_boundary(target.first_excluded)}"


def _boundary(boundary: Boundary) -> str:
    parts = [boundary.what if boundary.xid is None else f"{boundary.what} of {boundary.xid}", f"at {boundary.lsn}"]
    if boundary.time is not None:
        parts.append(boundary.time.isoformat(" "))
    return ", ".join(parts)


@command(schema="pitr.restore-base/1", render=render_restore)
@click.argument("backup", metavar="[ID]", required=False)
@click.option(
    "--to", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The directory to restore into."
)
@click.option("--latest", is_flag=True, help="Up to the end of the archive (the default).")
@click.option("--immediate", is_flag=True, help="Up to the end of the backup.")
@click.option("--time", metavar="T", help='Up to this moment: ISO 8601 with a zone, or "-30m".')
@click.option("--lsn", metavar="LSN", help="Up to this WAL position.")
@click.option("--xid", type=click.IntRange(3), metavar="N", help="Up to this transaction.")
@click.option("--name", metavar="NAME", help="Up to this restore point.")
@click.option("--inclusive/--exclusive", default=None, help="With or without the target itself (default: with).")
@click.option("--timeline", type=click.IntRange(1), metavar="N", help="Follow this timeline.")
@click.option(
    "--role",
    type=click.Choice(["copy", "primary", "standby"]),
    default="copy",
    help="What it is to be (default: copy).",
)
@click.option("--delta", is_flag=True, help="Into an existing data directory; write only what differs.")
@click.option("--tablespace", multiple=True, metavar="OLD=NEW", help="New place of a tablespace. Repeatable.")
@click.option(
    "--action",
    type=click.Choice(["pause", "promote", "shutdown"]),
    default="pause",
    help="At the target (default: pause).",
)
@click.option("--primary-conninfo", metavar="CONNINFO", help="For a standby: the server to stream from.")
@click.option("--jobs", type=click.IntRange(1, 256), metavar="N", help="Parallel workers.")
@click.option("--max-rate", type=SIZE, metavar="RATE", help="Bytes per second fetched from the repository.")
@click.option("--dry-run", is_flag=True, help="Resolve and prove the target, write nothing.")
def base(
    context: Context,
    backup: str | None,
    to: Path,
    latest: bool,
    immediate: bool,
    time: str | None,
    lsn: str | None,
    xid: int | None,
    name: str | None,
    inclusive: bool | None,
    timeline: int | None,
    role: Literal["copy", "primary", "standby"],
    delta: bool,
    tablespace: tuple[str, ...],
    action: Literal["pause", "promote", "shutdown"],
    primary_conninfo: str | None,
    jobs: int | None,
    max_rate: int | None,
    dry_run: bool,
) -> object:
    """Restore a base backup and write the settings for recovery to a target.

    The target is resolved to an exact WAL position, and backup and WAL up to it are proven, before a byte is written.
    Without ID the newest backup from which the target can be reached is taken. The server is not started.
    """
    target = _target(
        latest=latest,
        immediate=immediate,
        time=time,
        lsn=lsn,
        xid=xid,
        name=name,
        inclusive=inclusive,
        now=context.now(),
    )
    options = RestoreOptions(
        to=to.absolute(),
        target=target,
        backup=backup,
        timeline=timeline,
        role=role,
        delta=delta,
        tablespaces=dict(_mapping(word) for word in tablespace),
        action=action,
        max_rate=max_rate,
        primary_conninfo=primary_conninfo,
    )
    settings = context.settings(jobs=jobs)
    if dry_run:
        return plan_base_restore(settings, options, report=context.report)
    return restore_base(settings, options, report=context.report)


def _target(
    *,
    latest: bool,
    immediate: bool,
    time: str | None,
    lsn: str | None,
    xid: int | None,
    name: str | None,
    inclusive: bool | None,
    now: datetime,
) -> RecoveryTarget:
    given = {"--latest": latest, "--immediate": immediate, "--time": time, "--lsn": lsn, "--xid": xid, "--name": name}
    chosen = [option for option, value in given.items() if value]
    if len(chosen) > 1:
        raise UsageError(f"one target at a time: {' and '.join(chosen)} exclude one another")
    if inclusive is not None and not any((time, lsn, xid)):
        raise UsageError("--inclusive and --exclusive go with --time, --lsn and --xid")
    with_it = inclusive is not False
    if time is not None:
        return TargetTime(parse_target_time(time, now=now), with_it)
    if lsn is not None:
        try:
            return TargetLsn(Lsn.parse(lsn), with_it)
        except ValueError as error:
            raise UsageError(f"--lsn: {error}", hint="write it as PostgreSQL does: 0/16B3748") from error
    if xid is not None:
        return TargetXid(xid, with_it)
    if name is not None:
        return TargetName(name)
    return Immediate() if immediate else Latest()


def _mapping(word: str) -> tuple[str, Path]:
    old, separator, new = word.partition("=")
    if not separator or not old or not Path(new).is_absolute():
        raise UsageError(
            f"--tablespace takes OLD=NEW, not {word!r}",
            hint="OLD: name, OID or location of the tablespace; NEW: an absolute path",
        )
    return old, Path(new)
