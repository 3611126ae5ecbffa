"""PITR_ variables: for the selected cluster and repository, above the files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from pitr.config.keys import Key, all_keys, variable_of
from pitr.config.layers import Assignment, nearest
from pitr.config.origin import Origin
from pitr.config.secret_source import SecretSource

SELECTORS = ("PITR_CONFIG", "PITR_CLUSTER", "PITR_REPO")


class Environment(NamedTuple):
    """An empty variable counts as not set."""

    config: str | None
    cluster: str | None
    repo: str | None
    assignments: Mapping[str, Assignment]
    warnings: tuple[str, ...]


def known_variables() -> dict[str, str]:
    """Variable -> spelling of the key, without the three selectors."""
    return {
        variable: spelling
        for keys in all_keys().values()
        for key in keys
        for variable, spelling in key.variables.items()
    }


def read_environment(environ: Mapping[str, str]) -> Environment:
    known = known_variables()
    assignments: dict[str, Assignment] = {}
    warnings: list[str] = []
    for variable in sorted(name for name in environ if name.startswith("PITR_")):
        if variable in known and environ[variable]:
            spelling = known[variable]
            origin = Origin("environment", variable)
            assignments[spelling] = Assignment(spelling, environ[variable], origin, Path.cwd(), textual=True)
        elif variable not in known and variable not in SELECTORS:
            close = nearest(variable, [*known, *SELECTORS])
            warnings.append(
                f"environment variable {variable} is not known" + (f", did you mean {close}?" if close else "")
            )
    return Environment(
        config=environ.get("PITR_CONFIG") or None,
        cluster=environ.get("PITR_CLUSTER") or None,
        repo=environ.get("PITR_REPO") or None,
        assignments=assignments,
        warnings=tuple(warnings),
    )


def as_variable_text(key: Key, spelling: str, value: object) -> tuple[str, str | None]:
    """Variable and text by which another process gets this converted value; None for a secret's own value."""
    if isinstance(value, SecretSource):
        return variable_of(spelling), _secret_text(value)
    if isinstance(value, bool):
        return variable_of(spelling), str(value).lower()
    if isinstance(value, timedelta):
        return variable_of(spelling), f"{value.total_seconds():g}s"
    if isinstance(value, tuple):
        return variable_of(spelling), _joined(value)
    return variable_of(spelling), str(value)


def _secret_text(source: SecretSource) -> str | None:
    if source.file is not None:
        return str(source.file)
    return _joined(source.command) if source.command else None


def _joined(words: Iterable[str]) -> str:
    import shlex

    return shlex.join(words)
