"""Stores: named immutable objects in a directory or a bucket (contract: ``pitr.store.base``)."""

from pitr.store.base import ObjectInfo, ObjectStore, StoreCaps
from pitr.store.factory import open_store, probe_if_absent
from pitr.store.memory import MemoryStore
from pitr.store.names import InvalidName, check_name, check_prefix
from pitr.store.posix import PosixStore
from pitr.store.retrying import Retrying, RetryPolicy
from pitr.store.settings import S3Settings, StoreSettings
from pitr.store.wrappers import Counting, Counts, ReadOnly, Throttled, TokenBucket

__all__ = [
    "Counting",
    "Counts",
    "InvalidName",
    "MemoryStore",
    "ObjectInfo",
    "ObjectStore",
    "PosixStore",
    "ReadOnly",
    "RetryPolicy",
    "Retrying",
    "S3Settings",
    "StoreCaps",
    "StoreSettings",
    "Throttled",
    "TokenBucket",
    "check_name",
    "check_prefix",
    "open_store",
    "probe_if_absent",
]
