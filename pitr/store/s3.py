"""An S3 bucket, or a prefix of one, as an object store.

Answers are not checksummed here: every object of a repository carries its own digests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC
from typing import Any

from botocore import exceptions as boto

from pitr.core.errors import ObjectNotFound, StoreError, StoreUnavailable
from pitr.core.files import Buffer
from pitr.store.base import ObjectInfo, StoreCaps
from pitr.store.names import check_name, check_prefix, is_name
from pitr.store.ranges import behind_the_end
from pitr.store.s3_client import make_client
from pitr.store.s3_delete import delete_keys
from pitr.store.s3_errors import s3_errors, status_of
from pitr.store.s3_list import Page, listed
from pitr.store.s3_parts import with_resends
from pitr.store.s3_put import S3Writer
from pitr.store.s3_read import OutOfRange, RangedRead
from pitr.store.settings import S3Settings


class S3Store:
    """An ObjectStore in a bucket. Times are those of the server."""

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings
        self._bucket = settings.bucket
        self._prefix = settings.prefix
        client = make_client(settings)
        self._client: Any = client
        self._writer = S3Writer(client, settings, self._head)

    @property
    def caps(self) -> StoreCaps:
        return StoreCaps()

    @property
    def url(self) -> str:
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def put(self, name: str, body: Iterable[Buffer], *, if_absent: bool = False) -> ObjectInfo:
        size_bytes, modified = self._writer.put(self._key(name), body, if_absent=if_absent)
        return ObjectInfo(name, size_bytes, modified or self.stat(name).modified)

    def get(self, name: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        key = self._key(name)
        if offset < 0 or (length is not None and length < 0):
            raise behind_the_end(name, None, offset, length)
        if length != 0:
            try:
                yield from RangedRead(self._client, self._bucket, key, offset, length)
                return
            except OutOfRange:
                pass
        size_bytes = self.stat(name).size_bytes
        if offset > size_bytes or (length and offset + length > size_bytes):
            raise behind_the_end(name, size_bytes, offset, length)
        if offset < size_bytes and length != 0:
            raise StoreError(f"the server refuses a range that exists: {name}", detail=f"offset {offset}")

    def stat(self, name: str) -> ObjectInfo:
        key = self._key(name)
        head = self._head(key)
        return ObjectInfo(name, int(head["ContentLength"]), head["LastModified"].astimezone(UTC))

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        check_prefix(prefix)
        return listed(lambda start: self._pages(prefix, start), prefix, after)

    def delete(self, names: Iterable[str]) -> None:
        delete_keys(self._client, self._bucket, (self._key(name) for name in names))

    def close(self) -> None:
        self._writer.close()
        self._client.close()

    def _key(self, name: str) -> str:
        return self._prefix + check_name(name)

    def _what(self, verb: str, key: str) -> str:
        return f"cannot {verb} s3://{self._bucket}/{key}"

    def _head(self, key: str) -> dict[str, Any]:
        what = self._what("read", key)
        with s3_errors(what, self._bucket):
            try:
                head: dict[str, Any] = self._client.head_object(Bucket=self._bucket, Key=key)
                return head
            except boto.ClientError as error:
                if status_of(error) != 404:
                    raise
                self._check_bucket()  # the answer to HEAD has no body that could tell which of the two is missing
                raise ObjectNotFound(f"no such object: s3://{self._bucket}/{key}") from error

    def _check_bucket(self) -> None:
        try:
            self._client.head_bucket(Bucket=self._bucket)
        except boto.ClientError as error:
            if status_of(error) == 404:
                raise StoreUnavailable(
                    f"bucket does not exist: {self._bucket}",
                    hint="create the bucket, or correct the URL, the endpoint or the region",
                    transient=False,
                ) from error
            if status_of(error) not in (401, 403):  # not being allowed to ask is no sign of its absence
                raise

    def _pages(self, prefix: str, start: str) -> Iterator[Page]:
        options: dict[str, Any] = {"StartAfter": self._prefix + start} if start else {}

        def ask(_attempt: int) -> dict[str, Any]:
            with s3_errors(self._what("list", self._prefix + prefix), self._bucket):
                answer: dict[str, Any] = self._client.list_objects_v2(
                    Bucket=self._bucket, Prefix=self._prefix + prefix, **options
                )
            return answer

        page = ask(0)
        while True:
            yield [self._listed(entry) for entry in page.get("Contents", []) if is_name(self._name(entry))]
            if not page.get("IsTruncated"):
                return
            options["ContinuationToken"] = page["NextContinuationToken"]
            page = with_resends(ask)  # the first failure of a listing is the caller's, those in its middle are not

    def _name(self, entry: dict[str, Any]) -> str:
        return str(entry["Key"]).removeprefix(self._prefix)

    def _listed(self, entry: dict[str, Any]) -> ObjectInfo:
        return ObjectInfo(self._name(entry), int(entry["Size"]), entry["LastModified"].astimezone(UTC))
