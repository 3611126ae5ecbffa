"""``backup.json``: what is known of a base backup (FORMAT.md). Written last; its presence is the backup."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from pitr.core.documents import to_json
from pitr.pg.lsn import Lsn
from pitr.pg.timelines import History, HistoryEntry
from pitr.repo.documents import read_as
from pitr.repo.objects import ObjectRef

FORMAT = 1


@dataclass(frozen=True, slots=True)
class SwitchPoint:
    """A timeline of the backup's history and the LSN at which it was left."""

    timeline: int
    switch_lsn: Lsn


@dataclass(frozen=True, slots=True)
class WalRange:
    """``start_lsn`` is the redo of the backup's checkpoint; recovery from the backup is consistent at ``stop_lsn``."""

    timeline: int
    start_lsn: Lsn
    stop_lsn: Lsn
    history: tuple[SwitchPoint, ...]
    first_segment: str
    last_segment: str
    min_recovery_lsn: Lsn | None = None
    """Only of a backup taken from a standby: its pg_control's minimum recovery point."""

    def timeline_history(self) -> History:
        return History(self.timeline, tuple(HistoryEntry(p.timeline, p.switch_lsn, "") for p in self.history))


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a recovering server must not have lower (CheckRequiredParameterValues, xlogrecovery.c)."""

    max_connections: int
    max_worker_processes: int
    max_wal_senders: int
    max_prepared_transactions: int
    max_locks_per_transaction: int


@dataclass(frozen=True, slots=True)
class DatabaseRecord:
    oid: int
    name: str
    is_template: bool
    allow_connections: bool
    encoding: str
    locale_provider: str
    collate: str
    ctype: str
    collation_version: str | None
    extensions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TablespaceRecord:
    oid: int
    name: str
    location: str


@dataclass(frozen=True, slots=True)
class ServerRecord:
    version_num: int
    major: int
    catalog_version: int
    block_size: int
    segment_size_bytes: int
    data_checksums: bool
    wal_log_hints: bool
    full_page_writes: bool
    wal_level: str
    from_standby: bool
    parameters: Parameters
    shared_preload_libraries: str
    data_directory: str
    config_file: str
    hba_file: str
    ident_file: str
    databases: tuple[DatabaseRecord, ...]
    tablespaces: tuple[TablespaceRecord, ...]


@dataclass(frozen=True, slots=True)
class BadPages:
    path: str
    blocks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sizes:
    """``total`` is what a restore writes, ``read`` what was read from disk, ``stored`` this backup's own packs,
    ``shared`` stored bytes of earlier backups' packs that it refers to."""

    files: int
    total_bytes: int
    read_bytes: int
    changed_bytes: int
    stored_bytes: int
    shared_bytes: int


@dataclass(frozen=True, slots=True)
class BackupManifest:
    format: int
    id: str
    kind: Literal["base"]
    type: Literal["full", "incremental"]
    base_id: str | None
    cluster: str
    system_id: str
    label: str | None
    annotations: dict[str, str]
    started_at: datetime
    ended_at: datetime
    elapsed_s: float
    """Times are the server's clock (clock_timestamp()); the elapsed time is ours."""
    wal: WalRange
    backup_label: str
    tablespace_map: str
    server: ServerRecord
    map: ObjectRef
    relations: ObjectRef | None
    packs: int
    sizes: Sizes
    bad_pages: tuple[BadPages, ...]
    warnings: tuple[str, ...]
    pitr_version: str

    def lies_on(self, history: History) -> bool:
        """Whether recovery along this history can start from the backup: same past, and ended before it was left."""
        own = self.wal.timeline_history()
        return own.is_prefix_of(history) and history.contains(own.timeline, self.wal.stop_lsn)

    @property
    def bad_page_count(self) -> int:
        return sum(len(bad.blocks) for bad in self.bad_pages)


def dump_manifest(manifest: BackupManifest) -> bytes:
    return json.dumps(to_json(manifest), indent=1).encode()


def load_manifest(data: bytes, name: str) -> BackupManifest:
    """Raises FormatTooNew or ManifestInvalid, naming the object."""
    return read_as(BackupManifest, data, name, FORMAT)
