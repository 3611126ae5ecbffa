"""Configuration files that lie outside the data directory (Debian keeps them in /etc), with what they include."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from pitr.base.walk import config_entry
from pitr.repo.maps import FileEntry

_INCLUDE = re.compile(
    r"^\s*(?P<how>include|include_if_exists|include_dir)\b\s*=?\s*(?:'(?P<quoted>(?:[^']|'')*)'|\"(?P<double>[^\"]*)\""
    r"|(?P<bare>[^\s'\"#]+))",
    re.MULTILINE | re.IGNORECASE,
)
_DEPTH = 10
"""CONF_FILE_MAX_DEPTH (utils/conffiles.h)."""


def config_entries(data_directory: Path, files: Iterable[str | None], warn: Callable[[str], None]) -> list[FileEntry]:
    """Entries for ``files`` and their includes, each once, those inside the data directory left out.

    What cannot be read is warned about: a backup without it is still a backup.
    """
    root = data_directory.resolve()
    seen: set[str] = set()
    entries: list[FileEntry] = []

    def visit(path: Path, depth: int, *, required: bool) -> None:
        name = os.path.normpath(path)
        if name in seen or depth > _DEPTH:
            return
        seen.add(name)
        try:
            text = Path(name).read_text("utf-8", "surrogateescape")
            entry = config_entry(name)
        except OSError as error:
            if required or not isinstance(error, FileNotFoundError):
                warn(f"configuration file {name} is not in the backup: {os.strerror(error.errno or 0)}")
            return
        if not Path(name).resolve().is_relative_to(root):
            entries.append(entry)
        for how, target in _includes(text):
            place = Path(name).parent / target
            if how == "include_dir":
                for included in _directory(place, warn):
                    visit(included, depth + 1, required=True)
            else:
                visit(place, depth + 1, required=how == "include")

    for file in files:
        if file:
            visit(data_directory / file, 0, required=True)
    return entries


def _includes(text: str) -> list[tuple[str, str]]:
    found = []
    for match in _INCLUDE.finditer(text):
        quoted = match["quoted"]
        target = quoted.replace("''", "'") if quoted is not None else match["double"] or match["bare"]
        if target:
            found.append((match["how"].lower(), target))
    return found


def _directory(place: Path, warn: Callable[[str], None]) -> list[Path]:
    """Files ending in .conf, not hidden, by name: GetConfFilesInDir."""
    try:
        paths = sorted(
            path for path in place.iterdir() if path.name.endswith(".conf") and not path.name.startswith(".")
        )
    except OSError as error:
        warn(f"configuration directory {place} is not in the backup: {os.strerror(error.errno or 0)}")
        return []
    return [path for path in paths if path.is_file()]
