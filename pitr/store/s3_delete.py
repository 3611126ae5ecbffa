"""Deleting keys: by the thousand, or one by one from servers that know no better."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING

from botocore import exceptions as boto

from pitr.core.errors import ObjectNotFound, PitrError, StoreError
from pitr.store.s3_errors import ServerRefused, from_answer, s3_errors

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

BATCH = 1000


def delete_keys(client: S3Client, bucket: str, keys: Iterable[str]) -> None:
    """Tries all, then raises the first refusal."""
    refusal: PitrError | None = None
    remaining = iter(keys)
    while batch := list(islice(remaining, BATCH)):
        try:
            found = _delete_batch(client, bucket, batch)
        except ServerRefused:  # no DeleteObjects here, or it wants a header of old
            found = _delete_singly(client, bucket, batch)
        except StoreError as error:
            found = error
        refusal = refusal or found
    if refusal is not None:
        raise refusal


def _delete_batch(client: S3Client, bucket: str, keys: list[str]) -> PitrError | None:
    if len(keys) == 1:
        return _delete_singly(client, bucket, keys)
    with s3_errors(f"cannot delete from s3://{bucket}", bucket):
        answer = client.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True})
    for refused in answer.get("Errors", []):
        if refused.get("Code") != "NoSuchKey":
            status = {"ResponseMetadata": {"HTTPStatusCode": 200}, "Error": refused}
            error = boto.ClientError(status, "DeleteObjects")  # type: ignore[arg-type]
            return from_answer(error, f"cannot delete s3://{bucket}/{refused.get('Key')}", bucket)
    return None


def _delete_singly(client: S3Client, bucket: str, keys: list[str]) -> PitrError | None:
    refusal: PitrError | None = None
    for key in keys:
        try:
            with s3_errors(f"cannot delete s3://{bucket}/{key}", bucket):
                client.delete_object(Bucket=bucket, Key=key)
        except ObjectNotFound:
            continue
        except StoreError as error:
            refusal = refusal or error
    return refusal
