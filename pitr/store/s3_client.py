"""The botocore client behind S3Store."""

from __future__ import annotations

from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, cast

import botocore.session
from botocore.config import Config

from pitr.core.errors import ConfigError
from pitr.core.secrets import Secret
from pitr.store.s3_errors import s3_errors
from pitr.store.settings import S3Settings

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

OTHER_CONNECTIONS = 32
"""Kept for gets, puts of one request and listings, beside those of the parts in flight."""


def make_client(settings: S3Settings) -> S3Client:
    """A thread-safe client. It does not retry: the driver classifies errors, the Retrying wrapper decides.

    Raises ConfigError or StoreDenied.
    """
    with s3_errors("cannot use the S3 options", settings.bucket):
        session = botocore.session.Session(profile=settings.profile)
        parsers = session.get_component("response_parser_factory")
        parsers.set_parser_defaults(timestamp_parser=_parse_time)
        path_style = settings.path_style if settings.path_style is not None else settings.endpoint is not None
        region = settings.region or session.get_config_variable("region") or "us-east-1"
        config = Config(
            signature_version="s3v4",
            s3={"addressing_style": "path" if path_style else "virtual", "payload_signing_enabled": False},
            connect_timeout=settings.connect_timeout_s,
            read_timeout=settings.read_timeout_s,
            tcp_keepalive=True,
            max_pool_connections=settings.parts_in_flight + OTHER_CONNECTIONS,
            retries={"total_max_attempts": 1, "mode": "standard"},
            request_checksum_calculation=settings.checksum_mode,
            response_checksum_validation=settings.checksum_mode,
            user_agent_extra="pitr",
        )
        verify = str(settings.ca_file) if settings.ca_file is not None and settings.verify_tls else settings.verify_tls
        try:
            client = session.create_client(
                "s3",
                region_name=region,
                endpoint_url=settings.endpoint,
                verify=verify,
                aws_access_key_id=_reveal(settings.access_key),
                aws_secret_access_key=_reveal(settings.secret_key),
                aws_session_token=_reveal(settings.session_token),
                config=config,
            )
            return cast("S3Client", client)
        except ValueError as error:
            raise ConfigError(f"not an endpoint: {settings.endpoint}", detail=str(error)) from error


def _parse_time(text: str) -> datetime:
    """ISO 8601 (listings) or RFC 9110 (headers). botocore's own guesses the format: 0.3 ms for every listed object."""
    return datetime.fromisoformat(text) if text[:1].isdigit() else parsedate_to_datetime(text)


def _reveal(secret: Secret | None) -> str | None:
    return None if secret is None else secret.reveal()
