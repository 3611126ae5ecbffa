"""Where each file of a map goes below the target directory."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from pitr.core.errors import ManifestInvalid
from pitr.pg.control import CONTROL_FILE
from pitr.repo.maps import BackupMap, FileKind

MARKER = "pitr.restore.json"
"""Stands in the target directory while a restore is unfinished."""
CONFIG_DIRECTORY = "restored-config"
"""Configuration files that stood outside the source's data directory, under their absolute paths (config_directory)."""
PENDING_CONTROL = f"{CONTROL_FILE}.pitr-restore"
"""pg_control until everything else is durable: without it no server starts."""


def config_directory(built: BackupMap) -> str:
    """A name that the backup's own files do not use: the source may itself have been restored, and have one."""
    taken = {path.partition("/")[0] for path in built.paths()}
    names = itertools.chain([CONFIG_DIRECTORY], (f"{CONFIG_DIRECTORY}-{number}" for number in itertools.count(2)))
    return next(name for name in names if name not in taken)


def relative_path(path: str, kind: int, config: str = CONFIG_DIRECTORY) -> str:
    """The path below the target directory; ``config``: see config_directory.

    Raises ManifestInvalid for one that would leave the target directory.
    """
    parts = path.split("/")
    if kind == FileKind.CONFIG:
        if parts[0] == "" and not {"", ".", ".."} & set(parts[1:]):
            return config + path
    elif path == ".":
        return path
    elif not {"", ".", ".."} & set(parts):
        return PENDING_CONTROL if path == CONTROL_FILE else path
    raise ManifestInvalid(f"the map of the backup holds an impossible path: {path!r}")


def relative_paths(built: BackupMap) -> Iterator[str]:
    config = config_directory(built)
    for path, kind in zip(built.paths(), built.files["kind"].tolist(), strict=True):
        yield relative_path(path, kind, config)
