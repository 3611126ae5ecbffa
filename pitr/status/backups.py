"""Lists of backups, and everything known of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pitr.core.ids import match_id
from pitr.pg.lsn import Lsn
from pitr.repo.catalog import load_backups
from pitr.repo.identity import Identity, list_identities
from pitr.repo.manifest import BackupManifest, Sizes
from pitr.repo.repository import Repository
from pitr.repo.walruns import ArchivedWal, Run, read_archived_wal


@dataclass(frozen=True, slots=True)
class Backup:
    """One committed base backup, as listed. ``usable``: the WAL that makes it consistent is in the archive;
    ``problem`` says what is missing."""

    id: str
    type: str
    base_id: str | None
    label: str | None
    started_at: datetime
    ended_at: datetime
    timeline: int
    start_lsn: Lsn
    stop_lsn: Lsn
    system_id: str
    version: str
    sizes: Sizes
    bad_pages: int
    usable: bool
    problem: str | None


@dataclass(frozen=True, slots=True)
class BackupList:
    """Oldest first, all generations (system ids) of the cluster, the older generation first."""

    repository: str
    cluster: str
    backups: tuple[Backup, ...]


@dataclass(frozen=True, slots=True)
class BackupDetails:
    backup: Backup
    manifest: BackupManifest
    missing_segments: tuple[str, ...]
    """First and last of each gap, as ``FIRST`` or ``FIRST to LAST``."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One system id of a cluster: its committed backups and its archive, read once."""

    identity: Identity
    manifests: tuple[BackupManifest, ...]
    wal: ArchivedWal


def read_generation(repository: Repository, identity: Identity) -> Generation:
    return Generation(
        identity,
        tuple(load_backups(repository, identity.names)),
        read_archived_wal(repository, identity.names, identity.segment_size_bytes),
    )


def list_backups(repository: Repository, cluster: str) -> BackupList:
    """All committed backups. Raises StoreError, ManifestInvalid."""
    rows: list[Backup] = []
    for identity in list_identities(repository, cluster):
        generation = read_generation(repository, identity)
        rows += [backup_row(manifest, generation.wal) for manifest in generation.manifests]
    return BackupList(repository.name, cluster, tuple(rows))


def show_backup(repository: Repository, cluster: str, text: str) -> BackupDetails:
    """The backup that ``text`` (id, unique part of one, label, latest, oldest) means.

    Raises UnknownName, AmbiguousName, NoSuitableBackup.
    """
    found: dict[str, tuple[BackupManifest, ArchivedWal]] = {}
    for identity in list_identities(repository, cluster):
        generation = read_generation(repository, identity)
        found |= {manifest.id: (manifest, generation.wal) for manifest in generation.manifests}
    manifest, wal = found[match_id(text, sorted(found), labels=_labels([each for each, _ in found.values()]))]
    gaps = wal.missing(manifest.wal.timeline_history(), manifest.wal.start_lsn, manifest.wal.stop_lsn)
    return BackupDetails(backup_row(manifest, wal), manifest, tuple(map(gap_text, gaps)))


def backup_row(manifest: BackupManifest, wal: ArchivedWal) -> Backup:
    gaps = wal.missing(manifest.wal.timeline_history(), manifest.wal.start_lsn, manifest.wal.stop_lsn)
    return Backup(
        id=manifest.id,
        type=manifest.type,
        base_id=manifest.base_id,
        label=manifest.label,
        started_at=manifest.started_at,
        ended_at=manifest.ended_at,
        timeline=manifest.wal.timeline,
        start_lsn=manifest.wal.start_lsn,
        stop_lsn=manifest.wal.stop_lsn,
        system_id=manifest.system_id,
        version=_version(manifest.server.version_num),
        sizes=manifest.sizes,
        bad_pages=manifest.bad_page_count,
        usable=not gaps,
        problem=f"WAL is missing: {', '.join(map(gap_text, gaps))}" if gaps else None,
    )


def gap_text(gap: Run) -> str:
    return str(gap.first_segment) if gap.count == 1 else f"{gap.first_segment} to {gap.last_segment}"


def _labels(manifests: Sequence[BackupManifest]) -> Mapping[str, str]:
    """The newest backup of each label."""
    return {manifest.label: manifest.id for manifest in manifests if manifest.label}


def _version(version_num: int) -> str:
    return f"{version_num // 10000}.{version_num % 10000}"
