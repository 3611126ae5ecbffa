"""The S3 driver against a real server behind a proxy that spoils single requests, and bare, with nothing to help it:
what it repeats by itself, what it leaves behind, how it names what went wrong."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from pitr.core.errors import (
    ConfigError,
    IntegrityError,
    NoSpace,
    ObjectExists,
    ObjectNotFound,
    StoreDenied,
    StoreError,
    StoreUnavailable,
)
from pitr.core.secrets import Secret
from pitr.store import ObjectStore, Retrying, RetryPolicy, StoreSettings, open_store, probe_if_absent
from tests.support.s3_proxy import S3Proxy, Spoil
from tests.support.s3server import S3Endpoint

pytestmark = pytest.mark.s3

MIB = 1 << 20
Opener = Callable[..., ObjectStore]


@pytest.fixture
def proxy(s3_server: S3Endpoint) -> Iterator[S3Proxy]:
    with S3Proxy(s3_server.endpoint) as running:
        yield running


@pytest.fixture
def opened(s3_server: S3Endpoint, proxy: S3Proxy) -> Iterator[Opener]:
    """Opens stores of the same new prefix: through the proxy, or with other options."""
    prefix = f"f/{os.urandom(8).hex()}"
    stores = []

    def opener(bucket: str = s3_server.bucket, **changes: object) -> ObjectStore:
        options = {"endpoint": proxy.endpoint, "part_size_bytes": 5 * MIB, "read_timeout_s": 5.0} | changes
        settings = StoreSettings(s3=s3_server.settings(**options), retry_deadline_s=0)
        stores.append(open_store(f"s3://{bucket}/{prefix}", settings))
        return stores[-1]

    yield opener
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Opener) -> ObjectStore:
    return opened()


@pytest.fixture
def content(big_chunk: bytes) -> bytes:
    return big_chunk * 12


@pytest.mark.parametrize(
    "spoil",
    [Spoil("status"), Spoil("status", status=500, code="InternalError"), Spoil("drop"), Spoil("lost")],
    ids=["SlowDown", "InternalError", "drop", "lost"],
)
def test_a_part_is_sent_again(store: ObjectStore, proxy: S3Proxy, content: bytes, spoil: Spoil) -> None:
    proxy.spoil("PUT", "partNumber=2", spoil)
    store.put("parts", [content])
    assert proxy.count("PUT", "partNumber=2") == 2
    assert b"".join(store.get("parts")) == content


def test_a_part_refused_for_good_aborts_the_upload(store: ObjectStore, proxy: S3Proxy, content: bytes) -> None:
    proxy.spoil("PUT", "partNumber=3", Spoil("status", status=403, code="AccessDenied"))
    with pytest.raises(StoreDenied):
        store.put("parts", [content])
    assert proxy.count("DELETE", "uploadId=") == 1
    assert list(store.list("")) == []


def test_a_body_that_raises_aborts_the_upload(store: ObjectStore, proxy: S3Proxy, big_chunk: bytes) -> None:
    def body() -> Iterator[bytes]:
        for _ in range(12):
            yield big_chunk
        raise OSError("the source went away")

    with pytest.raises(OSError, match="the source went away"):
        store.put("parts", body())
    assert proxy.count("POST", "uploadId=") == 0
    assert proxy.count("DELETE", "uploadId=") == 1
    assert list(store.list("")) == []


@pytest.mark.parametrize("if_absent", [False, True])
def test_a_completion_whose_answer_was_lost(
    store: ObjectStore, proxy: S3Proxy, big_chunk: bytes, if_absent: bool
) -> None:
    content = [big_chunk] * (68 if if_absent else 12)
    proxy.spoil("POST", "uploadId=", Spoil("lost"))
    info = store.put("parts", content, if_absent=if_absent)
    assert proxy.count("POST", "uploadId=") == 2
    assert store.stat("parts").size_bytes == info.size_bytes == len(content) * MIB


def test_a_long_put_if_absent_refuses_at_completion(store: ObjectStore, proxy: S3Proxy, big_chunk: bytes) -> None:
    store.put("parts", [b"first"])
    with pytest.raises(ObjectExists):
        store.put("parts", [big_chunk] * 68, if_absent=True)
    assert b"".join(store.get("parts")) == b"first"
    assert proxy.count("DELETE", "uploadId=") == 1


def test_put_if_absent_up_to_64_mib_is_one_request(store: ObjectStore, proxy: S3Proxy, big_chunk: bytes) -> None:
    store.put("whole", [big_chunk] * 60, if_absent=True)
    assert proxy.count("POST", "uploads") == 0
    assert proxy.count("PUT", "whole") == 1
    assert b"".join(store.get("whole")) == big_chunk * 60


def test_a_broken_read_goes_on_where_it_broke(store: ObjectStore, proxy: S3Proxy, content: bytes) -> None:
    store.put("long", [content])
    for keep in (3 * MIB + 17, 1, 2 * MIB):
        proxy.spoil("GET", "long", Spoil("cut", keep=keep))
    assert b"".join(store.get("long")) == content
    assert proxy.count("GET", "long") == 4

    proxy.spoil("GET", "long", Spoil("cut", keep=10))
    proxy.spoil("GET", "long", Spoil("status"))
    assert b"".join(store.get("long", offset=5, length=MIB)) == content[5 : MIB + 5]
    assert proxy.unused() == 0


def test_a_read_that_breaks_again_and_again_fails(store: ObjectStore, proxy: S3Proxy, content: bytes) -> None:
    store.put("long", [content])
    proxy.spoil("GET", "long", Spoil("cut", keep=0), times=10)
    with pytest.raises(StoreUnavailable) as caught:
        b"".join(store.get("long"))
    assert caught.value.transient


def test_a_read_is_not_spliced_from_two_versions(store: ObjectStore, proxy: S3Proxy, content: bytes) -> None:
    store.put("long", [content])
    proxy.spoil("GET", "long", Spoil("cut", keep=2 * MIB))
    reading = store.get("long")
    next(reading)
    store.put("long", [content[::-1]])
    with pytest.raises(IntegrityError):
        b"".join(reading)


def test_a_server_that_ignores_ranges(store: ObjectStore, proxy: S3Proxy, content: bytes) -> None:
    store.put("long", [content])
    proxy.spoil("GET", "long", Spoil("status", status=200, code="any other bytes"))  # 200 instead of 206
    with pytest.raises(StoreError, match="honour ranges"):
        b"".join(store.get("long", offset=5, length=10))


@pytest.mark.parametrize(
    ("status", "code", "error", "transient"),
    [
        (403, "AccessDenied", StoreDenied, False),
        (403, "RequestTimeTooSkewed", StoreDenied, False),
        (400, "ExpiredToken", StoreDenied, False),
        (401, "Unauthorized", StoreDenied, False),
        (404, "NoSuchBucket", StoreUnavailable, False),
        (404, "NoSuchKey", ObjectNotFound, False),
        (404, "SomethingElse", StoreError, False),
        (409, "ConditionalRequestConflict", StoreUnavailable, True),
        (400, "RequestTimeout", StoreUnavailable, True),
        (400, "BadDigest", StoreUnavailable, True),
        (429, "TooManyRequests", StoreUnavailable, True),
        (500, "InternalError", StoreUnavailable, True),
        (501, "NotImplemented", StoreError, False),
        (502, "", StoreUnavailable, True),
        (503, "SlowDown", StoreUnavailable, True),
        (507, "InsufficientStorage", NoSpace, False),
        (500, "XMinioStorageFull", NoSpace, False),
        (403, "QuotaExceeded", NoSpace, False),
    ],
)
def test_errors_are_classified(
    store: ObjectStore, proxy: S3Proxy, status: int, code: str, error: type[StoreError], transient: bool
) -> None:
    spoil = Spoil("status", status=status, code=code)
    proxy.spoil("PUT", "name", spoil)
    with pytest.raises(StoreError) as caught:
        store.put("name", [b"x"])
    assert type(caught.value) is error or (error is StoreError and not isinstance(caught.value, StoreUnavailable))
    assert caught.value.transient == transient
    if code == "RequestTimeTooSkewed":
        assert "clock" in (caught.value.hint or "")


def test_a_dropped_connection_is_transient(store: ObjectStore, proxy: S3Proxy) -> None:
    for method, part, attempt in (
        ("PUT", "name", lambda: store.put("name", [b"x"])),
        ("GET", "name", lambda: next(store.get("name"))),
        ("HEAD", "name", lambda: store.stat("name")),
        ("GET", "list-type", lambda: next(store.list(""))),
        ("POST", "delete", lambda: store.delete(["name", "other"])),
        ("DELETE", "name", lambda: store.delete(["name"])),
    ):
        proxy.spoil(method, part, Spoil("drop"))
        with pytest.raises(StoreUnavailable) as caught:
            attempt()
        assert caught.value.transient
    assert proxy.unused() == 0


def test_a_missing_bucket_is_not_a_missing_object(opened: Opener) -> None:
    store = opened(bucket="no-such-bucket")
    for attempt in (lambda: next(store.get("a")), lambda: store.stat("a"), lambda: next(store.list(""))):
        with pytest.raises(StoreUnavailable, match="bucket does not exist") as caught:
            attempt()
        assert not caught.value.transient


def test_wrong_secret_is_a_denial_and_not_shown(opened: Opener) -> None:
    store = opened(secret_key=Secret("hunter2hunter2"))
    with pytest.raises(StoreDenied) as caught:
        store.put("a", [b"x"])
    assert "hunter2" not in f"{caught.value} {caught.value.hint}"
    with pytest.raises(StoreDenied):
        store.stat("a")


def test_no_server_and_silent_server_are_transient(opened: Opener) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(StoreUnavailable) as caught:
            opened(endpoint=endpoint).stat("a")
        assert caught.value.transient
        silent.listen()
        with pytest.raises(StoreUnavailable) as caught:
            opened(endpoint=endpoint, read_timeout_s=0.3).stat("a")
        assert caught.value.transient


def test_bad_options_are_configuration_errors(opened: Opener, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        opened(profile="no-such-profile")
    with pytest.raises(ConfigError):
        opened(endpoint="not a url")
    with pytest.raises(ConfigError):
        opened(part_size_bytes=MIB)
    with pytest.raises(ConfigError):
        opened(secret_key=None)


def test_a_server_that_ignores_the_condition_is_found_out(store: ObjectStore, proxy: S3Proxy) -> None:
    class Ignoring:
        """put-if-absent as such servers have it."""

        def __getattr__(self, name: str) -> object:
            return getattr(store, name)

        def put(self, name: str, body: list[bytes], *, if_absent: bool = False) -> object:
            return store.put(name, body)

    assert not probe_if_absent(Ignoring())  # type: ignore[arg-type]
    assert probe_if_absent(store)
    assert list(store.list("")) == []


def test_deletes_one_by_one_where_batches_are_unknown(store: ObjectStore, proxy: S3Proxy) -> None:
    made = [f"d/{number}" for number in range(5)]
    for name in made:
        store.put(name, [b"x"])
    proxy.spoil("POST", "delete", Spoil("status", status=501, code="NotImplemented"))
    proxy.spoil("DELETE", "d/2", Spoil("status", status=403, code="AccessDenied"))
    with pytest.raises(StoreDenied, match="d/2"):
        store.delete(made)
    assert [info.name for info in store.list("")] == ["d/2"]


def test_retrying_outlasts_an_outage(store: ObjectStore, proxy: S3Proxy) -> None:
    retrying = Retrying(store, RetryPolicy(sleep=lambda delay_s: None))
    proxy.spoil("PUT", "name", Spoil("drop"), times=3)
    proxy.spoil("PUT", "name", Spoil("lost"))
    retrying.put("name", [b"mine"], if_absent=True)
    assert proxy.count("PUT", "name") == 5
    with pytest.raises(ObjectExists):
        retrying.put("name", [b"other"], if_absent=True)
    proxy.spoil("GET", "name", Spoil("status"), times=4)
    assert b"".join(retrying.get("name")) == b"mine"


@pytest.mark.parametrize("size", [3, 40, 70], ids=["small", "one request", "parts"])
@pytest.mark.parametrize("kind", ["drop", "lost"])
def test_a_body_that_comes_once_outlasts_an_outage(
    s3_server: S3Endpoint, proxy: S3Proxy, big_chunk: bytes, size: int, kind: Literal["drop", "lost"]
) -> None:
    """A pack is such a body: the store must not fail a whole backup for a few refused requests."""
    settings = s3_server.settings(endpoint=proxy.endpoint, part_size_bytes=32 * MIB)
    store = open_store(f"s3://{s3_server.bucket}/once/{os.urandom(8).hex()}", StoreSettings(s3=settings))
    part, drops = ("partNumber=1", 3) if size > 64 else ("name", 1)
    proxy.spoil("PUT", part, Spoil("drop"), times=drops)
    proxy.spoil("PUT", part, Spoil(kind))
    store.put("name", (chunk for chunk in [big_chunk] * size), if_absent=True)
    assert proxy.count("PUT", part) == drops + 2
    assert b"".join(store.get("name")) == big_chunk * size
    store.close()


def test_a_body_that_comes_once_and_meets_another_object(s3_server: S3Endpoint, proxy: S3Proxy, opened: Opener) -> None:
    name = f"once/{os.urandom(8).hex()}"
    settings = s3_server.settings(endpoint=proxy.endpoint)
    store = open_store(f"s3://{s3_server.bucket}", StoreSettings(s3=settings))
    store.put(name, [b"others"])
    proxy.spoil("PUT", name, Spoil("drop"))
    with pytest.raises(ObjectExists):
        store.put(name, iter([b"mine 6"]), if_absent=True)
    assert b"".join(store.get(name)) == b"others"
    store.close()


def test_parts_in_flight_bound_memory_across_uploads(opened: Opener, big_chunk: bytes) -> None:
    """Eight uploads at once through one place all get done, each whole."""
    store = opened(parts_in_flight=1)
    contents = {f"many/{number}": bytes([number]) + big_chunk * 7 for number in range(8)}
    threads = [threading.Thread(target=store.put, args=(name, [body])) for name, body in contents.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {info.name: b"".join(store.get(info.name)) for info in store.list("")} == contents
