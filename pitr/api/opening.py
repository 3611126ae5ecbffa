"""From settings to opened repositories. Imports no driver and no client library until one is needed (cold start)."""

from __future__ import annotations

from pitr.codec import KeyCommand, KeyFile, KeySecret, Passphrase, RecoveryKey
from pitr.config.secret_source import SecretSource
from pitr.config.settings import RepoSettings, Settings
from pitr.core.errors import ConfigError
from pitr.core.events import Report, warn
from pitr.core.secrets import Secret
from pitr.repo.repository import Repository, open_repository
from pitr.store import ObjectStore, S3Settings, StoreSettings, open_store


def store_settings(repo: RepoSettings) -> StoreSettings:
    """Credentials are fetched here. Raises ConfigError."""
    return StoreSettings(
        s3=S3Settings(
            region=repo.region,
            endpoint=repo.endpoint,
            path_style=repo.path_style,
            profile=repo.profile,
            access_key=None if repo.access_key is None else Secret(repo.access_key),
            secret_key=_loaded(repo.secret_key),
            session_token=_loaded(repo.session_token),
            ca_file=repo.ca_file,
            verify_tls=repo.verify_tls,
            sse=repo.sse,
            kms_key_id=repo.kms_key_id,
            storage_class=repo.storage_class,
            part_size_bytes=repo.part_size,
            parts_in_flight=repo.parts_in_flight,
        ),
        retry_deadline_s=repo.retry_deadline.total_seconds(),
        upload_rate=repo.max_upload_rate,
        download_rate=repo.max_download_rate,
        group_readable=repo.group_readable,
    )


def _loaded(source: SecretSource | None) -> Secret | None:
    return None if source is None else source.load()


def key_secret(repo: RepoSettings) -> KeySecret | None:
    """What unlocks the repository; None when it is configured as unencrypted. Raises ConfigError."""
    if not repo.encryption:
        return None
    if repo.key_file is not None:
        return KeyFile(repo.key_file)
    if repo.passphrase is not None:
        return Passphrase(repo.passphrase.load())
    if repo.key_command is not None:
        import shlex

        return KeyCommand(shlex.join(repo.key_command))
    if repo.recovery_key is not None:
        return RecoveryKey(repo.recovery_key.load())
    raise ConfigError(
        f'repository "{repo.name}" has no key',
        detail="encryption is on, and none of key_file, passphrase, key_command and recovery_key is set",
        hint='"pitr init --key-file FILE" makes one; PITR_KEY_FILE names it afterwards',
    )


def open_store_of(repo: RepoSettings) -> ObjectStore:
    return open_store(repo.url, store_settings(repo))


def open_repo(repo: RepoSettings, report: Report | None = None) -> Repository:
    """Raises ConfigError, RepositoryMissing, KeyUnavailable, StoreError."""
    secret = key_secret(repo)
    if report is not None and isinstance(secret, KeyFile):
        warning = secret.warning()
        if warning is not None:
            warn(report, warning)
    return open_repository(
        repo.name, open_store_of(repo), secret, level=repo.compression_level, repository_id=repo.repository_id
    )


def cluster_name(settings: Settings, repository: Repository) -> str:
    """The selected cluster; when none is named or configured, the only one in the repository, else ``main``."""
    if settings.cluster_is_given:
        return settings.cluster.name
    from pitr.repo.identity import list_clusters

    clusters = list_clusters(repository)
    return clusters[0] if len(clusters) == 1 else settings.cluster.name
