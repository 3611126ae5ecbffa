"""For tests of base backups: a repository fed by a server's archiver, and reading one back in the simplest way."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pitr.base.backup import run_base_backup
from pitr.base.request import BaseBackupRequest, BaseBackupResult
from pitr.core.events import Report, silent
from pitr.pg.segments import parse_archive_name
from pitr.repo.catalog import load_backup, load_map
from pitr.repo.manifest import BackupManifest
from pitr.repo.maps import HOLE, BackupMap, FileEntry, FileKind, unit_of
from pitr.repo.names import HistoryNames
from pitr.repo.packs import PackReader
from pitr.repo.repository import Repository
from pitr.repo.walobjects import put_wal
from pitr.store import PosixStore
from tests.support.archive import memory_repository
from tests.support.cluster import Cluster

CLUSTER = "shop"
MIB = 1 << 20


def posix_repository(directory: Path, *, sealed: bool = False) -> Repository:
    directory.mkdir(parents=True, exist_ok=True)
    return memory_repository("main", PosixStore(directory), sealed=sealed)


class Feeder(threading.Thread):
    """Puts every file that a server archives into ``directory`` into the repository."""

    def __init__(self, repository: Repository, names: HistoryNames, directory: Path, segment_size: int) -> None:
        super().__init__(daemon=True)
        self._repository, self._names = repository, names
        self._directory, self._segment_size = directory, segment_size
        self._ended = threading.Event()

    def run(self) -> None:
        done: set[str] = set()
        while not self._ended.wait(0.02):
            with contextlib.suppress(FileNotFoundError):
                for path in sorted(self._directory.iterdir()):
                    if path.name not in done and path.suffix not in (".tmp", ".partial"):
                        name = parse_archive_name(path.name, self._segment_size)
                        put_wal(self._repository, self._names, name, path.read_bytes())
                        done.add(path.name)

    def stop(self) -> None:
        self._ended.set()
        self.join()


@dataclass
class Backed:
    """A running cluster, its archive directory and the repository that is fed from it."""

    cluster: Cluster
    repository: Repository
    archive: Path
    names: HistoryNames
    feeder: Feeder = field(repr=False)

    def request(self, **changes: Any) -> BaseBackupRequest:
        words = {"cluster": CLUSTER, "conninfo": self.cluster.conninfo(), "jobs": 2, "archive_wait_s": 30.0, **changes}
        return BaseBackupRequest(**words)

    def backup(self, report: Report = silent, **changes: Any) -> BaseBackupResult:
        return run_base_backup(self.repository, self.request(**changes), report)

    def manifest(self, result: BaseBackupResult) -> BackupManifest:
        assert result.backup_id is not None
        return load_backup(self.repository, self.names, result.backup_id)

    def map(self, result: BaseBackupResult) -> BackupMap:
        return load_map(self.repository, self.manifest(result))

    def objects(self) -> list[str]:
        """Names below base/: what backups have left."""
        return [info.name for info in self.repository.store.list(self.names.base_prefix)]

    def restore_command(self) -> str:
        return f'cp "{self.archive}/%f" "%p"'


def start_backed(cluster: Cluster, directory: Path, *, sealed: bool = False, segment_size: int = 16 * MIB) -> Backed:
    """Start a cluster that was made with ``archive_to=directory / "archive"``."""
    repository = posix_repository(directory / "repository", sealed=sealed)
    cluster.start()
    names = HistoryNames(CLUSTER, int(cluster.value("SELECT system_identifier FROM pg_control_system()")))
    feeder = Feeder(repository, names, directory / "archive", segment_size)
    feeder.start()
    return Backed(cluster, repository, directory / "archive", names, feeder)


def contents(repository: Repository, names: HistoryNames, built: BackupMap) -> Iterator[tuple[FileEntry, bytes]]:
    """Every file of a map with its bytes, put together extent by extent, in the simplest way."""
    readers = [PackReader(repository, names, pack) for pack in built.packs]
    frames: dict[tuple[int, int], bytes] = {}

    def frame(pack: int, number: int) -> bytes:
        if (pack, number) not in frames:
            [(_, sealed)] = readers[pack].frames(number, number)
            frames[pack, number] = readers[pack].open(number, sealed)
        return frames[pack, number]

    for index in range(built.file_count):
        entry = built.file(index)
        unit = unit_of(entry.kind, built.block_size)
        extents = built.extents_of(index)
        data = bytearray()
        for row in range(len(extents)):
            size = int(extents.count[row]) * unit
            pack, offset = int(extents.pack[row]), int(extents.offset[row])
            data += bytes(size) if pack == HOLE else frame(pack, int(extents.frame[row]))[offset : offset + size]
        yield entry, bytes(data)


def lay_out(
    backed: Backed,
    result: BaseBackupResult,
    directory: Path,
    *,
    tablespaces: Mapping[int, Path] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Path:
    """A data directory made of the backup, ready to recover from the archive directory to the backup's end."""
    manifest = backed.manifest(result)
    directory.mkdir(mode=0o700)
    for oid, place in (tablespaces or {}).items():
        (directory / "pg_tblspc").mkdir(mode=0o700, exist_ok=True)
        place.mkdir(mode=0o700)
        (directory / "pg_tblspc" / str(oid)).symlink_to(place)
    for entry, data in contents(backed.repository, backed.names, load_map(backed.repository, manifest)):
        path = directory / entry.path
        if entry.kind is FileKind.DIRECTORY:
            path.mkdir(mode=0o700, exist_ok=True)
        elif entry.kind is not FileKind.CONFIG:
            path.write_bytes(data)
            path.chmod(0o600)
    (directory / "backup_label").write_text(manifest.backup_label)
    (directory / "recovery.signal").touch()
    recovery = {
        "restore_command": backed.restore_command(),
        "recovery_target": "immediate",
        "recovery_target_action": "promote",
        "archive_mode": "off",
        **(settings or {}),
    }
    with (directory / "postgresql.auto.conf").open("a") as conf:
        for name, value in recovery.items():
            conf.write(f"{name} = '{value}'\n")
    return directory
