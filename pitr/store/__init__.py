"""Stores: named immutable objects in a directory or a bucket (contract: ``pitr.store.base``).

What only some programs need is imported from its own module: ``wrappers``, ``memory``, ``s3``.
"""

from pitr.store.base import ObjectInfo, ObjectStore, StoreCaps
from pitr.store.factory import open_store, probe_if_absent
from pitr.store.names import InvalidName, check_name, check_prefix
from pitr.store.posix import PosixStore
from pitr.store.retrying import Retrying, RetryPolicy
from pitr.store.settings import S3Settings, StoreSettings

__all__ = [
    "InvalidName",
    "ObjectInfo",
    "ObjectStore",
    "PosixStore",
    "RetryPolicy",
    "Retrying",
    "S3Settings",
    "StoreCaps",
    "StoreSettings",
    "check_name",
    "check_prefix",
    "open_store",
    "probe_if_absent",
]
