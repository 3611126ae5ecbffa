"""A site for end-to-end tests: a cluster, a repository, a configuration file, and the real program run as its user."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.cluster import Cluster, as_server_user

PITR = str(Path(sys.executable).parent / "pitr")


@dataclass
class Site:
    """``environment``: added to an otherwise bare environment of every command."""

    directory: Path
    cluster: Cluster
    url: str
    key_file: Path
    repo_lines: tuple[str, ...] = ()
    name: str = "shop"
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def config(self) -> Path:
        return self.directory / "pitr.toml"

    @property
    def repository(self) -> Path:
        """Only of a site whose repository is a directory."""
        return Path(self.url.removeprefix("file://"))

    def write_config(self, **cluster_keys: str) -> None:
        lines = ["[repo.main]", f'url = "{self.url}"', f'key_file = "{self.key_file}"', *self.repo_lines]
        lines += ["", f"[cluster.{self.name}]", f'data_directory = "{self.cluster.data_directory}"']
        lines += [f'dsn = "{self.cluster.conninfo()}"']
        lines += [f'{key} = "{value}"' for key, value in cluster_keys.items()]
        self.config.write_text("\n".join(lines) + "\n")

    def run(self, *arguments: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run ``pitr`` with this site's configuration; the caller looks at the exit code."""
        bare = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", **self.environment, **(env or {})}
        argv = as_server_user([PITR, "--config", str(self.config), *arguments])
        return subprocess.run(argv, env=bare, capture_output=True, text=True, stdin=subprocess.DEVNULL)

    def ok(self, *arguments: str) -> str:
        done = self.run(*arguments)
        assert done.returncode == 0, f"pitr {' '.join(arguments)}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def result(self, *arguments: str) -> dict[str, Any]:
        """The ``result`` of a command that succeeds, from its JSON."""
        document = json.loads(self.ok(*arguments, "--json"))
        assert document["ok"] is True
        found = document["result"]
        assert isinstance(found, dict)
        return found

    def refused(self, exit_code: int, *arguments: str) -> dict[str, Any]:
        """The ``error`` of a command that must end with that code."""
        done = self.run(*arguments, "--json")
        assert done.returncode == exit_code, f"{done.returncode}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr, done.stderr
        error = json.loads(done.stdout)["error"]
        assert isinstance(error, dict)
        return error

    def with_copied_repository(self, directory: Path) -> Site:
        """The same site with a copy of its repository, for damaging it."""
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copytree(self.repository, directory / "repository")
        copy = Site(
            directory, self.cluster, f"file://{directory / 'repository'}", self.key_file, self.repo_lines, self.name
        )
        copy.write_config()
        return copy


def make_site(
    directory: Path, cluster: Cluster, *, url: str | None = None, repo_lines: tuple[str, ...] = (), name: str = "shop"
) -> Site:
    """Configuration and repository (``pitr init``); the cluster, not started yet, archives to it."""
    directory.mkdir(parents=True, exist_ok=True)
    site = Site(
        directory, cluster, url or f"file://{directory / 'repository'}", directory / "main.key", repo_lines, name
    )
    site.write_config()
    site.ok("init")
    return site


def start_archiving(site: Site) -> None:
    """``pitr wal configure --apply`` on the running cluster, and the restart that archive_mode needs."""
    site.ok("wal", "configure", "--apply", "--yes")
    site.cluster.restart()


def flip_byte(path: Path, offset: int | None = None) -> None:
    """Change one byte of a file: at the offset, else in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if offset is None else offset] ^= 0x01
    path.chmod(0o600)
    path.write_bytes(data)


def tree_hash(directory: Path) -> dict[str, bytes]:
    """Every file below a directory with its content."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def object_files(repository: Path, *parts: str) -> list[Path]:
    """Files of a directory repository whose path holds all of ``parts``."""
    found = [path for path in repository.rglob("*") if path.is_file()]
    return sorted(path for path in found if all(part in str(path.relative_to(repository)) for part in parts))
