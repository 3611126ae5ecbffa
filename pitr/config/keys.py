"""The table of keys. Each is declared once, as a field of a settings class; everything else derives from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import MISSING, field, fields
from functools import cache
from typing import Any, Literal, NamedTuple

Kind = Literal[
    "text", "url", "path", "flag", "count", "size", "rate", "duration", "words", "command", "choice", "secret"
]
SECRET_VARIANTS = ("", "_file", "_env", "_command")


class Key(NamedTuple):
    """One key of a section.

    group        keys of one group exclude one another; a higher layer's choice replaces a lower one's
    environment  may be set as PITR_<NAME> for the selected cluster and repository
    wal          matters to the commands that PostgreSQL runs (archive_command, restore_command)
    """

    name: str
    kind: Kind
    doc: str
    default: object = None
    choices: tuple[str, ...] = ()
    minimum: int | None = None
    maximum: int | None = None
    group: str = ""
    environment: bool = True
    wal: bool = True

    @property
    def spellings(self) -> tuple[str, ...]:
        """The names under which it may be written: a secret also as NAME_file, NAME_env, NAME_command."""
        if self.kind == "secret":
            return tuple(self.name + variant for variant in SECRET_VARIANTS)
        return (self.name,)

    @property
    def variables(self) -> dict[str, str]:
        """Environment variable -> spelling."""
        if not self.environment:
            return {}
        return {variable_of(spelling): spelling for spelling in self.spellings if not self._is_env_variant(spelling)}

    def _is_env_variant(self, spelling: str) -> bool:
        return self.kind == "secret" and spelling == self.name + "_env"


def variable_of(spelling: str) -> str:
    return "PITR_" + spelling.upper().replace(".", "_")


def setting(kind: Kind, doc: str, default: object = None, **declared: Any) -> Any:  # noqa: ANN401
    """A field of a settings class that is a key of the configuration. The type checker sees the annotation alone."""
    return field(default=default, metadata={"kind": kind, "doc": doc, **declared})


def keys_of(section: type, prefix: str = "") -> tuple[Key, ...]:
    return tuple(_iterate(section, prefix))


def _iterate(section: type, prefix: str) -> Iterator[Key]:
    for item in fields(section):
        if "kind" in item.metadata:
            default = None if item.default is MISSING else item.default
            yield Key(name=prefix + item.name, default=default, **item.metadata)


@cache
def all_keys() -> dict[str, tuple[Key, ...]]:
    """Section ("repo", "cluster") -> its keys; those of a sub-table are named ``policy.base``."""
    from pitr.config.settings import ClusterSettings, Policy, RepoSettings

    return {"repo": keys_of(RepoSettings), "cluster": keys_of(ClusterSettings) + keys_of(Policy, "policy.")}
