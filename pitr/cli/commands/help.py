"""pitr help: topics that need no network."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources

import click

from pitr.cli.command import Context, command
from pitr.config.keys import Key, all_keys, variable_of
from pitr.config.show import shown_value
from pitr.core.errors import UsageError

KEYS_MARK = "@keys@"


@dataclass(frozen=True, slots=True)
class HelpResult:
    """Without a topic ``text`` lists them."""

    topic: str | None
    topics: tuple[str, ...]
    text: str


def render(result: HelpResult) -> Iterator[str]:
    yield from result.text.rstrip("\n").split("\n")


@command(schema="pitr.help/1", render=render)
@click.argument("topic", required=False)
def show_help(context: Context, topic: str | None) -> HelpResult:
    """Explain a topic; without one, list the topics."""
    titles = topic_titles()
    if topic is None:
        lines = [f"pitr help {name:<12} {title}" for name, title in titles.items()]
        return HelpResult(None, tuple(titles), "\n".join([*lines, "", '"pitr COMMAND --help" explains a command.']))
    if topic not in titles:
        raise UsageError(f"no such help topic: {topic}", detail="topics: " + ", ".join(titles), hint='try "pitr help"')
    text = _read(topic)
    return HelpResult(topic, tuple(titles), text.replace(KEYS_MARK, "\n".join(key_lines())))


def topic_titles() -> dict[str, str]:
    """Name -> first line, sorted by name."""
    names = sorted(item.name.removesuffix(".md") for item in _directory().iterdir() if item.name.endswith(".md"))
    return {name: _read(name).partition("\n")[0].removeprefix("# ") for name in names}


def key_lines() -> Iterator[str]:
    """Every key with its variable and default, from the table of keys."""
    for section, keys in all_keys().items():
        yield f"[{section}.NAME]"
        for key in keys:
            yield from _key_lines(key)
        yield ""


def _key_lines(key: Key) -> Iterator[str]:
    notes = []
    if key.kind == "secret":
        notes.append(f"secret; also {key.name}_file, {key.name}_env, {key.name}_command")
    if key.default is not None:
        notes.append(f"default {shown_value(key, key.default)}")
    if key.environment:
        notes.append(variable_of(key.name) + (f", {variable_of(key.name)}_FILE" if key.kind == "secret" else ""))
    yield f"  {key.name}  ({'; '.join(notes)})" if notes else f"  {key.name}"
    yield from textwrap.wrap(key.doc, 96, initial_indent="      ", subsequent_indent="      ")


def _directory() -> resources.abc.Traversable:
    return resources.files("pitr.cli") / "topics"


def _read(topic: str) -> str:
    return (_directory() / f"{topic}.md").read_text("utf-8")
