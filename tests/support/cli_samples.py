"""Commands that only tests have: every way in which a command can end. ``python -m tests.support.cli_samples ARGS``."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from pathlib import Path

import click

from pitr.cli import signals
from pitr.cli.app import run
from pitr.cli.catalog import ENTRIES, Entry
from pitr.cli.command import Context, Done, command
from pitr.core.errors import NoSuitableBackup
from pitr.core.events import Advanced, PhaseEnded, PhaseStarted, info, warn
from pitr.core.secrets import Secret
from pitr.pg.lsn import Lsn


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True, slots=True)
class Sample:
    when: datetime
    took: timedelta
    size_bytes: int
    lsn: Lsn
    colour: Colour
    path: Path
    nothing: str | None
    parts: tuple[int, ...]
    ratio: float
    secret: Secret


@dataclass(frozen=True, slots=True)
class Text:
    text: str


def render(result: Sample | Text) -> Iterator[str]:
    yield result.text if isinstance(result, Text) else f"sample of {result.size_bytes} bytes"


@command(schema="pitr.sample-good/1", render=render)
def good(context: Context) -> Sample:
    """All types."""
    return Sample(
        when=datetime(2026, 11, 23, 4, 2, 30, tzinfo=UTC),
        took=timedelta(seconds=90),
        size_bytes=5,
        lsn=Lsn.parse("0/16B3748"),
        colour=Colour.RED,
        path=Path("/a/\udcff"),
        nothing=None,
        parts=(1, 2),
        ratio=float("nan"),
        secret=Secret("hunter2"),
    )


@command(schema="pitr.sample-say/1", render=render)
@click.argument("text")
@click.option("--exit-code", type=int, default=0)
@click.option("--warning", multiple=True)
@click.option("--even-if-quiet", is_flag=True)
def say(context: Context, text: str, exit_code: int, warning: tuple[str, ...], even_if_quiet: bool) -> Done:
    """Give the text back."""
    info(context.report, "an info")
    for one in warning:
        warn(context.report, one)
    return Done(Text(text), exit_code, even_if_quiet)


@command(schema="pitr.sample-fail/1", render=render)
def fail(context: Context) -> Text:
    """An error that a user is meant to see."""
    warn(context.report, "a warning of postgresql://u:hunter2@h/db")
    raise NoSuitableBackup("keine Sicherung für ä\x1b[31m", detail="password=hunter2", hint='"pitr list" shows all')


@command(schema="pitr.sample-bug/1", render=render)
def bug(context: Context) -> Text:
    """A bug."""
    raise ValueError("broken with password=hunter2")


@command(schema="pitr.sample-unjson/1", render=render)
def unjson(context: Context) -> object:
    """A result that JSON cannot hold."""
    return {"thing": object()}


@command(schema="pitr.sample-wait/1", render=render)
@click.option("--stubborn", is_flag=True, help="Cleaning up takes for ever.")
@click.option("--grace", type=float, help="Seconds that cleaning up may take.")
def wait(context: Context, stubborn: bool, grace: float | None) -> Text:
    """Work until a signal comes."""
    signals.GRACE_S = signals.GRACE_S if grace is None else grace
    never = threading.Event()
    worker = threading.Thread(target=never.wait, daemon=True)
    worker.start()
    try:
        info(context.report, "ready")
        never.wait()
    finally:
        info(context.report, "cleaning up")
        if stubborn:
            worker.join()
    return Text("not reached")


@command(schema="pitr.sample-work/1", render=render)
def work(context: Context) -> Text:
    """Progress."""
    context.report(PhaseStarted("copy", 100 << 20))
    for _ in range(4):
        context.report(Advanced("copy", 25 << 20))
    info(context.report, "a line in between")
    context.report(PhaseEnded("copy", 1.5))
    return Text("worked")


SAMPLES = tuple(
    Entry(f"sample {name}", f"tests.support.cli_samples:{name}", "plumbing", "for tests")
    for name in ("good", "say", "fail", "bug", "unjson", "wait", "work")
)


def run_samples(argv: list[str]) -> int:
    return run(argv, (*ENTRIES, *SAMPLES))


if __name__ == "__main__":
    sys.exit(run_samples(sys.argv[1:]))
