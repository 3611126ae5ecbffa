"""pitr wal push and pitr wal fetch for the list of commands and for --help.

They are run by pitr.cli.walrun, which PostgreSQL's calls reach without click; what comes by this way is handed to it.
"""

from __future__ import annotations

from collections.abc import Mapping

import click

from pitr.cli import walrun
from pitr.cli.command import PitrCommand
from pitr.cli.options import GlobalOptions, given_options, global_options

_EPILOG = 'Global options: see "pitr --help".'


@click.command(cls=PitrCommand, epilog=_EPILOG)
@global_options
@click.argument("path")
def push(path: str) -> int:
    """Archive one file of pg_wal: for archive_command.

    \b
    archive_command = 'pitr --cluster NAME wal push "%p"'

    Ends with 0 when every required repository has the file durably, also when it was there already with the same
    content; else with 1 to 125, and the server tries again. "pitr wal configure" writes the setting.
    """
    return walrun.run(_line("push", [path], {}))


@click.command(cls=PitrCommand, epilog=_EPILOG)
@global_options
@click.argument("name")
@click.argument("dest")
@click.option("--chain", metavar="TIMELINE", help="The timeline to be reached; files beside its history are refused.")
@click.option("--until", metavar="SEGMENT", help="The segment that holds the target; nothing behind it is fetched.")
@click.option("--system-id", metavar="NUMBER", help="The cluster, where there is no pg_control to name it.")
@click.option("--retry-for", metavar="TIME", help="How long to look again before 200. Default: by retry_deadline.")
def fetch(name: str, dest: str, **own: str | None) -> int:
    """Fetch one archived file: for restore_command.

    \b
    restore_command = 'pitr --cluster NAME wal fetch %f "%p"'

    Ends with 0 when the file is there, verified; with 1 when the archive proves that there is no such file; with 200
    when recovery must stop rather than end here. A standby hears 1 for 200, and asks again. "pitr restore base" writes
    the setting.
    """
    return walrun.run(_line("fetch", [name, dest], {f"--{key.replace('_', '-')}": text for key, text in own.items()}))


push.schema = "pitr.wal-push/1"
fetch.schema = "pitr.wal-fetch/1"


def _line(action: str, arguments: list[str], own: Mapping[str, str | None]) -> list[str]:
    """The command line again, as walrun reads it."""
    options = given_options(click.get_current_context())
    values = {"--repo": options.repo, "--cluster": options.cluster, "--config": options.config, **own}
    given = [f"{option}={text}" for option, text in values.items() if text is not None]
    return [*given, *_flags(options), "wal", action, *arguments]


def _flags(options: GlobalOptions) -> list[str]:
    flags = {"--json": options.json, "--quiet": options.quiet, "--verbose": options.verbose}
    return [flag for flag, on in flags.items() if on]
