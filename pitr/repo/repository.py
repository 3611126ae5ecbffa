"""Descriptor and key slots; a ``Repository`` is a store that was opened: its keyring and nothing more."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pitr.codec import DataKey, Keyring, KeySecret, OtherMethod, new_data_key, unwrap_slot, wrap_slot
from pitr.core.documents import to_json
from pitr.core.errors import (
    ConfigError,
    IntegrityError,
    KeyUnavailable,
    ManifestInvalid,
    ObjectExists,
    ObjectNotFound,
    PitrError,
    RepositoryMissing,
)
from pitr.repo import names
from pitr.repo.documents import read_as
from pitr.store.base import ObjectStore

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Descriptor:
    format: int
    repository_id: str
    cipher: str
    compression: str
    created_at: datetime
    if_absent: bool = True
    """What the probe found at init: does the store honour put-if-absent?"""

    @property
    def sealed(self) -> bool:
        return self.cipher != "none"


@dataclass(frozen=True, slots=True)
class Repository:
    name: str
    store: ObjectStore
    keyring: Keyring
    descriptor: Descriptor
    level: int = 3


def read_descriptor(store: ObjectStore) -> Descriptor | None:
    """None when there is no repository (an authoritative answer); an outage raises."""
    try:
        data = b"".join(store.get(names.DESCRIPTOR))
    except ObjectNotFound:
        return None
    return read_as(Descriptor, data, names.DESCRIPTOR, FORMAT)


def create_repository(
    store: ObjectStore, secrets: Sequence[KeySecret], *, now: datetime, if_absent_works: bool
) -> tuple[Descriptor, bool]:
    """Make the repository, with one data key wrapped for each of ``secrets`` (none: unencrypted). Idempotent.

    Returns the descriptor and whether it was made by this call. Two at once: the one whose descriptor is there wins;
    the other one's key slots stay behind and open nothing (they are bound to another repository id).
    """
    found = read_descriptor(store)
    if found is not None:
        return found, False
    import uuid  # made once in the life of a repository

    descriptor = Descriptor(
        FORMAT, str(uuid.uuid4()), "aes-256-gcm" if secrets else "none", "zstd", now, if_absent_works
    )
    if secrets:
        data_key = new_data_key()
        for secret in secrets:
            slot_id, document = wrap_slot(data_key, descriptor.repository_id, secret)
            store.put(names.key_slot(slot_id), [document], if_absent=True)
    try:
        store.put(names.DESCRIPTOR, [json.dumps(to_json(descriptor), indent=1).encode()], if_absent=True)
    except ObjectExists:
        found = read_descriptor(store)
        if found is None:
            raise
        return found, found.repository_id == descriptor.repository_id
    return descriptor, True


def open_repository(
    name: str, store: ObjectStore, secret: KeySecret | None, *, level: int = 3, repository_id: str | None = None
) -> Repository:
    """Open with the configured key-encryption secret (None: configured as unencrypted).

    The configured mode decides, never the descriptor: with a key, an unencrypted repository is refused, and the
    other way round. Raises RepositoryMissing, KeyUnavailable, ManifestInvalid.
    """
    descriptor = read_descriptor(store)
    if descriptor is None:
        raise RepositoryMissing(f"there is no repository at {store.url}", hint='"pitr init" makes one')
    if repository_id is not None and descriptor.repository_id != repository_id:
        raise ConfigError(
            f"the repository at {store.url} is another one than configured",
            detail=f"its id is {descriptor.repository_id}, repository_id says {repository_id}",
        )
    if secret is None:
        if descriptor.sealed:
            raise KeyUnavailable(
                f"the repository at {store.url} is encrypted and no key is configured",
                hint="set key_file, passphrase_file or key_command for it (PITR_KEY_FILE)",
            )
        return Repository(name, store, Keyring.unencrypted(), descriptor, level)
    if not descriptor.sealed:
        raise ManifestInvalid(
            f"a key is configured, but the repository at {store.url} says that it is not encrypted",
            hint="if it was made so on purpose, set encryption = false; otherwise somebody changed pitr.json",
        )
    *older, current = unlock(store, descriptor, secret)
    return Repository(name, store, Keyring(current, older), descriptor, level)


def unlock(store: ObjectStore, descriptor: Descriptor, secret: KeySecret) -> list[DataKey]:
    """Every data key that ``secret`` opens, the newest (by the store's clock) last. Other slots, damaged ones too, are
    passed over as long as one opens. Raises KeyUnavailable, IntegrityError."""
    keys: dict[str, DataKey] = {}
    refused: PitrError | None = None
    for info in sorted(store.list(names.KEYS_PREFIX), key=lambda slot: slot.modified):
        try:
            key = unwrap_slot(b"".join(store.get(info.name)), descriptor.repository_id, secret)
        except (KeyUnavailable, IntegrityError) as error:
            if refused is None or isinstance(refused, OtherMethod):
                refused = error  # the slot that is meant for this kind of secret says what is wrong
            continue
        keys[key.id] = key
    if not keys:
        raise refused or KeyUnavailable(
            f"the repository at {store.url} has no key slot", hint="restore its keys/ objects from a copy"
        )
    return list(keys.values())
