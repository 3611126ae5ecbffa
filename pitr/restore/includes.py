"""Include directives of restored configuration files: those that name absolute paths lead to the restored files."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from pitr.core.files import os_errors_as_pitr
from pitr.restore.settings import quote

_INCLUDE = re.compile(
    r"^(?P<indent>[ \t]*)(?P<how>include_if_exists|include_dir|include)\b[ \t]*=?[ \t]*"
    r"(?:'(?P<quoted>(?:[^']|'')*)'|\"(?P<double>[^\"\n]*)\"|(?P<bare>[^\s'\"#]+))",
    re.M | re.I,
)


def relocate_includes(text: str, restored: Path, file: Path, *, always: bool) -> tuple[str, list[Path]]:
    """The text with absolute includes below ``restored``, and the directories that must exist for it to be read.

    ``always``: also where the original exists on this host (a copy must not depend on, or follow, production's files).
    """
    directories: list[Path] = []

    def replace(match: re.Match[str]) -> str:
        how = match["how"].lower()
        quoted = match["quoted"]
        target = quoted.replace("''", "'") if quoted is not None else match["double"] or match["bare"] or ""
        place = file.parent / target
        if target.startswith("/"):
            if not always and os.path.exists(target):  # noqa: PTH110
                return match[0]
            place = restored / target.lstrip("/")
            if how != "include_dir" and not place.exists():
                return match[0]
        if how == "include_dir":
            directories.append(place)
        if not target.startswith("/"):
            return match[0]
        return f"{match['indent']}{match['how']} {quote(str(place))}"

    return _INCLUDE.sub(replace, text), directories


def relocate_in_tree(files: list[Path], restored: Path, *, always: bool, write: Callable[[Path, str], None]) -> None:
    """Rewrite what must be; make missing include directories, which PostgreSQL insists on (GetConfFilesInDir)."""
    for file in files:
        with os_errors_as_pitr(f"cannot read {file}"):
            text = file.read_text("utf-8", "surrogateescape")
        changed, directories = relocate_includes(text, restored, file, always=always)
        for directory in directories:
            with os_errors_as_pitr(f"cannot create {directory}"):
                directory.mkdir(parents=True, exist_ok=True)
        if changed != text:
            write(file, changed)
