"""pitr completion."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import click
from click.shell_completion import ShellComplete, get_completion_class

from pitr.cli.command import Context, command

SHELLS = ("bash", "zsh", "fish")


@dataclass(frozen=True, slots=True)
class CompletionResult:
    shell: str
    script: str


def render(result: CompletionResult) -> Iterator[str]:
    yield from result.script.rstrip("\n").split("\n")


@command(schema="pitr.completion/1", render=render)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(context: Context, shell: str) -> CompletionResult:
    """Print the completion script of a shell.

    \b
    bash: pitr completion bash > /etc/bash_completion.d/pitr
    zsh:  pitr completion zsh > "${fpath[1]}/_pitr"
    fish: pitr completion fish > ~/.config/fish/completions/pitr.fish
    """
    made = get_completion_class(shell)
    if made is None:
        raise LookupError(f"click does not know the shell {shell}")
    # Not made.source(): bash's runs bash to learn its version, which this machine may not even have.
    script = ShellComplete.source(made(click.get_current_context().find_root().command, {}, "pitr", "_PITR_COMPLETE"))
    return CompletionResult(shell, script)
