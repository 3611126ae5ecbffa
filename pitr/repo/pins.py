"""Pins: what a running backup, restore or verify depends on, so that expire leaves it alone."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pitr.codec import ObjectKind
from pitr.core.documents import to_json
from pitr.core.errors import ObjectNotFound, StoreError
from pitr.repo import names
from pitr.repo.documents import read_as
from pitr.repo.objects import put_document, read_document
from pitr.repo.repository import Repository

FORMAT = 1
Purpose = Literal["backup", "restore", "verify"]


@dataclass(frozen=True, slots=True)
class Pin:
    format: int
    id: str
    purpose: Purpose
    system_id: str
    backup_id: str
    """The backup that is read: the base of a running backup, or what is restored. Empty: none (a full backup)."""
    own_id: str
    """The backup that is being made; empty for restore and verify."""
    host: str
    pid: int
    created_at: datetime


@contextlib.contextmanager
def pinned(
    repository: Repository,
    cluster: str,
    purpose: Purpose,
    *,
    system_id: int,
    backup_id: str,
    own_id: str,
    now: datetime,
) -> Iterator[Pin]:
    """Hold a pin while the block runs. It is removed afterwards where the store lets us; else its age voids it."""
    pin_id = f"{purpose}-{own_id or backup_id}-{os.urandom(3).hex()}"
    pin = Pin(FORMAT, pin_id, purpose, str(system_id), backup_id, own_id, socket.gethostname(), os.getpid(), now)
    name = names.pin(cluster, pin_id)
    put_document(repository.store, repository.keyring, name, ObjectKind.PIN, json.dumps(to_json(pin)).encode())
    try:
        yield pin
    finally:
        with contextlib.suppress(StoreError):
            repository.store.delete([name])


def list_pins(repository: Repository, cluster: str) -> list[Pin]:
    pins: list[Pin] = []
    for info in repository.store.list(names.pin_prefix(cluster)):
        with contextlib.suppress(ObjectNotFound):
            data = read_document(repository.store, repository.keyring, info.name, ObjectKind.PIN)
            pins.append(read_as(Pin, data, info.name, FORMAT))
    return pins
