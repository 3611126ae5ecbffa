"""The stores that the conformance suite runs over."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import botocore.session
import pytest
from moto.server import ThreadedMotoServer

from pitr.core.secrets import Secret
from pitr.store import (
    ObjectStore,
    PosixStore,
    Retrying,
    S3Settings,
    StoreSettings,
    open_store,
)
from pitr.store.memory import MemoryStore
from pitr.store.wrappers import Counting, Throttled, TokenBucket
from tests.support.faulty_store import FaultyStore
from tests.support.s3server import S3Endpoint

SMALL_PARTS = 5 << 20


@pytest.fixture(scope="session")
def moto_settings() -> Iterator[S3Settings]:
    """moto as a server: its answers are S3's, its speed, atomicity and order of listing nothing to go by."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    session = botocore.session.Session()
    client = session.create_client(
        "s3", region_name="us-east-1", endpoint_url=endpoint, aws_access_key_id="k", aws_secret_access_key="s"
    )
    client.create_bucket(Bucket="bucket")
    client.close()
    yield S3Settings(
        endpoint=endpoint,
        access_key=Secret("k"),
        secret_key=Secret("s"),
        part_size_bytes=SMALL_PARTS,
        region="us-east-1",
    )
    server.stop()


def s3_store(settings: S3Settings, bucket: str) -> ObjectStore:
    plain = StoreSettings(s3=settings, retry_deadline_s=0)
    return open_store(f"s3://{bucket}/t/{uuid.uuid4().hex}", plain)


DRIVERS = ["memory", "posix", "moto", pytest.param("seaweedfs", marks=pytest.mark.s3)]
WRAPPED = ["memory+wrappers", "posix+wrappers", pytest.param("seaweedfs+wrappers", marks=pytest.mark.s3)]


@pytest.fixture(params=[*DRIVERS, *WRAPPED])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ObjectStore]:
    driver, _, wrapped = request.param.partition("+")
    opened: ObjectStore
    match driver:
        case "memory":
            opened = MemoryStore()
        case "posix":
            opened = PosixStore(tmp_path / "repository")
        case "moto":
            opened = s3_store(request.getfixturevalue("moto_settings"), "bucket")
        case _:
            server: S3Endpoint = request.getfixturevalue("s3_server")
            opened = s3_store(server.settings(part_size_bytes=SMALL_PARTS), server.bucket)
    if wrapped:
        fast = TokenBucket(1e12), TokenBucket(1e12)
        opened = Retrying(Counting(Throttled(FaultyStore(opened), up=fast[0], down=fast[1])))
    yield opened
    opened.close()


@pytest.fixture
def big_chunk() -> bytes:
    """A mebibyte that compresses badly and repeats nowhere."""
    return os.urandom(1 << 20)
