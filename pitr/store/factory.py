"""From a URL to a store, wrapped as its settings say."""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

from pitr.core.errors import ConfigError, ObjectExists, StoreError
from pitr.store.base import ObjectStore
from pitr.store.names import InvalidName, check_name
from pitr.store.posix import PosixStore
from pitr.store.retrying import Retrying, RetryPolicy
from pitr.store.settings import StoreSettings

if TYPE_CHECKING:
    from pitr.store.memory import MemoryStore

MAX_PREFIX_BYTES = 120
"""So that prefix and name stay below the 1024 bytes of an S3 key."""

_memories: dict[str, MemoryStore] = {}
_memories_lock = threading.Lock()


def open_store(url: str, settings: StoreSettings | None = None) -> ObjectStore:
    """``file:///path``, ``s3://bucket/prefix`` or ``memory://name`` (one store for each name in this process).

    Nothing is contacted or created yet. Raises ConfigError.
    """
    settings = settings or StoreSettings()
    store = _driver(url, settings)
    if settings.upload_rate or settings.download_rate:
        store = _throttled(store, settings.upload_rate, settings.download_rate)
    if settings.retry_deadline_s > 0:
        store = Retrying(store, RetryPolicy(deadline_s=settings.retry_deadline_s))
    if settings.read_only:
        from pitr.store.wrappers import ReadOnly

        store = ReadOnly(store)
    return store


def probe_if_absent(store: ObjectStore) -> bool:
    """Does put-if-absent do what it says? Puts a scratch object ``probe/<random>`` twice and removes it where that is
    allowed. False: the server ignores the condition. Other errors are raised."""
    name = f"probe/{os.urandom(12).hex()}"
    first, second = b"first " + os.urandom(8), b"second " + os.urandom(8)
    try:
        store.put(name, [first], if_absent=True)
        try:
            store.put(name, [second], if_absent=True)
        except ObjectExists:
            return b"".join(store.get(name)) == first
        return False
    finally:
        with contextlib.suppress(StoreError):
            store.delete([name])


def _driver(url: str, settings: StoreSettings) -> ObjectStore:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise ConfigError(f"not a URL of a store: {url!r}", detail=str(error)) from error
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise ConfigError(
            f"the URL of a store holds nothing but scheme, place and path: {parts.scheme}://...{parts.path}",
            hint="options and credentials have their own settings",
        )
    match parts.scheme:
        case "file":
            return _posix(url, parts, settings)
        case "s3":
            return _s3(url, parts, settings)
        case "memory":
            return _memory(parts.netloc)
    raise ConfigError(f"not a URL of a store: {url!r}", hint="write file:///absolute/path or s3://bucket/prefix")


def _posix(url: str, parts: SplitResult, settings: StoreSettings) -> ObjectStore:
    path = Path(unquote(parts.path))
    if parts.netloc not in ("", "localhost") or not path.is_absolute() or path == Path("/"):
        raise ConfigError(f"not the URL of a directory: {url!r}", hint="write file:///absolute/path")
    return PosixStore(path, group_readable=settings.group_readable)


def _s3(url: str, parts: SplitResult, settings: StoreSettings) -> ObjectStore:
    prefix = parts.path.strip("/")
    if not parts.netloc or len(prefix) > MAX_PREFIX_BYTES:
        raise ConfigError(f"not the URL of a bucket: {url!r}", hint="write s3://bucket/prefix")
    try:
        prefix = check_name(prefix) + "/" if prefix else ""
    except InvalidName as error:
        raise ConfigError(f"not a prefix of an S3 repository: {url!r}", detail=error.detail) from error
    from pitr.store.s3 import S3Store  # boto3 takes its time to load

    return S3Store(replace(settings.s3, bucket=parts.netloc, prefix=prefix, resend_s=settings.retry_deadline_s))


def _memory(name: str) -> ObjectStore:
    from pitr.store.memory import MemoryStore

    with _memories_lock:
        return _memories.setdefault(name, MemoryStore(name))


def _throttled(store: ObjectStore, up: int | None, down: int | None) -> ObjectStore:
    from pitr.store.wrappers import Throttled, TokenBucket

    return Throttled(store, up=TokenBucket(up) if up else None, down=TokenBucket(down) if down else None)
