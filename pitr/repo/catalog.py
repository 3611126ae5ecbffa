"""Which backups there are, and what is in them."""

from __future__ import annotations

from collections.abc import Iterator

from pitr.codec import ObjectKind
from pitr.core.errors import NoSuitableBackup, ObjectNotFound
from pitr.repo.manifest import BackupManifest, load_manifest
from pitr.repo.mapfile import decode_map
from pitr.repo.maps import BackupMap
from pitr.repo.names import HistoryNames, is_backup_id
from pitr.repo.objects import read_document, read_referenced
from pitr.repo.packs import pack_params
from pitr.repo.relations import RelationMaps, load_relations
from pitr.repo.repository import Repository

_PACKS_LISTED = 200
"""Packs of one backup that are passed over by reading on; behind them a new listing is cheaper."""


def backup_ids(repository: Repository, names: HistoryNames) -> list[str]:
    """Ids of the committed backups, oldest first."""
    return [backup_id for backup_id, committed in _scan(repository, names) if committed]


def uncommitted_ids(repository: Repository, names: HistoryNames) -> list[str]:
    """Ids that have objects but no ``backup.json``: running, or left by a killed backup."""
    return [backup_id for backup_id, committed in _scan(repository, names) if not committed]


def _scan(repository: Repository, names: HistoryNames) -> Iterator[tuple[str, bool]]:
    prefix = names.base_prefix
    after = ""
    while True:
        current, committed, packs = "", False, 0
        restart = False
        for info in repository.store.list(prefix, after=after):
            backup_id, _slash, rest = info.name[len(prefix) :].partition("/")
            if not is_backup_id(backup_id):
                continue
            if backup_id != current:
                if current:
                    yield current, committed
                current, committed, packs = backup_id, False, 0
            committed = committed or rest == "backup.json"
            packs += rest.startswith("pack/")
            if packs > _PACKS_LISTED:
                after, restart = names.backup(backup_id).pack_prefix + "\x7f", True
                break
        if not restart:
            if current:
                yield current, committed
            return
        # what sorts behind pack/ (relations) tells nothing about the commit: backup.json sorts before
        yield current, committed
        after = names.backup(current).prefix + "\x7f"


def load_backup(repository: Repository, names: HistoryNames, backup_id: str) -> BackupManifest:
    """Raises NoSuitableBackup when there is none of that id."""
    name = names.backup(backup_id).manifest
    try:
        data = read_document(repository.store, repository.keyring, name, ObjectKind.MANIFEST)
    except ObjectNotFound as error:
        raise NoSuitableBackup(f"there is no backup {backup_id}", hint='"pitr list" shows the backups') from error
    return load_manifest(data, name)


def load_backups(repository: Repository, names: HistoryNames) -> list[BackupManifest]:
    """All committed backups of one history, oldest first; one deleted meanwhile is passed over."""
    found: list[BackupManifest] = []
    for backup_id in backup_ids(repository, names):
        try:
            found.append(load_backup(repository, names, backup_id))
        except NoSuitableBackup:
            continue
    return found


def load_map(repository: Repository, manifest: BackupManifest) -> BackupMap:
    """The map that this backup's manifest names, verified."""
    chunks = read_referenced(repository.store, repository.keyring, manifest.map, ObjectKind.MAP)
    return decode_map(chunks, manifest.map.name, pack_params)


def load_relation_maps(repository: Repository, manifest: BackupManifest) -> RelationMaps | None:
    if manifest.relations is None:
        return None
    chunks = read_referenced(repository.store, repository.keyring, manifest.relations, ObjectKind.RELATIONS)
    return load_relations(b"".join(chunks), manifest.relations.name)
