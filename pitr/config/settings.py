# ruff: noqa: RUF009 (setting() makes a dataclass field)
"""The settings as the rest of the program sees them: frozen, typed, absolute paths, bytes and timedeltas."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Literal, NamedTuple

from pitr.config.keys import setting
from pitr.config.origin import Origin
from pitr.config.secret_source import SecretSource
from pitr.core.errors import ConfigError, UsageError

DEFAULT_SPOOL = Path("/var/spool/pitr")


@dataclass(frozen=True, slots=True, kw_only=True)
class RepoSettings:
    """One repository: ``[repo.NAME]``."""

    name: str
    url: str = setting(
        "url",
        "Where the repository lies: file:///directory or s3://bucket/prefix. Required. "
        "In the environment: PITR_REPO (a URL, or the name of a configured repository).",
        MISSING,
        environment=False,
    )
    repository_id: str | None = setting(
        "text", "The id that pitr init printed. When set, another repository at this URL is refused."
    )
    required: bool = setting(
        "flag",
        "With several repositories: a WAL segment is acknowledged when every required one has it.",
        True,
    )
    group_readable: bool = setting("flag", "file: directories and files are readable by the group (0750, 0640).", False)

    region: str | None = setting("text", "s3: region. Default: as the AWS tools find it.")
    endpoint: str | None = setting("text", "s3: URL of another server than AWS, such as https://minio.internal:9000.")
    path_style: bool | None = setting("flag", "s3: bucket in the path, not in the host name. Default: with endpoint.")
    profile: str | None = setting("text", "s3: profile of the AWS configuration files.")
    access_key: str | None = setting("text", "s3: access key id. Default: the AWS credential chain.")
    secret_key: SecretSource | None = setting("secret", "s3: secret access key, together with access_key.")
    session_token: SecretSource | None = setting("secret", "s3: session token of temporary credentials.")
    ca_file: Path | None = setting("path", "s3: certificates that are trusted instead of the system's (PEM).")
    verify_tls: bool = setting("flag", "s3: check the server's certificate.", True)
    sse: Literal["AES256", "aws:kms"] | None = setting(
        "choice", "s3: encryption by the store, on top of pitr's own.", choices=("AES256", "aws:kms")
    )
    kms_key_id: str | None = setting("text", 's3: key for sse = "aws:kms". Default: the account\'s.')
    storage_class: str | None = setting("text", "s3: storage class of new objects. Default: the bucket's.")
    part_size: int = setting(
        "size", "s3: size of a part of a multipart upload.", 16 << 20, minimum=5 << 20, maximum=5 << 30
    )
    parts_in_flight: int = setting(
        "count", "s3: parts of one object that are sent at the same time.", 4, minimum=1, maximum=64
    )

    encryption: bool = setting("flag", "false: objects are stored readable. Excludes the four keys below.", True)
    key_file: Path | None = setting("path", "File with the key that unlocks the repository.", group="key")
    passphrase: SecretSource | None = setting(
        "secret", "Passphrase that unlocks the repository, instead of key_file.", group="key"
    )
    key_command: tuple[str, ...] | None = setting(
        "command",
        "Command that unlocks the repository, such as a KMS client, instead of key_file; it is run as "
        "COMMAND wrap and COMMAND unwrap. A list, or text that is split like a shell does; no shell is involved.",
        group="key",
    )
    recovery_key: SecretSource | None = setting(
        "secret", "Recovery key that pitr init printed, instead of key_file when that is lost.", group="key"
    )
    compression_level: int = setting("count", "zstd level. Higher is smaller and slower.", 3, minimum=1, maximum=19)
    retry_deadline: timedelta = setting(
        "duration",
        "How long an operation of the store is tried again before it fails. At most 1 min for wal push (PostgreSQL "
        "tries again by itself), 2 min for wal fetch.",
        timedelta(minutes=5),
    )
    max_upload_rate: int | None = setting("rate", "Bytes per second that one command sends. Default: unlimited.")
    max_download_rate: int | None = setting("rate", "Bytes per second that one command fetches. Default: unlimited.")

    @property
    def has_key(self) -> bool:
        return any(key is not None for key in (self.key_file, self.passphrase, self.key_command, self.recovery_key))


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What check, status and metrics judge by: ``[cluster.NAME.policy]``. None: not judged."""

    base: timedelta | None = setting("duration", "A base backup must not be older.", wal=False)
    rpo: timedelta | None = setting("duration", "Archived WAL must not lag further behind.", wal=False)
    drill: timedelta | None = setting("duration", "A rehearsed restore must not be older.", wal=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSettings:
    """One PostgreSQL cluster: ``[cluster.NAME]``."""

    name: str
    data_directory: Path | None = setting("path", "The data directory. Default: the server is asked.")
    dsn: SecretSource | None = setting(
        "secret",
        "How to connect: conninfo or URI. Default: libpq's environment (PGHOST, PGPORT, PGUSER, ...). "
        "Passwords are better kept in libpq's password file.",
        wal=False,
    )
    repos: tuple[str, ...] | None = setting(
        "words", "Names of the repositories of this cluster. Default: all configured.", environment=False
    )
    kind: Literal["auto", "server", "managed"] = setting(
        "choice",
        "managed: a cloud service without access to files or WAL. auto: found out.",
        "auto",
        choices=("auto", "server", "managed"),
    )
    bin_dir: Path | None = setting("path", "Directory of the PostgreSQL programs. Default: searched by version.")
    jobs: int | None = setting(
        "count", "Parallel workers. Default: the number of processors, at most 4.", minimum=1, maximum=256
    )
    spool: Path | None = setting(
        "path",
        "Directory for acknowledgements, prefetched WAL and its indexes, owned by the server's user. "
        f"Default: {DEFAULT_SPOOL} when this user may write there, else none.",
    )
    policy: Policy = field(default_factory=Policy)

    @property
    def worker_count(self) -> int:
        return self.jobs if self.jobs is not None else max(1, min(4, len(os.sched_getaffinity(0))))

    @property
    def spool_directory(self) -> Path | None:
        if self.spool is not None:
            return self.spool
        return DEFAULT_SPOOL if os.access(DEFAULT_SPOOL, os.W_OK | os.X_OK) else None


class Given(NamedTuple):
    """A value that stands in no file: another process gets it as ``variable=value``. ``value`` is None for a secret."""

    variable: str
    value: str | None
    origin: Origin
    wal: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The selected cluster with its repositories.

    cluster_origin  kind "default": nobody named a cluster and none is configured; a command that reads a repository
                    may then take the only one in there
    location        what ``--config`` must be to read the same files; None without any file
    origins         "repo.main.url" -> Origin; keys that are not in it have their default
    """

    cluster: ClusterSettings
    cluster_origin: Origin
    repos: tuple[RepoSettings, ...]
    location: Path | None
    files: tuple[Path, ...]
    origins: Mapping[str, Origin]
    given: tuple[Given, ...]
    warnings: tuple[str, ...]

    @property
    def cluster_is_given(self) -> bool:
        return self.cluster_origin.kind != "default"

    def require_repos(self) -> tuple[RepoSettings, ...]:
        """All repositories, at least one. Raises ConfigError."""
        if not self.repos:
            raise ConfigError(
                "no repository is configured",
                detail="read: " + (", ".join(map(str, self.files)) or "no file, environment only"),
                hint='set PITR_REPO=file:///directory or s3://bucket/prefix, or see "pitr help config"',
            )
        return self.repos

    def one_repo(self) -> RepoSettings:
        """The repository of a command that reads from one: the only one, else the first. Raises ConfigError."""
        return self.require_repos()[0]

    def single_repo(self, what: str) -> RepoSettings:
        """The repository of a command that must not guess. Raises ConfigError or UsageError."""
        repos = self.require_repos()
        if len(repos) > 1:
            names = ", ".join(repo.name for repo in repos)
            raise UsageError(f"{what} needs one repository of {names}", hint=f"add --repo {repos[0].name}")
        return repos[0]
