"""Reading a range of an S3 object, going on where a broken connection left off."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from botocore import exceptions as boto

from pitr.core.errors import IntegrityError, StoreError, StoreUnavailable
from pitr.store.ranges import behind_the_end
from pitr.store.s3_errors import from_answer, s3_errors, status_of
from pitr.store.s3_parts import pause

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

READ_BYTES = 1 << 20
RESUMPTIONS = 4
"""Breaks in a row without a byte of progress before the read fails."""

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class OutOfRange(Exception):
    """416: nothing lies at the offset. Only the object's size tells whether that is an error."""


class RangedRead:
    """Yields the bytes from offset on, in chunks of up to 1 MiB; exactly ``length``, or the rest of the object."""

    def __init__(self, client: S3Client, bucket: str, key: str, offset: int, length: int | None) -> None:
        self._client = client
        self._bucket = bucket
        self._key = key
        self._offset = offset
        self._length = length
        self._position = offset
        self._end = None if length is None else offset + length
        self._etag: str | None = None
        self._what = f"cannot read s3://{bucket}/{key}"

    def __iter__(self) -> Iterator[bytes]:
        body = self._open()
        breaks = 0
        try:
            while self._position != self._end:
                try:
                    chunk = self._read(body)
                except StoreError as error:
                    if not error.transient or breaks == RESUMPTIONS:
                        raise
                    pause(breaks)
                    breaks += 1
                    body.close()
                    with contextlib.suppress(StoreUnavailable):  # the old body raises again: that is the next break
                        body = self._open()
                    continue
                breaks = 0
                self._position += len(chunk)
                yield chunk
        finally:
            body.close()

    def _read(self, body: StreamingBody) -> bytes:
        assert self._end is not None
        with s3_errors(self._what, self._bucket):
            try:
                chunk: bytes = body.read(min(READ_BYTES, self._end - self._position))
            except ValueError as error:  # read of a closed body, after a resumption that failed
                raise StoreUnavailable(self._what, detail=str(error)) from error
        if not chunk:
            raise StoreUnavailable(self._what, detail=f"answer ended at byte {self._position} of {self._end}")
        return chunk

    def _open(self) -> StreamingBody:
        """Ask for what is left. The first answer fixes the end and the version; later ones must agree."""
        ranged = self._position > 0 or self._end is not None
        options: dict[str, Any] = {}
        if ranged:
            last = "" if self._end is None else str(self._end - 1)
            options["Range"] = f"bytes={self._position}-{last}"
        with s3_errors(self._what, self._bucket):
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=self._key, **options)
            except boto.ClientError as error:
                if status_of(error) == 416 and self._etag is None:
                    raise OutOfRange from error
                raise from_answer(error, self._what, self._bucket) from error
        try:
            self._check(answer, ranged)
        except BaseException:
            answer["Body"].close()
            raise
        return answer["Body"]

    def _check(self, answer: GetObjectOutputTypeDef, ranged: bool) -> None:
        """The ETag is compared here rather than sent as If-Match, which servers want quoted, unquoted, or ignore."""
        if self._etag is not None and answer.get("ETag") != self._etag:
            raise IntegrityError(f"{self._what}: it was replaced while it was read")
        self._etag = str(answer.get("ETag"))
        if not ranged:
            self._end = int(answer["ContentLength"])
            return
        found = _CONTENT_RANGE.fullmatch(answer.get("ContentRange", ""))
        if found is None or int(found[1]) != self._position:
            raise StoreError(f"{self._what}: the server does not honour ranges", detail=answer.get("ContentRange"))
        size_bytes = int(found[3])
        if self._end is None:
            self._end = size_bytes
        elif self._end > size_bytes:
            raise behind_the_end(self._key, size_bytes, self._offset, self._length)
