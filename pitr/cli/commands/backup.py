"""pitr backup base."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Literal

import click

from pitr.api.backups import backup_base
from pitr.base.request import BaseBackupResult
from pitr.cli.command import Context, Done, command
from pitr.cli.options import DURATION, SIZE
from pitr.core.errors import UsageError
from pitr.core.units import format_duration, format_size


def render_backup(result: BaseBackupResult) -> Iterator[str]:
    if result.skipped is not None or result.sizes is None:
        yield f"nothing done: {result.skipped}"
        return
    sizes = result.sizes
    yield (
        f"{result.type} backup {result.backup_id} in {format_duration(result.elapsed_s)}: "
        f"{format_size(sizes.total_bytes)} in {sizes.files} files, {format_size(sizes.stored_bytes)} stored"
    )
    yield f"  from {result.start_lsn} to {result.stop_lsn} on timeline {result.timeline}; restorable from its end on"
    for bad in result.bad_pages:
        yield f"  bad pages in {bad.path}: blocks {', '.join(map(str, bad.blocks))}"


@command(schema="pitr.backup-base/1", render=render_backup)
@click.option("--full", is_flag=True, help="Read and store everything, whatever earlier backups hold.")
@click.option("--if-older", type=DURATION, metavar="AGE", help="Do nothing when a backup younger than this exists.")
@click.option("--if-role", type=click.Choice(["primary", "standby"]), help="Do nothing when the server is the other.")
@click.option("--jobs", type=click.IntRange(1, 256), metavar="N", help="Parallel workers.")
@click.option("--max-rate", type=SIZE, metavar="RATE", help="Bytes per second read from the data directory.")
@click.option("--label", metavar="LABEL", help="A name for this backup.")
@click.option("--annotate", multiple=True, metavar="KEY=VALUE", help="A fact to keep with it. Repeatable.")
def base(
    context: Context,
    full: bool,
    if_older: timedelta | None,
    if_role: Literal["primary", "standby"] | None,
    jobs: int | None,
    max_rate: int | None,
    label: str | None,
    annotate: tuple[str, ...],
) -> object:
    """Back up the running cluster, physically.

    Runs on the database host. WAL archiving must work: it is looked at before anything is copied, and every segment
    that the backup needs is proven to be in the archive before the backup is listed. Ends with exit code 3 when the
    backup is listed but holds pages that fail their checksum.
    """
    settings = context.settings(jobs=jobs)
    result = backup_base(
        settings,
        full=full,
        label=label,
        annotations=_annotations(annotate),
        if_older_s=None if if_older is None else if_older.total_seconds(),
        if_role=if_role,
        max_rate_bytes_per_s=max_rate,
        lock_wait_s=context.options.lock_wait.total_seconds(),
        report=context.report,
    )
    return Done(result, result.exit_code) if result.exit_code else result


def _annotations(words: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        key, separator, value = word.partition("=")
        if not separator or not key:
            raise UsageError(f"--annotate takes KEY=VALUE, not {word!r}")
        found[key] = value
    return found
