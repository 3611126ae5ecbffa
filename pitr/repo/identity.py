"""``identity.json``: which PostgreSQL clusters (system ids) may write below a cluster name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime

from pitr.codec import ObjectKind
from pitr.core.documents import to_json
from pitr.core.errors import HistoryMismatch, ObjectExists, ObjectNotFound
from pitr.repo.documents import read_as
from pitr.repo.names import HistoryNames
from pitr.repo.objects import put_document, read_document
from pitr.repo.repository import Repository

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Identity:
    format: int
    cluster: str
    system_id: str
    major: int
    segment_size_bytes: int
    block_size: int
    created_at: datetime

    @property
    def names(self) -> HistoryNames:
        return HistoryNames(self.cluster, int(self.system_id))


def read_identity(repository: Repository, names: HistoryNames) -> Identity:
    """Raises ObjectNotFound when this system id is not known under this cluster name."""
    data = read_document(repository.store, repository.keyring, names.identity, ObjectKind.IDENTITY)
    return read_as(Identity, data, names.identity, FORMAT)


def list_identities(repository: Repository, cluster: str) -> list[Identity]:
    """All generations of a cluster, oldest first; the last one is the current."""
    found: list[Identity] = []
    after = ""
    while True:  # skip-scan: one listing per system id, not one page per thousand WAL segments
        info = next(repository.store.list(f"{cluster}/", after=after), None)
        if info is None:
            break
        part = info.name.split("/")[1]
        after = f"{cluster}/{part}/\x7f"
        if part.isdecimal():
            names = HistoryNames(cluster, int(part))
            try:
                found.append(read_identity(repository, names))
            except ObjectNotFound:
                continue
    return sorted(found, key=lambda identity: (identity.created_at, int(identity.system_id)))


def list_clusters(repository: Repository) -> list[str]:
    """Names of the clusters that have anything in the repository."""
    clusters: list[str] = []
    after = ""
    while (info := next(repository.store.list("", after=after), None)) is not None:
        head, found, _rest = info.name.partition("/")
        after = f"{head}/\x7f" if found else info.name
        if found and head not in ("keys", "probe"):
            clusters.append(head)
    return clusters


def current_identity(repository: Repository, cluster: str) -> Identity | None:
    identities = list_identities(repository, cluster)
    return identities[-1] if identities else None


def ensure_identity(repository: Repository, identity: Identity, *, adopt: bool = False) -> bool:
    """Make sure that this system id may write under its cluster name. True when it was recorded by this call.

    The first system id of a name is recorded; another one is refused unless ``adopt``. Raises HistoryMismatch.
    """
    try:
        known = read_identity(repository, identity.names)
    except ObjectNotFound:
        pass
    else:
        _check_same_shape(known, identity)
        return False
    others = list_identities(repository, identity.cluster)
    if others and not adopt:
        raise HistoryMismatch(
            f'cluster "{identity.cluster}" in the repository is another PostgreSQL cluster',
            detail=f"system identifier {identity.system_id} here, {others[-1].system_id} in the repository",
            hint='after pg_upgrade or initdb on purpose: "pitr init --adopt"; else check --cluster and --repo',
        )
    document = json.dumps(to_json(identity), indent=1).encode()
    try:
        put_document(repository.store, repository.keyring, identity.names.identity, ObjectKind.IDENTITY, document)
    except ObjectExists:
        _check_same_shape(read_identity(repository, identity.names), identity)
        return False
    return True


def _check_same_shape(known: Identity, found: Identity) -> None:
    if (known.segment_size_bytes, known.block_size) != (found.segment_size_bytes, found.block_size):
        raise HistoryMismatch(
            f"system identifier {found.system_id} has another WAL segment or block size in the repository",
            detail=f"{known.segment_size_bytes}/{known.block_size} there, "
            f"{found.segment_size_bytes}/{found.block_size} here",
        )
