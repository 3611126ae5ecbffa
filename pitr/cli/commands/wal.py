"""pitr wal configure and pitr wal status."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import click

from pitr.api.archiving import Configured, configure_archiving
from pitr.api.look import wal_status
from pitr.archive.configure import ConfigurePlan, render_conf, render_patroni, render_sql
from pitr.archive.wal_status import Archiver, WalStatus
from pitr.cli.command import Context, Done, command
from pitr.cli.render import fields, table
from pitr.core.errors import UsageError
from pitr.core.units import format_size

Form = Literal["conf", "sql", "patroni"]
_RENDERERS = {"conf": render_conf, "sql": render_sql, "patroni": render_patroni}


@dataclass(frozen=True, slots=True)
class ConfigureResult:
    configured: Configured
    text: tuple[str, ...]
    """The settings in the form that --print names; empty without it."""


def render_configure(result: ConfigureResult) -> Iterator[str]:
    configured = result.configured
    if result.text:
        yield from result.text
        return
    if not configured.plan.changes:
        yield "archiving is configured; nothing to change"
    yield from _change_lines(configured.plan)
    if configured.applied is not None:
        for name in configured.applied.changed:
            yield f"set: {name}"
        if configured.applied.restart_needed:
            yield f"restart the server for: {', '.join(configured.applied.restart_needed)}"
    elif configured.plan.changes:
        yield 'nothing was changed; "pitr wal configure --apply" sets this with ALTER SYSTEM'


def _change_lines(plan: ConfigurePlan) -> Iterator[str]:
    for change in plan.changes:
        yield f"{change.name}: {change.current or chr(39) * 2} -> {change.wanted or chr(39) * 2} ({change.needs})"
    if plan.foreign is not None:
        yield f"another tool archives now: {plan.foreign}"


@command(schema="pitr.wal-configure/1", render=render_configure)
@click.option("--print", "form", type=click.Choice(["conf", "sql", "patroni"]), help="Print the settings in this form.")
@click.option("--apply", "apply", is_flag=True, help="Set them with ALTER SYSTEM and reload. Never restarts.")
@click.option("--replace", is_flag=True, help="Also when another tool archives now.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def configure(context: Context, form: Form | None, apply: bool, replace: bool, yes: bool) -> object:
    """Show, or set, the server's settings for WAL archiving.

    The command that the server will run holds absolute paths, configuration and cluster, and no secret. Where possible
    it is tried as the server's own user. What needs a restart is named, not done.
    """
    settings = context.settings()
    if apply and form is not None:
        raise UsageError("--print and --apply exclude one another")
    if apply and not yes:
        plan = configure_archiving(settings, report=context.report).plan
        if plan.changes and not _agreed(context, plan):
            raise UsageError("nothing was changed: --apply asks on a terminal, and needs --yes elsewhere")
    configured = configure_archiving(settings, apply=apply, replace=replace, report=context.report)
    text = () if form is None else tuple(_RENDERERS[form](configured.plan))
    result = ConfigureResult(configured, text)
    return Done(result) if configured.problems else result


def _agreed(context: Context, plan: ConfigurePlan) -> bool:
    return context.confirm("\n".join([*_change_lines(plan), "set these with ALTER SYSTEM?"]))


def render_status(result: WalStatus) -> Iterator[str]:
    yield f"cluster {result.cluster} in {result.repository}: {format_size(result.stored_bytes)} of WAL stored"
    if result.timelines:
        rows = [(line.timeline, line.first, line.last, line.segments, len(line.gaps)) for line in result.timelines]
        yield from table(("timeline", "first", "last", "segments", "gaps"), rows, right=(0, 3, 4))
    if result.archiver is not None:
        yield from _archiver_lines(result.archiver)
    yield from (f"warning: {text}" for text in result.warnings)


def _archiver_lines(archiver: Archiver) -> list[str]:
    return fields(
        [
            ("receiver", "pitr wal receive streams" if archiver.received else None),
            ("archive_mode", archiver.archive_mode),
            ("archive_command", archiver.archive_command or None),
            ("archive_library", archiver.archive_library),
            ("last archived", archiver.last_archived),
            ("at", archiver.last_archived_at),
            ("failing", f"{archiver.last_failed}, {archiver.failed_count} failures" if archiver.failing else None),
            ("waiting", archiver.waiting),
            ("oldest waiting", archiver.oldest_unarchived),
        ]
    )


@command(schema="pitr.wal-status/1", render=render_status)
def status(context: Context) -> object:
    """Show the archive and the server's archiver: backlog, failures, gaps.

    Ends with exit code 3 when something needs a look.
    """
    result = wal_status(context.settings(), report=context.report)
    return Done(result) if result.warnings else result
