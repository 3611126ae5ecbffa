"""Options of stores, as the configuration layer fills them. No driver is imported here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pitr.core.errors import ConfigError
from pitr.core.secrets import Secret

MIB = 1 << 20
MIN_PART_BYTES = 5 * MIB
"""The least size of a part but the last, by the S3 API."""


@dataclass(frozen=True, slots=True)
class S3Settings:
    """How to reach a bucket. Credentials left out come from the environment, the profile or the instance.

    prefix          of all keys; ``a/b/`` or empty
    path_style      None: on with an endpoint, off (virtual host) without
    sse             server-side encryption to ask for; kms_key_id goes with ``aws:kms``
    part_size_bytes size of the parts of a multipart upload, at least 5 MiB; bodies up to it are one request
    parts_in_flight parts under way at a time for the whole store; memory: one part more for each put at work
    checksum_mode   boto3's own checksums: only where the operation requires them, or wherever supported (trailers over
                    TLS, which some servers refuse)
    resend_s        how long what the caller cannot give a second time (parts, streamed bodies) is sent again
    send_checksums  send a CRC-32 with each body (0.4 CPU seconds per GiB); off for servers that refuse the header
    """

    bucket: str = ""
    prefix: str = ""
    region: str | None = None
    endpoint: str | None = None
    path_style: bool | None = None
    profile: str | None = None
    access_key: Secret | None = None
    secret_key: Secret | None = None
    session_token: Secret | None = None
    ca_file: Path | None = None
    verify_tls: bool = True
    sse: Literal["AES256", "aws:kms"] | None = None
    kms_key_id: str | None = None
    storage_class: str | None = None
    part_size_bytes: int = 16 * MIB
    parts_in_flight: int = 4
    connect_timeout_s: float = 10.0
    read_timeout_s: float = 60.0
    checksum_mode: Literal["when_required", "when_supported"] = "when_required"
    send_checksums: bool = True
    resend_s: float = 0.0

    def __post_init__(self) -> None:
        if self.part_size_bytes < MIN_PART_BYTES:
            raise ConfigError(f"S3 part size of {self.part_size_bytes} bytes is below the minimum of 5 MiB")
        if self.parts_in_flight < 1:
            raise ConfigError("S3 parts in flight must be at least 1")
        if (self.access_key is None) != (self.secret_key is None):
            raise ConfigError("S3 access key and secret key go together; only one of them is set")
        if self.kms_key_id is not None and self.sse != "aws:kms":
            raise ConfigError("an S3 KMS key is set, but server-side encryption is not aws:kms")


@dataclass(frozen=True, slots=True)
class StoreSettings:
    """Everything about a store but its URL.

    retry_deadline_s   how long a transient failure is fought before it is reported; 0 turns retrying off
    upload_rate, download_rate   bytes per second over all threads; None is unlimited
    group_readable     file stores: 0750/0640 instead of 0700/0600
    """

    s3: S3Settings = field(default_factory=S3Settings)
    retry_deadline_s: float = 300.0
    upload_rate: int | None = None
    download_rate: int | None = None
    group_readable: bool = False
    read_only: bool = False
