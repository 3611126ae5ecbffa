"""``pitr init``: a repository, its key, and the cluster that may write to it. Idempotent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pitr.api.opening import key_secret, open_store_of
from pitr.codec import KeyFile, KeySecret, RecoveryKey, new_key_file_text, new_recovery_key
from pitr.config.settings import RepoSettings, Settings
from pitr.core.clock import utc_now
from pitr.core.errors import ConfigError, KeyUnavailable, PitrError, ServerUnreachable
from pitr.core.events import Report, silent, warn
from pitr.core.files import os_errors_as_pitr, write_file_durably
from pitr.core.secrets import Secret
from pitr.pg.control import CONTROL_FILE, read_control
from pitr.repo.identity import FORMAT, Identity, ensure_identity
from pitr.repo.repository import Repository, create_repository, open_repository, read_descriptor
from pitr.store import ObjectStore, probe_if_absent


@dataclass(frozen=True, slots=True)
class InitResult:
    """``recovery_key``: shown this once, None when the repository existed or is not encrypted."""

    repository: str
    url: str
    repository_id: str
    created: bool
    encrypted: bool
    key_file_created: str | None
    recovery_key: str | None
    put_if_absent: bool
    cluster: str
    system_id: str | None
    adopted: bool
    warnings: tuple[str, ...]


def init_repositories(settings: Settings, *, adopt: bool = False, report: Report = silent) -> Iterator[InitResult]:
    """Every selected repository, one after the other.

    Raises ConfigError, KeyUnavailable, HistoryMismatch, StoreError.
    """
    identity = _find_identity(settings, adopt, report)
    for repo in settings.require_repos():
        yield _init_one(repo, settings.cluster.name, identity, adopt, report)


def _init_one(repo: RepoSettings, cluster: str, identity: Identity | None, adopt: bool, report: Report) -> InitResult:
    store = open_store_of(repo)
    secret = key_secret(repo)
    exists, if_absent = _look(store)
    key_file = _make_key_file(secret, exists, store)
    if isinstance(secret, RecoveryKey) and not exists:
        raise ConfigError(
            f"there is no repository at {store.url} that a recovery key could open",
            hint="a new one is made with key_file, passphrase or key_command",
        )
    recovery_key = new_recovery_key() if secret is not None and not exists else None
    warnings: list[str] = []
    if not if_absent:
        warnings.append(
            f"{store.url} does not honour put-if-absent: archived files are looked up before they are written, "
            "and two writers at once are not kept apart by the store"
        )
    created = False
    if not exists:
        secrets: list[KeySecret] = [] if secret is None else [secret]
        if recovery_key is not None:
            secrets.append(RecoveryKey(Secret(recovery_key)))
        _descriptor, created = create_repository(store, secrets, now=utc_now(), if_absent_works=if_absent)
    repository = open_repository(
        repo.name, store, secret, level=repo.compression_level, repository_id=repo.repository_id
    )
    for warning in warnings:
        warn(report, warning)
    return InitResult(
        repository=repo.name,
        url=store.url,
        repository_id=repository.descriptor.repository_id,
        created=created,
        encrypted=repository.descriptor.sealed,
        key_file_created=None if key_file is None else str(key_file),
        recovery_key=recovery_key if created else None,
        put_if_absent=repository.descriptor.if_absent,
        cluster=cluster,
        system_id=None if identity is None else identity.system_id,
        adopted=_record(repository, identity, adopt),
        warnings=tuple(warnings),
    )


def _look(store: ObjectStore) -> tuple[bool, bool]:
    """Whether there is a repository already, and whether the store honours put-if-absent (probed for a new one)."""
    if store.caps.local_path:
        probe_if_absent(store)  # makes the directory, so that "not there" is an answer and not an unmounted disk
    descriptor = read_descriptor(store)
    if descriptor is not None:
        return True, descriptor.if_absent
    return False, probe_if_absent(store)


def _make_key_file(secret: KeySecret | None, exists: bool, store: ObjectStore) -> Path | None:
    """Write a new key where key_file points to none yet; never for a repository that was made with another one."""
    if not isinstance(secret, KeyFile) or not isinstance(secret.source, Path) or secret.source.exists():
        return None
    if exists:
        raise KeyUnavailable(
            f"key file {secret.source} does not exist, and the repository at {store.url} was made with a key",
            hint="copy the key file from the machine on which pitr init was run",
        )
    with os_errors_as_pitr(f"cannot write key file {secret.source}"):
        secret.source.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_file_durably(secret.source, [new_key_file_text().encode()], mode=0o600, replace=False)
    return secret.source


def _record(repository: Repository, identity: Identity | None, adopt: bool) -> bool:
    return identity is not None and ensure_identity(repository, identity, adopt=adopt) and adopt


def _find_identity(settings: Settings, adopt: bool, report: Report) -> Identity | None:
    """From pg_control in the data directory, or from the running server. None when neither can be reached."""
    cluster = settings.cluster
    if cluster.data_directory is not None and (cluster.data_directory / CONTROL_FILE).exists():
        control = read_control(cluster.data_directory / CONTROL_FILE)
        return Identity(
            FORMAT,
            cluster.name,
            str(control.system_identifier),
            control.major,
            control.segment_size_bytes,
            control.block_size_bytes,
            utc_now(),
        )
    if cluster.dsn is None and not adopt:
        return None
    try:
        return _identity_of_server(settings)
    except ServerUnreachable as error:
        if adopt:
            raise ConfigError(
                "--adopt needs the cluster whose system identifier is to be adopted",
                detail=error.message,
                hint="set data_directory, or start the server",
            ) from error
        warn(report, f"the cluster was not recorded yet: {error.message}")
    except PitrError as error:
        if adopt:
            raise
        warn(report, f"the cluster was not recorded yet: {error.message}")
    return None


def _identity_of_server(settings: Settings) -> Identity:
    from pitr.pg.facts import read_facts
    from pitr.pg.server import connect

    dsn = settings.cluster.dsn
    with connect(dsn.load().reveal() if dsn is not None else "", "init") as connection:
        facts = read_facts(connection)
    return Identity(
        FORMAT,
        settings.cluster.name,
        str(facts.system_identifier),
        facts.version_num // 10000,
        facts.segment_size_bytes,
        facts.block_size_bytes,
        utc_now(),
    )
