"""A command is a small function ``(context, **options) -> result`` and a renderer of the result as lines of text."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click

from pitr.cli.options import GlobalOptions, given_options, global_options, help_option
from pitr.cli.output import is_terminal, write_err
from pitr.cli.reports import Reporter
from pitr.config import Configuration, Settings, read_configuration
from pitr.core.clock import utc_now
from pitr.core.events import warn

Render = Callable[[Any], Iterable[str]]


@dataclass(frozen=True, slots=True)
class Done:
    """A result with another exit code than 0: 3, done and listed, but something needs a look.

    ``even_if_quiet``: it is shown whatever --quiet says, as nobody could ask for it again.
    """

    result: object
    exit_code: int = 3
    even_if_quiet: bool = False


class Context:
    """What a command gets: settings when it asks for them, a ``report`` for its engine, the time."""

    def __init__(self, options: GlobalOptions, report: Reporter) -> None:
        self.options = options
        self.report = report
        self._warned: set[str] = set()

    def now(self) -> datetime:
        return utc_now()

    def configuration(self) -> Configuration:
        return read_configuration(self.options.config)

    def settings(self, **overrides: object) -> Settings:
        """Of the selected cluster; ``overrides``: values of the command's own options by key name (None: not given).
        Raises ConfigError or AmbiguousName."""
        settings = self.configuration().settings(
            cluster=self.options.cluster, repo=self.options.repo, overrides=overrides
        )
        self.warn_of(settings)
        return settings

    def all_settings(self) -> tuple[Settings, ...]:
        """Of every configured cluster, for --all."""
        every = self.configuration().all_settings(repo=self.options.repo)
        for settings in every:
            self.warn_of(settings)
        return every

    def warn_of(self, settings: Settings) -> None:
        for text in settings.warnings:
            if text not in self._warned:
                self._warned.add(text)
                warn(self.report, text)

    @property
    def interactive(self) -> bool:
        """Whether a question would reach a person."""
        return is_terminal(sys.stdin) and is_terminal(sys.stderr)

    def confirm(self, question: str) -> bool:
        """Ask on the terminal; False without one."""
        if not self.interactive:
            return False
        write_err(f"{question} [y/N] ")
        return sys.stdin.readline().strip().lower() in ("y", "yes")


class PitrCommand(click.Command):
    """A click command that knows the schema of its result."""

    schema: str = "pitr.error/1"

    def get_help_option(self, ctx: click.Context) -> click.Option:
        return help_option()


def command(*, schema: str, render: Render) -> Callable[[Callable[..., object]], PitrCommand]:
    """Make a command. The function's docstring is its help, ``@click.option`` below gives its options; it returns a
    frozen dataclass, or ``Done`` with one."""

    def decorate(function: Callable[..., object]) -> PitrCommand:
        @functools.wraps(function)
        def callback(**arguments: object) -> int:
            from pitr.cli.runner import run_command

            options = given_options(click.get_current_context())
            return run_command(
                lambda context: function(context, **arguments), options=options, schema=schema, render=render
            )

        made = click.command(cls=PitrCommand, epilog='Global options: see "pitr --help".')(global_options(callback))
        made.schema = schema
        return made

    return decorate
