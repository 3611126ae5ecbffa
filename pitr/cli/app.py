"""The tree of commands, and running a command line from its words to an exit code."""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Sequence

import click

import pitr
from pitr.cli.catalog import ENTRIES, GROUP_SUMMARIES, SECTIONS, Entry
from pitr.cli.command import PitrCommand
from pitr.cli.options import GlobalOptions, given_options, global_parameters, help_option, wants_json, wants_json_log
from pitr.cli.output import prepare_streams, write_out
from pitr.cli.reports import make_reporter
from pitr.cli.runner import Failure, attempt, envelope, fail
from pitr.cli.signals import signals_as_errors
from pitr.core.errors import Interrupted, UsageError

PROGRAM = "pitr"
ERROR_SCHEMA = "pitr.error/1"
_SETTINGS = {"max_content_width": 110}


def run(argv: Sequence[str], entries: Sequence[Entry] = ENTRIES) -> int:
    """Run one command line. Returns the exit code; everything was printed."""
    prepare_streams()
    options = GlobalOptions(json=wants_json(argv), log="json" if wants_json_log(argv) else "text")
    reporter = make_reporter(options)
    schema = ERROR_SCHEMA

    def parse_and_run() -> object:
        nonlocal schema
        try:
            return build(entries).main(list(argv), prog_name=PROGRAM, standalone_mode=False, obj=options)
        except click.UsageError as error:
            command = error.ctx.command if error.ctx is not None else None
            schema = command.schema if isinstance(command, PitrCommand) else ERROR_SCHEMA
            raise _usage_error(error) from error
        except click.Abort as error:
            raise Interrupted("interrupted") from error

    def overdue(error: Interrupted) -> None:
        fail(Failure(error, error.code, error.exit_code), reporter, json_wanted=options.json, schema=schema)
        os._exit(error.exit_code)

    with signals_as_errors(overdue):
        outcome = attempt(parse_and_run, reporter)
        if isinstance(outcome, Failure):
            return fail(outcome, reporter, json_wanted=options.json, schema=schema)
    return outcome if isinstance(outcome, int) else 0


def build(entries: Sequence[Entry] = ENTRIES) -> click.Group:
    """The root of the commands named by ``entries``."""
    return Root(entries)


class Commands(click.Group):
    """A group whose commands are loaded when they are used."""

    def __init__(self, entries: Sequence[Entry], path: tuple[str, ...], *, hidden_options: bool) -> None:
        super().__init__(
            name=path[-1] if path else PROGRAM,
            params=global_parameters(hidden=hidden_options),
            invoke_without_command=True,
            callback=self._alone,
            context_settings=_SETTINGS,
            help=GROUP_SUMMARIES.get(" ".join(path)),
        )
        self._path = path
        self._entries = {entry.path: entry for entry in entries if entry.path[: len(path)] == path}

    def get_help_option(self, ctx: click.Context) -> click.Option:
        return help_option()

    def list_commands(self, ctx: click.Context) -> list[str]:
        depth = len(self._path)
        return list(dict.fromkeys(path[depth] for path in self._entries))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        path = (*self._path, cmd_name)
        entry = self._entries.get(path)
        if entry is not None:
            return _load(entry)
        if any(known[: len(path)] == path for known in self._entries):
            return Commands(tuple(self._entries.values()), path, hidden_options=True)
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        found = self.get_command(ctx, word)
        if found is not None:
            return word, found, args[1:]
        if word.startswith("-"):
            raise click.UsageError(f"no such option: {word}", ctx)
        close = difflib.get_close_matches(word, self.list_commands(ctx), n=1)
        asked = " ".join((PROGRAM, *self._path, word))
        suggestion = " ".join((PROGRAM, *self._path, *close))
        raise UsageError(
            f"no such command: {asked}", hint=f"did you mean {suggestion}?" if close else f'"{PROGRAM}" lists all'
        )

    @staticmethod
    def _alone() -> int | None:
        ctx = click.get_current_context()
        group = ctx.command
        if ctx.invoked_subcommand is not None or not isinstance(group, Commands):
            return None
        names = ", ".join(group.list_commands(ctx))
        if isinstance(group, Root) and not given_options(ctx).json:
            write_out(group.get_help(ctx) + "\n")
            return 0
        raise click.UsageError(f"{ctx.command_path} needs a command: {names}", ctx)


class Root(Commands):
    def __init__(self, entries: Sequence[Entry]) -> None:
        super().__init__(entries, (), hidden_options=False)
        self.params.append(
            click.Option(
                ["--version"], is_flag=True, expose_value=False, is_eager=True, callback=_version, help="Version."
            )
        )

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write("pitr: backup and point-in-time recovery for PostgreSQL\n")
        entries = list(self._entries.values())
        width = max(len(_usage(entry)) for entry in entries) + 2
        for section in SECTIONS:
            members = [entry for entry in entries if entry.section == section]
            if members:
                formatter.write(f"\n{section}\n")
            for entry in members:
                formatter.write(f" {_usage(entry).ljust(width)}{entry.summary}\n")
        formatter.write("\n")
        self.format_options(ctx, formatter)
        formatter.write('\n"pitr COMMAND --help" explains one.\n')

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records = [record for parameter in self.get_params(ctx) if (record := parameter.get_help_record(ctx))]
        with formatter.section("before or after any command"):
            formatter.write_dl(records)


def _usage(entry: Entry) -> str:
    return " ".join(filter(None, (PROGRAM, entry.words, entry.shape)))


def _load(entry: Entry) -> click.Command:
    module, _, attribute = entry.target.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    if not isinstance(found, click.Command):
        raise TypeError(f"{entry.target} is not a command")
    found.name = entry.path[-1]
    found.context_settings = _SETTINGS
    return found


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    if isinstance(ctx.obj, GlobalOptions) and ctx.obj.json:
        write_out(envelope("pitr.version/1", 0, [], {"version": pitr.__version__}, None))
    else:
        write_out(f"pitr {pitr.__version__}\n")
    ctx.exit(0)


def _usage_error(error: click.UsageError) -> UsageError:
    """click's words in our form."""
    message = error.format_message().rstrip(".")
    message = message[:1].lower() + message[1:]
    path = error.ctx.command_path if error.ctx is not None else PROGRAM
    return UsageError(message, hint=f'see "{path} --help"')
