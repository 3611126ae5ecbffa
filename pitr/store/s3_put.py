"""Writing S3 objects: one request, or a multipart upload that is completed or aborted.

- Up to one part (16 MiB): a single PutObject, and so for put-if-absent up to 64 MiB, because servers are known that
  honour If-None-Match there and ignore it when a multipart upload is completed (Ceph). Longer put-if-absent uploads
  rest on CompleteMultipartUpload; probe_if_absent() tells whether a server can be trusted with the former.
- Longer bodies: parts in parallel from a pool that all uploads of the store share. Any exception, the body's own
  included, aborts the upload.
- A body that can be iterated only once is kept until it is stored, and sent again here for as long as the Retrying
  wrapper would; of other bodies that fit into one request the wrapper takes care.
- A put-if-absent whose answer was lost and that is sent again meets its own object. Contents are compared then, here or
  in the Retrying wrapper; callers without it meet ObjectExists and do that themselves.

CPU: payloads are not hashed for the signature (UNSIGNED-PAYLOAD); a CRC-32 goes with every request instead and is
checked by the server.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from botocore import exceptions as boto

from pitr.core.errors import ObjectNotFound, StoreError
from pitr.core.files import Buffer
from pitr.store.s3_body import BufferPool, Part, PartsReader, checksum_of, gather_parts
from pitr.store.s3_errors import code_of, from_answer, s3_errors, status_of
from pitr.store.s3_parts import PartSender, with_resends
from pitr.store.settings import MIB, S3Settings

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

SINGLE_PUT_IF_ABSENT_BYTES = 64 * MIB
EQUAL_PARTS = 5000
PARTS_JOINED = 8
"""Behind so many parts each is made of eight buffers: 10,000 parts of 16 MiB would end at 160 GiB, these at 700."""


@dataclass(frozen=True, slots=True)
class _Upload:
    """A multipart upload under way; ``started`` is by the server's clock."""

    key: str
    upload_id: str
    started: datetime


class S3Writer:
    """put() for one bucket. ``head`` is HEAD of a key, raising ObjectNotFound."""

    def __init__(self, client: S3Client, settings: S3Settings, head: Callable[[str], dict[str, Any]]) -> None:
        self._client: Any = client  # the stubs want literal keyword arguments
        self._settings = settings
        self._bucket = settings.bucket
        self._head = head
        self._buffers = BufferPool(settings.part_size_bytes, keep=settings.parts_in_flight + 2)
        self._sender = PartSender(settings.parts_in_flight)

    def close(self) -> None:
        self._sender.close()

    def put(self, key: str, body: Iterable[Buffer], *, if_absent: bool) -> tuple[int, datetime | None]:
        """Size, and the server's time when the object was complete, if it told."""
        parts = gather_parts(body, self._buffers)
        single = max(1, SINGLE_PUT_IF_ABSENT_BYTES // self._settings.part_size_bytes) if if_absent else 1
        held: list[Part] = []
        try:
            for part in parts:
                held.append(part)
                if len(held) > single:
                    return self._put_parts(key, chain(held, parts), if_absent)
            # A body that can be iterated again is its owner's to send again.
            resend_s = self._settings.resend_s if iter(body) is body else 0.0
            return self._put_whole(key, held, if_absent, resend_s)
        finally:
            for part in held:
                part.release()

    def _what(self, key: str) -> str:
        return f"cannot write s3://{self._bucket}/{key}"

    def _put_whole(self, key: str, parts: list[Part], if_absent: bool, resend_s: float) -> tuple[int, datetime | None]:
        size_bytes = sum(part.size_bytes for part in parts)
        options = self._object_options()
        if self._settings.send_checksums:
            options["ChecksumCRC32"] = checksum_of(parts)
        if if_absent:
            options["IfNoneMatch"] = "*"

        def send(attempt: int) -> datetime | None:
            # an empty body is not worth the wait for 100 Continue
            body = PartsReader(parts) if size_bytes else b""
            with s3_errors(self._what(key), self._bucket):
                try:
                    return _date_of(self._client.put_object(Bucket=self._bucket, Key=key, Body=body, **options))
                except boto.ClientError as error:
                    # an earlier try may have succeeded and its answer been lost
                    if attempt > 0 and status_of(error) == 412 and self._is_stored(key, parts, size_bytes):
                        return None
                    raise

        return size_bytes, with_resends(send, attempts=1, for_s=resend_s)

    def _is_stored(self, key: str, parts: list[Part], size_bytes: int) -> bool:
        if int(self._head(key)["ContentLength"]) != size_bytes:
            return False
        stored = self._client.get_object(Bucket=self._bucket, Key=key)["Body"]
        with contextlib.closing(stored):
            return all(stored.read(part.size_bytes) == part.view() for part in parts)

    def _put_parts(self, key: str, parts: Iterable[Part], if_absent: bool) -> tuple[int, datetime | None]:
        upload = self._start_upload(key)
        sent: list[Future[dict[str, Any]]] = []
        unchecked: deque[Future[dict[str, Any]]] = deque()
        size_bytes = 0
        try:
            for group in _grouped(iter(parts)):
                size_bytes += sum(part.size_bytes for part in group)
                sent.append(self._sender.submit(partial(self._send_part, upload, len(sent) + 1, group)))
                unchecked.append(sent[-1])
                while unchecked and unchecked[0].done():
                    unchecked.popleft().result()  # the first failure ends the upload
            answers = [future.result() for future in sent]
            return size_bytes, self._complete(upload, answers, size_bytes, if_absent)
        except BaseException:
            for future in sent:
                future.cancel()
            wait(sent)
            self._abort(upload)
            raise

    def _start_upload(self, key: str) -> _Upload:
        options = self._object_options()
        if self._settings.send_checksums:
            options["ChecksumAlgorithm"] = "CRC32"
        with s3_errors(self._what(key), self._bucket):
            answer = self._client.create_multipart_upload(Bucket=self._bucket, Key=key, **options)
        return _Upload(key, answer["UploadId"], _date_of(answer) or datetime.max.replace(tzinfo=UTC))

    def _send_part(self, upload: _Upload, number: int, parts: list[Part]) -> dict[str, Any]:
        """What CompleteMultipartUpload wants to know of this part. Sent again after transient errors."""
        checksum = {"ChecksumCRC32": checksum_of(parts)} if self._settings.send_checksums else {}

        def send(_attempt: int) -> dict[str, Any]:
            with s3_errors(self._what(upload.key), self._bucket):
                answer = self._client.upload_part(
                    Bucket=self._bucket,
                    Key=upload.key,
                    UploadId=upload.upload_id,
                    PartNumber=number,
                    Body=PartsReader(parts),
                    **checksum,
                )
            return {"PartNumber": number, "ETag": answer["ETag"], **checksum}

        try:
            return with_resends(send, for_s=self._settings.resend_s)
        finally:
            for part in parts:
                part.release()

    def _complete(
        self, upload: _Upload, parts: list[dict[str, Any]], size_bytes: int, if_absent: bool
    ) -> datetime | None:
        options = {"IfNoneMatch": "*"} if if_absent else {}
        what = self._what(upload.key)

        def complete(attempt: int) -> datetime | None:
            with s3_errors(what, self._bucket):
                try:
                    answer = self._client.complete_multipart_upload(
                        Bucket=self._bucket,
                        Key=upload.key,
                        UploadId=upload.upload_id,
                        MultipartUpload={"Parts": parts},
                        **options,
                    )
                    return _date_of(answer)
                except boto.ClientError as error:
                    # the first try may have succeeded and its answer been lost
                    repeated = attempt > 0 and (code_of(error) == "NoSuchUpload" or status_of(error) == 412)
                    if repeated and self._is_ours(upload, parts, size_bytes, if_absent):
                        return None
                    raise from_answer(error, what, self._bucket) from error

        return with_resends(complete, for_s=self._settings.resend_s)

    def _is_ours(self, upload: _Upload, parts: list[dict[str, Any]], size_bytes: int, if_absent: bool) -> bool:
        """Is the object there the outcome of this upload? The ETag proves it, where parts' ETags are MD5 sums; without,
        size and age are enough unless another writer's object of the same size must be told from it."""
        try:
            head = self._head(upload.key)
        except ObjectNotFound:
            return False
        if int(head["ContentLength"]) != size_bytes:
            return False
        if head["ETag"].strip('"') == _multipart_etag(parts):
            return True
        return not if_absent and head["LastModified"] >= upload.started

    def _abort(self, upload: _Upload) -> None:
        """Best effort; what stays is removed by the bucket's rule for incomplete uploads."""

        def abort(_attempt: int) -> None:
            with s3_errors(self._what(upload.key), self._bucket):
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=upload.key, UploadId=upload.upload_id)

        with contextlib.suppress(StoreError):
            with_resends(abort, attempts=2)

    def _object_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {}
        if self._settings.sse is not None:
            options["ServerSideEncryption"] = self._settings.sse
        if self._settings.kms_key_id is not None:
            options["SSEKMSKeyId"] = self._settings.kms_key_id
        if self._settings.storage_class is not None:
            options["StorageClass"] = self._settings.storage_class
        return options


def _grouped(parts: Iterator[Part]) -> Iterator[list[Part]]:
    """One buffer a part (of equal sizes, which some servers insist on), several in very long uploads."""
    for number, part in enumerate(parts, 1):
        yield [part] if number <= EQUAL_PARTS else [part, *islice(parts, PARTS_JOINED - 1)]


def _multipart_etag(parts: list[dict[str, Any]]) -> str | None:
    try:
        digests = b"".join(bytes.fromhex(part["ETag"].strip('"')) for part in parts)
    except ValueError:
        return None
    return f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"


def _date_of(answer: dict[str, Any]) -> datetime | None:
    """The server's time when it answered."""
    text = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    return None if text is None else parsedate_to_datetime(text).astimezone(UTC)
