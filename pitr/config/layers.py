"""Sections made of layers: files in their order, then the environment, then options. A higher layer wins key by key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from pitr.config.keys import Key, all_keys
from pitr.config.origin import Origin
from pitr.config.values import convert
from pitr.core.errors import ConfigError


class Assignment(NamedTuple):
    """``spelling`` = ``raw``, as written. ``base``: what a relative path is relative to."""

    spelling: str
    raw: object
    origin: Origin
    base: Path
    textual: bool = False


Layer = Mapping[str, Assignment]


class Problem(NamedTuple):
    text: str
    hint: str | None = None


class Problems:
    """Everything that is wrong, so that it is said in one go."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, text: str, hint: str | None = None) -> None:
        self.found.append(Problem(text, hint))

    def raise_if_any(self) -> None:
        if not self.found:
            return
        first, *rest = self.found
        detail = "; ".join(["also: " + problem.text for problem in rest]) or None
        raise ConfigError(first.text, detail=detail, hint=first.hint or 'see "pitr help config"')


class Resolved(NamedTuple):
    """Values by key name (only those that are set), and the assignments they came from."""

    values: Mapping[str, object]
    chosen: Mapping[str, Assignment]


def spellings(section: str) -> dict[str, Key]:
    return {spelling: key for key in all_keys()[section] for spelling in key.spellings}


def nearest(word: str, known: Iterable[str]) -> str | None:
    import difflib  # for messages only

    matches = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return matches[0] if matches else None


def resolve(section: str, name: str, layers: Sequence[Layer], problems: Problems) -> Resolved:
    """The values of one section. Unknown spellings were refused before."""
    known = spellings(section)
    chosen: dict[str, Assignment] = {}
    for layer in layers:
        taken: dict[str, str] = {}
        for spelling, assignment in layer.items():
            key = known[spelling]
            group = key.group or key.name
            if group in taken:
                problems.add(
                    f"{section}.{name}: {taken[group]} and {spelling} exclude one another ({assignment.origin})"
                )
                continue
            taken[group] = spelling
            for lower in [other for other in chosen if (known[other].group or other) == group]:
                del chosen[lower]
            chosen[key.name] = assignment
    values: dict[str, object] = {}
    for key_name, assignment in chosen.items():
        try:
            values[key_name] = convert(
                known[assignment.spelling],
                assignment.spelling,
                assignment.raw,
                textual=assignment.textual,
                base=assignment.base,
            )
        except ValueError as error:
            problems.add(f"{section}.{name}.{assignment.spelling} ({assignment.origin}): {error}")
    return Resolved(values, chosen)
