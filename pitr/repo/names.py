"""Names of all objects of a repository, built and parsed here only (FORMAT.md, "Names")."""

from __future__ import annotations

import re
from typing import NamedTuple

from pitr.core.errors import UsageError
from pitr.pg.lsn import Lsn
from pitr.pg.segments import ArchiveName, BackupHistoryName, HistoryName, PartialName, SegmentName

DESCRIPTOR = "pitr.json"
KEYS_PREFIX = "keys/"
_RESERVED = frozenset({"keys", "probe", DESCRIPTOR})
_CLUSTER = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
_BACKUP_ID = r"\d{8}T\d{6}Z-[0-9a-f]{4}"


def check_cluster_name(name: str) -> str:
    if re.fullmatch(_CLUSTER, name) is None or name in _RESERVED:
        raise UsageError(
            f'"{name}" cannot be a cluster name',
            detail="letters, digits, '.', '_' and '-', at most 63, beginning with a letter or digit",
        )
    return name


def is_backup_id(text: str) -> bool:
    return re.fullmatch(_BACKUP_ID, text) is not None


def key_slot(slot_id: str) -> str:
    return f"{KEYS_PREFIX}{slot_id}.json"


def lease_prefix(cluster: str, purpose: str) -> str:
    return f"{cluster}/lease/{purpose}/"


def lease(cluster: str, purpose: str, generation: int) -> str:
    return f"{lease_prefix(cluster, purpose)}{generation:012d}"


def pin_prefix(cluster: str) -> str:
    return f"{cluster}/pin/"


def pin(cluster: str, pin_id: str) -> str:
    return f"{pin_prefix(cluster)}{pin_id}"


class HistoryNames(NamedTuple):
    """Names below ``<cluster>/<system-id>/``: one generation of a cluster."""

    cluster: str
    system_id: int

    @property
    def prefix(self) -> str:
        return f"{self.cluster}/{self.system_id}/"

    @property
    def identity(self) -> str:
        return f"{self.prefix}identity.json"

    @property
    def base_prefix(self) -> str:
        return f"{self.prefix}base/"

    @property
    def wal_prefix(self) -> str:
        return f"{self.prefix}wal/"

    @property
    def wal_history_prefix(self) -> str:
        return f"{self.wal_prefix}history/"

    def backup(self, backup_id: str) -> BackupNames:
        return BackupNames(self, backup_id)

    def wal_file(self, name: ArchiveName) -> str:
        """Object name of a file that PostgreSQL archives; a ``.partial`` is named by its content, see partial()."""
        match name:
            case HistoryName():
                return f"{self.wal_history_prefix}{name}"
            case SegmentName():
                return self.wal_directory(name) + str(name)
            case BackupHistoryName():
                return self.wal_directory(name.segment) + str(name)
            case PartialName():
                raise ValueError("a partial segment is named by its flush position and content")

    def wal_directory(self, segment: SegmentName) -> str:
        text = str(segment)
        return f"{self.wal_prefix}{text[:8]}/{text[8:16]}/"

    def wal_timeline_prefix(self, timeline: int) -> str:
        return f"{self.wal_prefix}{timeline:08X}/"

    def partial_prefix(self, segment: SegmentName) -> str:
        return f"{self.wal_directory(segment)}{segment}.partial-"

    def partial(self, segment: SegmentName, flush_lsn: Lsn, digest: bytes) -> str:
        return f"{self.partial_prefix(segment)}{int(flush_lsn):016X}-{digest[:4].hex()}"


class BackupNames(NamedTuple):
    """Names below ``<cluster>/<system-id>/base/<backup-id>/``."""

    history: HistoryNames
    backup_id: str

    @property
    def prefix(self) -> str:
        return f"{self.history.base_prefix}{self.backup_id}/"

    @property
    def manifest(self) -> str:
        return f"{self.prefix}backup.json"

    @property
    def map(self) -> str:
        return f"{self.prefix}map"

    @property
    def relations(self) -> str:
        return f"{self.prefix}relations"

    @property
    def sums(self) -> str:
        return f"{self.prefix}SHA256SUMS"

    @property
    def pack_prefix(self) -> str:
        return f"{self.prefix}pack/"

    def pack(self, number: int) -> str:
        return f"{self.pack_prefix}{number:06d}"


def split_partial(object_name: str, segment_size: int) -> tuple[SegmentName, Lsn] | None:
    """Segment and flush position of a stored partial; None when the name is not one."""
    head, found, tail = object_name.rpartition("/")[2].partition(".partial-")
    if not found or re.fullmatch(r"[0-9A-F]{16}-[0-9a-f]{8}", tail) is None:
        return None
    return SegmentName.parse(head, segment_size), Lsn(int(tail[:16], 16))
