"""Effective settings as text, with their origins; secrets masked."""

from __future__ import annotations

import shlex
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from pitr.config.keys import Key, all_keys
from pitr.config.secret_source import SecretSource
from pitr.config.settings import ClusterSettings, RepoSettings, Settings
from pitr.core.secrets import redact


@dataclass(frozen=True, slots=True)
class Shown:
    """``value`` is None for a key that is neither set nor has a default."""

    section: str
    key: str
    value: str | None
    origin: str


def effective(settings: Settings) -> tuple[Shown, ...]:
    """Every key of the selected cluster and its repositories."""
    rows = [*_section(settings, f"cluster.{settings.cluster.name}", settings.cluster)]
    for repo in settings.repos:
        rows += _section(settings, f"repo.{repo.name}", repo)
    return tuple(rows)


def _section(settings: Settings, section: str, values: ClusterSettings | RepoSettings) -> Iterator[Shown]:
    for key in all_keys()[section.partition(".")[0]]:
        origin = settings.origins.get(f"{section}.{key.name}")
        yield Shown(section, key.name, shown_value(key, _value(values, key.name)), str(origin or "default"))


def _value(values: object, dotted: str) -> object:
    for part in dotted.split("."):
        values = getattr(values, part)
    return values


def shown_value(key: Key, value: object) -> str | None:
    """As it would be written in the file."""
    if value is None:
        return None
    if isinstance(value, SecretSource):
        return value.describe()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, timedelta):
        return duration_text(value)
    if isinstance(value, tuple):
        return redact(shlex.join(value))
    if isinstance(value, int) and key.kind in ("size", "rate"):
        return size_text(value)
    return str(value)


def size_text(size_bytes: int) -> str:
    """Exact, in the largest unit that divides: ``16MiB``."""
    for unit, factor in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size_bytes and size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return str(size_bytes)


def duration_text(duration: timedelta) -> str:
    """Exact, in the largest unit that divides: ``26h``."""
    seconds = duration.total_seconds()
    for unit, factor in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds and seconds % factor == 0:
            return f"{seconds / factor:g}{unit}"
    return f"{seconds:g}s"


def doubts(settings: Settings) -> tuple[str, ...]:
    """What is well written and still looks wrong on this machine, for this user: one line each."""
    found = list(settings.warnings)
    if not settings.repos:
        found.append("no repository is configured")
    paths: list[tuple[str, Path | None, bool]] = [
        ("data_directory", settings.cluster.data_directory, False),
        ("bin_dir", settings.cluster.bin_dir, False),
        ("dsn_file", settings.cluster.dsn.file if settings.cluster.dsn else None, True),
    ]
    for repo in settings.repos:
        if repo.encryption and not repo.has_key:
            found.append(f"repository {repo.name} has neither a key nor encryption = false")
        sources = (repo.passphrase, repo.recovery_key, repo.secret_key, repo.session_token)
        secrets = [source for source in sources if source is not None]
        paths += [("key_file", repo.key_file, True), ("ca_file", repo.ca_file, False)]
        paths += [(f"{source.name}_file", source.file, True) for source in secrets]
        if any(source.value is not None for source in secrets):
            paths += [("configuration with a secret", file, True) for file in settings.files]
    for what, path, secret in paths:
        if path is not None and (doubt := _path_doubt(what, path, secret)) and doubt not in found:
            found.append(doubt)
    return tuple(found)


def _path_doubt(what: str, path: Path, secret: bool) -> str | None:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISDIR(mode):
            with path.open("rb"):
                pass
    except OSError as error:
        return f"{what} {path}: {error.strerror}"
    if secret and mode & stat.S_IROTH:
        return f"{what} {path} is readable by everybody: chmod o-r {path}"
    return None
