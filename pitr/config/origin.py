"""Where a value came from."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Origin(NamedTuple):
    """``where`` is a file with a line (``/etc/pitr/pitr.toml:3``), a variable's name, or an option's."""

    kind: Literal["default", "file", "environment", "option"]
    where: str = ""

    def __str__(self) -> str:
        return self.where or self.kind


DEFAULT = Origin("default")
