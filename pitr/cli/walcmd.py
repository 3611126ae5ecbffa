"""The two commands that PostgreSQL itself runs, once per segment: parsed without click, exit codes of their own.

``pitr wal push PATH`` may end with 0 to 125: above, the archiver restarts (pgarch.c). ``pitr wal fetch NAME DEST`` says
0, 1 (no such file: recovery may end here) or 200 (stop: xlogarchive.c treats > 125 as fatal). Whatever goes wrong in a
fetch must never look like 1, so the command line is looked at before anything else is imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

Action = Literal["push", "fetch"]
FETCH_STOP = 200
_PUSH_MAX = 125
# Those of pitr.cli.options, which imports click; a test compares them.
_GLOBAL_VALUES = ("--repo", "--cluster", "--config", "--lock-wait", "--log")
_GLOBAL_FLAGS = ("--json", "--quiet", "--verbose", "--no-progress")
_OWN_VALUES: dict[str, tuple[str, ...]] = {"push": (), "fetch": ("--chain", "--until", "--system-id", "--retry-for")}
_ARGUMENTS = {"push": 1, "fetch": 2}


class WalCommand(NamedTuple):
    """``values``: "--cluster" -> "shop"; ``flags``: those given."""

    action: Action
    arguments: tuple[str, ...]
    values: dict[str, str]
    flags: frozenset[str]


def wal_action(argv: Sequence[str]) -> Action | None:
    """Whether this is wal push or wal fetch, however badly the rest is written."""
    words: list[str] = []
    index = 0
    while index < len(argv) and len(words) < 2:
        word = argv[index]
        if word in _GLOBAL_VALUES:
            index += 1
        elif not word.startswith("-"):
            words.append(word)
        index += 1
    if words == ["wal", "push"]:
        return "push"
    return "fetch" if words == ["wal", "fetch"] else None


def parse(argv: Sequence[str]) -> WalCommand | None:
    """None when it is neither of the two, or not plainly right: then the full parser says what is wrong."""
    action = wal_action(argv)
    if action is None:
        return None
    takes_value = (*_GLOBAL_VALUES, *_OWN_VALUES[action])
    words: list[str] = []
    values: dict[str, str] = {}
    flags: set[str] = set()
    rest = iter(argv)
    for word in rest:
        name, equals, value = word.partition("=")
        if word in _GLOBAL_FLAGS:
            flags.add(word)
        elif name in takes_value:
            found = value if equals else next(rest, None)
            if found is None:
                return None
            values[name] = found
        elif word.startswith("-"):
            return None
        else:
            words.append(word)
    if len(words) != 2 + _ARGUMENTS[action]:
        return None
    return WalCommand(action, tuple(words[2:]), values, frozenset(flags))


def exit_status(action: Action, code: int, *, missing: bool = False) -> int:
    """What PostgreSQL is told. ``missing``: a fetch whose engine has proven that recovery may hear "no such file"."""
    if code == 0:
        return 0
    if action == "push":
        return code if 1 <= code <= _PUSH_MAX else 1
    return 1 if missing else FETCH_STOP
