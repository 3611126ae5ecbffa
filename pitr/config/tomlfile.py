"""Finding and reading the TOML files, and remembering on which line a key stands."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pitr.config.origin import Origin
from pitr.core.errors import ConfigError

DEFAULT_LOCATION = Path("/etc/pitr")
_HEADER = re.compile(r"^\s*\[([^\[\]]+)\]")
_ASSIGNMENT = re.compile(r"^\s*([A-Za-z0-9_.\-\"']+)\s*=")


class ConfigFile(NamedTuple):
    path: Path
    content: Mapping[str, object]
    lines: Mapping[str, int]

    def origin(self, dotted: str) -> Origin:
        """Of the key ``repo.main.url``; without the line when it stands in an inline table."""
        line = self.lines.get(dotted)
        return Origin("file", str(self.path) if line is None else f"{self.path}:{line}")


class Location(NamedTuple):
    """``path`` is what ``--config`` must be to get the same files again; None when there is none."""

    path: Path | None
    files: tuple[ConfigFile, ...]


def read_location(chosen: str | None, chosen_by: Origin, *, default: Path = DEFAULT_LOCATION) -> Location:
    """The files of ``chosen`` (a file, or a directory with pitr.toml and conf.d/*.toml), else of /etc/pitr.

    Raises ConfigError when the chosen one is missing, and when any of them cannot be read: going on without it could
    mean another repository.
    """
    if chosen is None:
        files = _directory_files(default)
        return Location(default if files else None, tuple(map(read_file, files)))
    path = Path(chosen).absolute()
    if not _exists(path):
        raise ConfigError(f"configuration file {path} does not exist", detail=f"named by {chosen_by}")
    if not path.is_dir():
        return Location(path, (read_file(path),))
    files = _directory_files(path)
    if not files:
        raise ConfigError(f"configuration directory {path} holds neither pitr.toml nor conf.d/*.toml")
    return Location(path, tuple(map(read_file, files)))


def _directory_files(directory: Path) -> list[Path]:
    main, drop_ins = directory / "pitr.toml", directory / "conf.d"
    found = [main] if _exists(main) else []
    if _exists(drop_ins):
        try:
            found += sorted(path for path in drop_ins.iterdir() if path.suffix == ".toml" and path.name[0] != ".")
        except OSError as error:
            raise _unreadable(drop_ins, error) from error
    return found


def _exists(path: Path) -> bool:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _unreadable(path, error) from error
    return True


def _unreadable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"configuration {path} cannot be read",
        detail=error.strerror,
        hint="run as a user that may read it, or name another one with --config",
    )


def read_file(path: Path) -> ConfigFile:
    """Raises ConfigError when it cannot be read or is not TOML."""
    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise _unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"configuration {path} is not UTF-8 text", detail=str(error)) from error
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"configuration {path} is not valid TOML", detail=str(error)) from error
    return ConfigFile(path, content, _lines(text))


def _lines(text: str) -> dict[str, int]:
    """Dotted key -> line. tomllib keeps no positions, so this reads headers and assignments at line starts; a text
    over several lines may fool it, which costs a wrong line number in a message and nothing else."""
    found: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = _plain(header[1]) + "."
            found.setdefault(table[:-1], number)
        elif assignment := _ASSIGNMENT.match(line):
            found.setdefault(table + _plain(assignment[1]), number)
    return found


def _plain(dotted: str) -> str:
    return ".".join(part.strip().strip("\"'") for part in dotted.split("."))
