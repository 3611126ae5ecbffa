"""pitr init."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import click

from pitr.api.init import InitResult, init_repositories
from pitr.cli.command import Context, Done, command


@dataclass(frozen=True, slots=True)
class InitResults:
    repositories: tuple[InitResult, ...]


def render_init(results: InitResults) -> Iterator[str]:
    for result in results.repositories:
        what = "made" if result.created else "is there"
        sealed = "encrypted" if result.encrypted else "NOT encrypted"
        yield f"repository {result.repository} {what}: {result.url} ({sealed}, id {result.repository_id})"
        if result.key_file_created is not None:
            yield f"key file made: {result.key_file_created}"
            yield "  every host that backs up or restores needs it; without it, or the key below, nothing can be read"
        if result.recovery_key is not None:
            yield "recovery key, shown this once; print it and keep it away from this machine:"
            yield f"  {result.recovery_key}"
        if result.system_id is not None:
            verb = "adopted" if result.adopted else "recorded"
            yield f"cluster {result.cluster} {verb}: system identifier {result.system_id}"


@command(schema="pitr.init/1", render=render_init)
@click.option("--key-file", metavar="FILE", help="Unlock with this file; it is made if there is none yet.")
@click.option("--passphrase-file", metavar="FILE", help="Unlock with the passphrase in this file.")
@click.option("--key-command", metavar="COMMAND", help="Unlock with a command: COMMAND wrap, COMMAND unwrap.")
@click.option("--no-encryption", is_flag=True, help="Store everything readable.")
@click.option("--adopt", is_flag=True, help="Take the cluster's new system identifier (pg_upgrade, re-created).")
def init(
    context: Context,
    key_file: str | None,
    passphrase_file: str | None,
    key_command: str | None,
    no_encryption: bool,
    adopt: bool,
) -> object:
    """Make the repository, its key, and record which cluster writes to it.

    May be run again at any time: what is there stays as it is. A new key file is made where the configuration names one
    that does not exist; a recovery key, a second way to open the repository, is printed once.
    """
    settings = context.settings(
        key_file=key_file,
        passphrase_file=passphrase_file,
        key_command=key_command,
        encryption="false" if no_encryption else None,
    )
    results = tuple(init_repositories(settings, adopt=adopt, report=context.report))
    done = InitResults(results)
    return Done(done) if any(result.warnings for result in results) else done
