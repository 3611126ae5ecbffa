"""pitr init."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from pitr.cli.command import Context, Done, command
from pitr.cli.output import write_err

if TYPE_CHECKING:
    from pitr.api.init import InitResult


@dataclass(frozen=True, slots=True)
class InitResults:
    repositories: tuple[InitResult, ...]


def render(results: InitResults) -> Iterator[str]:
    for result in results.repositories:
        yield from _render_one(result)


def _render_one(result: InitResult) -> Iterator[str]:
    how = "encrypted" if result.encrypted else "not encrypted"
    done = "created" if result.created else "exists already"
    yield f"repository {result.repository} at {result.url}: {done}, {how}, id {result.repository_id}"
    if result.key_file_created is not None:
        yield f"key file {result.key_file_created} written; keep a copy where this machine's loss does not reach"
    if result.system_id is not None:
        yield f"cluster {result.cluster}: system id {result.system_id}{' adopted' if result.adopted else ''}"
    else:
        yield f"cluster {result.cluster}: not recorded yet, its first backup or WAL segment does that"
    if result.recovery_key is not None:
        yield from _recovery_key_lines(result)


def _recovery_key_lines(result: InitResult) -> Iterator[str]:
    yield ""
    yield f"Recovery key of {result.url}: opens the repository without the key. It is shown this once; keep it offline."
    yield f"    {result.recovery_key}"


@command(schema="pitr.init/1", render=render)
@click.option("--key-file", metavar="FILE", help="Key of the repository; written if it does not exist.")
@click.option("--passphrase-file", metavar="FILE", help="File with a passphrase instead.")
@click.option("--key-command", metavar="COMMAND", help="Command that wraps and unwraps the key, such as a KMS client.")
@click.option("--no-encryption", is_flag=True, help="Objects are stored readable.")
@click.option("--adopt", is_flag=True, help="Accept a new system id under this cluster's name (after pg_upgrade).")
def init(
    context: Context,
    key_file: str | None,
    passphrase_file: str | None,
    key_command: str | None,
    no_encryption: bool,
    adopt: bool,
) -> Done:
    """Make a repository, its key, and record the cluster. Does nothing where all that is done already.

    A recovery key is printed once, for the day on which the key file is lost.
    """
    from pitr.api.init import init_repositories

    settings = context.settings(
        key_file=key_file,
        passphrase_file=passphrase_file,
        key_command=key_command,
        encryption=False if no_encryption else None,
    )
    found: list[InitResult] = []
    try:
        found.extend(init_repositories(settings, adopt=adopt, report=context.report))
    except BaseException:
        # Repositories made before the failing one stay, and their recovery keys cannot be shown again.
        for result in found:
            if result.recovery_key is not None:
                write_err("\n".join(_recovery_key_lines(result)) + "\n")
        raise
    fresh_key = any(result.recovery_key is not None for result in found)
    return Done(InitResults(tuple(found)), exit_code=0, even_if_quiet=fresh_key)
