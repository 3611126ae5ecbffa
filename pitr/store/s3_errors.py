"""What the errors of botocore and of S3 servers mean. One table, the only place that knows codes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from pitr.core.errors import (
    ConfigError,
    NoSpace,
    ObjectExists,
    ObjectNotFound,
    PitrError,
    StoreDenied,
    StoreError,
    StoreUnavailable,
)

_DENIED_CODES = {
    "AccessDenied",
    "AllAccessDisabled",
    "AccountProblem",
    "AuthorizationHeaderMalformed",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "TokenRefreshRequired",
}
_NO_SPACE_CODES = {"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage"}
_TRANSIENT_CODES = {
    "BadDigest",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "InternalError",
    "NoSuchUpload",
    "OperationAborted",
    "RequestLimitExceeded",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequests",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
}
_HINTS = {
    "RequestTimeTooSkewed": "the clock of this host differs from the server's by minutes: set the clock (NTP)",
    "ExpiredToken": "the session token is over: renew the credentials",
    "InvalidAccessKeyId": "the access key is unknown to this server: check the key and the endpoint",
    "SignatureDoesNotMatch": "check the secret key, the region and the endpoint",
    "AuthorizationHeaderMalformed": "check the region of the bucket",
    "PermanentRedirect": "check the region and the endpoint of the bucket",
    "InvalidStorageClass": "this server does not know the storage class: leave it out",
}
_DENIED_HINT = "the credentials need s3:PutObject, s3:GetObject, s3:ListBucket and, to expire, s3:DeleteObject"


class ServerRefused(StoreError):
    """An answer that is no outage, no denial and no missing object; ``s3_code`` says which."""

    def __init__(self, message: str, *, detail: str | None = None, hint: str | None = None, s3_code: str) -> None:
        super().__init__(message, detail=detail, hint=hint)
        self.s3_code = s3_code


@contextlib.contextmanager
def s3_errors(what: str, bucket: str) -> Iterator[None]:
    """Raise the StoreError for whatever botocore raises. ``what``: "cannot write s3://bucket/key"."""
    try:
        yield
    except boto.ClientError as error:
        raise from_answer(error, what, bucket) from error
    except (boto.BotoCoreError, ResponseParserError, OSError) as error:
        raise from_failure(error, what) from error


def code_of(error: boto.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: boto.ClientError) -> int:
    metadata: Any = error.response.get("ResponseMetadata", {})
    return int(metadata.get("HTTPStatusCode", 0))


def from_answer(error: boto.ClientError, what: str, bucket: str) -> PitrError:
    """The server answered, with an error."""
    code, status, detail, hint = code_of(error), status_of(error), _detail(error), _HINTS.get(code_of(error))
    if code == "NoSuchBucket":
        return StoreUnavailable(
            f"bucket does not exist: {bucket}",
            detail=detail,
            hint="create the bucket, or correct the URL, the endpoint or the region",
            transient=False,
        )
    if code == "NoSuchKey":
        return ObjectNotFound(what, detail=detail)
    if status == 412 or code == "PreconditionFailed":
        return ObjectExists(f"{what}: object exists", detail=detail)
    if code in _NO_SPACE_CODES or status == 507:
        return NoSpace(f"{what}: no space left", detail=detail, hint="raise the quota")
    if code in _TRANSIENT_CODES or status == 429 or (status >= 500 and status != 501):
        return StoreUnavailable(what, detail=detail)
    if code in _DENIED_CODES or status in (401, 403):
        return StoreDenied(f"{what}: access denied", detail=detail, hint=hint or _DENIED_HINT)
    return ServerRefused(what, detail=detail, hint=hint, s3_code=code)


def from_failure(error: boto.BotoCoreError | ResponseParserError | OSError, what: str) -> PitrError:
    """No answer, or only a part of one."""
    detail = f"{type(error).__name__}: {error}"
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError | boto.CredentialRetrievalError):
        return StoreDenied(
            f"{what}: no credentials", detail=str(error), hint="set the access key and secret key, or a profile"
        )
    if isinstance(error, boto.SSLError) and "CERTIFICATE" in str(error).upper():
        return StoreUnavailable(
            f"{what}: the certificate is not trusted",
            detail=str(error),
            hint="name the file of the certificate authority in the store's options",
            transient=False,
        )
    if isinstance(error, boto.ProfileNotFound | boto.NoRegionError | boto.ParamValidationError):
        return ConfigError(what, detail=str(error))
    transient = isinstance(
        error, boto.HTTPClientError | boto.ConnectionError | boto.IncompleteReadError | ResponseParserError | OSError
    )
    return StoreUnavailable(what, detail=detail, transient=transient)


def _detail(error: boto.ClientError) -> str:
    answer: Any = error.response.get("Error", {})
    text = f"{status_of(error)} {code_of(error)}"
    message = answer.get("Message")
    return f"{text}: {message}" if message else text
