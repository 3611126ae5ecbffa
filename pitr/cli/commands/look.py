"""pitr list, pitr show, pitr status."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import click

from pitr.api import look
from pitr.cli.command import Context, Done, command
from pitr.cli.render import fields, moment, table
from pitr.config.settings import Settings
from pitr.core.errors import Interrupted, PitrError
from pitr.core.units import format_duration, format_size
from pitr.status.backups import BackupDetails, BackupList
from pitr.status.cluster import ClusterStatus

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Lists:
    clusters: tuple[BackupList, ...]


@dataclass(frozen=True, slots=True)
class Statuses:
    """``nagios``: the one line of a monitoring plugin, asked for by --nagios."""

    clusters: tuple[ClusterStatus, ...]
    nagios: str | None = None


def _each(context: Context, every: bool, function: Callable[[Settings], Result]) -> tuple[Result, ...]:
    chosen = context.all_settings() if every else (context.settings(),)
    return tuple(function(settings) for settings in chosen)


def render_list(result: Lists) -> Iterator[str]:
    for found in result.clusters:
        if not found.backups:
            yield f"cluster {found.cluster} has no backup in {found.repository}"
            continue
        rows = [
            (
                backup.id, backup.type, backup.label, moment(backup.ended_at), backup.timeline, backup.stop_lsn,
                format_size(backup.sizes.total_bytes), format_size(backup.sizes.stored_bytes),
                backup.problem or (f"{backup.bad_pages} bad pages" if backup.bad_pages else "ok"),
            )
            for backup in found.backups
        ]  # fmt: skip
        yield f"cluster {found.cluster} in {found.repository}"
        headers = ("backup", "type", "label", "restorable from", "timeline", "LSN", "size", "stored", "state")
        yield from table(headers, rows, right=(4, 6, 7))


@command(schema="pitr.list/1", render=render_list)
@click.option("--kind", type=click.Choice(["base"]), help="Only backups of this kind.")
@click.option("--all", "every", is_flag=True, help="Every configured cluster.")
def list_command(context: Context, kind: str | None, every: bool) -> object:
    """List the backups, oldest first.

    A backup is listed if and only if it is complete. Needs the store and the key, not the server.
    """
    return Lists(_each(context, every, lambda settings: look.list_backups(settings, report=context.report)))


def render_show(result: BackupDetails) -> Iterator[str]:
    manifest, sizes = result.manifest, result.manifest.sizes
    server = manifest.server
    yield from fields(
        [
            ("backup", manifest.id),
            ("type", manifest.type if manifest.base_id is None else f"{manifest.type}, base {manifest.base_id}"),
            ("label", manifest.label),
            *((f"note {key}", value) for key, value in manifest.annotations.items()),
            ("cluster", f"{manifest.cluster}, system identifier {manifest.system_id}"),
            ("server", f"PostgreSQL {result.backup.version}{', standby' if server.from_standby else ''}"),
            ("checksums", "on" if server.data_checksums else "off"),
            ("started", moment(manifest.started_at)),
            ("ended", f"{moment(manifest.ended_at)}, after {format_duration(manifest.elapsed_s)}"),
            ("timeline", manifest.wal.timeline),
            ("WAL", f"{manifest.wal.start_lsn} to {manifest.wal.stop_lsn}"),
            ("segments", f"{manifest.wal.first_segment} to {manifest.wal.last_segment}"),
            ("files", sizes.files),
            ("size", format_size(sizes.total_bytes)),
            ("stored", f"{format_size(sizes.stored_bytes)} of its own, {format_size(sizes.shared_bytes)} shared"),
            ("databases", ", ".join(database.name for database in server.databases)),
            ("state", result.backup.problem or "restorable"),
        ]
    )
    for tablespace in server.tablespaces:
        yield f"tablespace {tablespace.name} ({tablespace.oid}): {tablespace.location}"
    for bad in manifest.bad_pages:
        yield f"bad pages in {bad.path}: blocks {', '.join(map(str, bad.blocks))}"
    yield from (f"missing: {gap}" for gap in result.missing_segments)
    yield from (f"warning: {text}" for text in manifest.warnings)


@command(schema="pitr.show/1", render=render_show)
@click.argument("backup", metavar="ID")
def show(context: Context, backup: str) -> object:
    """Show everything known of one backup.

    ID is the whole id, a unique beginning or end of it, a label, latest or oldest.
    """
    result = look.show_backup(context.settings(), backup, report=context.report)
    return Done(result) if result.backup.problem or result.manifest.bad_page_count else result


def render_status(result: Statuses) -> Iterator[str]:
    if result.nagios is not None:
        yield result.nagios
        return
    for status in result.clusters:
        system = "nothing recorded yet" if status.system_id is None else f"system identifier {status.system_id}"
        yield f"cluster {status.cluster} in {status.repository}: {system}"
        for timeline in status.timelines:
            for window in timeline.windows:
                count = len(window.backups)
                yield (
                    f"  timeline {timeline.timeline}: from {moment(window.from_time)} ({window.from_lsn}) "
                    f"to the archived end at {window.to_lsn}, {count} backup{'s' if count > 1 else ''}"
                )
            yield from (f"  timeline {timeline.timeline}: missing {gap}" for gap in timeline.gaps)
        if status.newest_backup is not None and status.newest_backup_age is not None:
            age = format_duration(status.newest_backup_age.total_seconds())
            yield f"  newest backup: {status.newest_backup.id}, {age} old"
        yield f"  {format_size(status.wal_stored_bytes)} of WAL stored"
        yield from (f"  warning: {text}" for text in status.warnings)


@command(schema="pitr.status/1", render=render_status)
@click.option("--all", "every", is_flag=True, help="Every configured cluster.")
@click.option("--nagios", is_flag=True, help="One line and the exit codes 0, 1, 2, 3 of a monitoring plugin.")
def status(context: Context, every: bool, nagios: bool) -> object:
    """Show which moments can be restored, timeline by timeline, and what is amiss.

    Ends with exit code 3 when something needs a look: gaps, no backup, a backup older than the policy allows. With
    --nagios: 0 all is well, 1 something needs a look, 2 the newest backup cannot be restored or there is none, 3 it
    could not be found out.
    """
    if nagios:
        return _monitored(context, every)
    result = Statuses(_each(context, every, lambda settings: look.status(settings, report=context.report)))
    return Done(result) if any(found.needs_look for found in result.clusters) else result


def _monitored(context: Context, every: bool) -> Done:
    try:
        found = _each(context, every, lambda settings: look.status(settings, report=context.report))
    except Interrupted:
        raise
    except PitrError as error:
        return Done(Statuses((), f"PITR UNKNOWN - {error}"), 3, even_if_quiet=True)
    worst = max((_severity(status) for status in found), default=0)
    said = "; ".join(_in_words(status) for status in found)
    return Done(Statuses(found, f"PITR {('OK', 'WARNING', 'CRITICAL')[worst]} - {said}"), worst)


def _severity(status: ClusterStatus) -> int:
    if status.newest_backup is None or not status.newest_backup.usable:
        return 2
    return 1 if status.needs_look else 0


def _in_words(status: ClusterStatus) -> str:
    if status.needs_look:
        return f"{status.cluster}: {', '.join(status.warnings)}"
    assert status.newest_backup_age is not None
    return f"{status.cluster}: newest backup is {format_duration(status.newest_backup_age.total_seconds())} old"
