"""Opening, identities, catalog, archived WAL, pins and leases over the memory store."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pitr.codec import KeyFile, ObjectKind, RecoveryKey, new_recovery_key
from pitr.core.documents import to_json
from pitr.core.errors import (
    ConfigError,
    FormatTooNew,
    HistoryMismatch,
    IntegrityError,
    KeyUnavailable,
    Locked,
    ManifestInvalid,
    NoSuitableBackup,
    ObjectNotFound,
    OverwriteRefused,
    RepositoryMissing,
)
from pitr.core.secrets import Secret
from pitr.pg.lsn import Lsn
from pitr.pg.segments import HistoryName, SegmentName
from pitr.pg.timelines import History, HistoryEntry
from pitr.repo import names
from pitr.repo.catalog import backup_ids, load_backup, uncommitted_ids
from pitr.repo.identity import Identity, current_identity, ensure_identity, list_clusters, list_identities
from pitr.repo.leases import LeaseState, acquire, leased
from pitr.repo.names import HistoryNames
from pitr.repo.objects import open_sealed, put_document, put_sealed, read_document, read_referenced
from pitr.repo.pins import list_pins, pinned
from pitr.repo.repository import Repository, create_repository, open_repository
from pitr.repo.walobjects import (
    Put,
    contiguous_until,
    get_history,
    get_wal,
    list_segments,
    list_timelines,
    missing_segments,
    put_wal,
)
from pitr.store.memory import MemoryStore

NOW = datetime(2026, 11, 23, 4, 15, tzinfo=UTC)
SIZE = 1024 * 1024
NAMES = HistoryNames("shop", 7391)


@pytest.fixture
def key(tmp_path: Path) -> KeyFile:
    path = tmp_path / "main.key"
    path.write_text(os.urandom(32).hex())
    path.chmod(0o600)
    return KeyFile(path)


@pytest.fixture
def repository(key: KeyFile) -> Repository:
    store = MemoryStore()
    create_repository(store, [key], now=NOW, if_absent_works=True)
    return open_repository("main", store, key)


def identity(system_id: int, days: int = 0, segment: int = SIZE) -> Identity:
    return Identity(1, "shop", str(system_id), 15, segment, 8192, NOW + timedelta(days=days))


def test_create_is_idempotent_and_opens(key: KeyFile) -> None:
    store = MemoryStore()
    first, created = create_repository(store, [key], now=NOW, if_absent_works=True)
    again, created_again = create_repository(store, [key], now=NOW, if_absent_works=True)
    assert (created, created_again) == (True, False)
    assert first == again
    assert open_repository("main", store, key).keyring.sealed


def test_modes_are_not_mixed_up(key: KeyFile, tmp_path: Path) -> None:
    sealed, plain = MemoryStore(), MemoryStore()
    create_repository(sealed, [key], now=NOW, if_absent_works=True)
    create_repository(plain, [], now=NOW, if_absent_works=True)
    with pytest.raises(KeyUnavailable):
        open_repository("main", sealed, None)
    with pytest.raises(ManifestInvalid):
        open_repository("main", plain, key)
    assert not open_repository("main", plain, None).keyring.sealed
    other = tmp_path / "other.key"
    other.write_text(os.urandom(32).hex())
    other.chmod(0o600)
    with pytest.raises(KeyUnavailable):
        open_repository("main", sealed, KeyFile(other))
    with pytest.raises(RepositoryMissing):
        open_repository("main", MemoryStore(), key)
    with pytest.raises(ConfigError):
        open_repository("main", sealed, key, repository_id="another")


def test_one_damaged_key_slot_does_not_lock_the_others_out(key: KeyFile, tmp_path: Path) -> None:
    store = MemoryStore()
    recovery = RecoveryKey(Secret(new_recovery_key()))
    create_repository(store, [key, recovery], now=NOW, if_absent_works=True)
    slots = {json.loads(b"".join(store.get(info.name)))["method"]: info.name for info in store.list("keys/")}
    store.delete([slots["recovery"]])
    store.put(slots["recovery"], [b"{"])
    assert open_repository("main", store, key).keyring.sealed
    with pytest.raises(IntegrityError, match="key slot"):
        open_repository("main", store, recovery)
    key.source.unlink()  # type: ignore[union-attr]
    with pytest.raises(KeyUnavailable, match="cannot be read"):
        open_repository("main", store, key)


def test_a_downgraded_descriptor_is_refused(repository: Repository, key: KeyFile) -> None:
    store = repository.store
    document = json.loads(b"".join(store.get(names.DESCRIPTOR)))
    store.delete([names.DESCRIPTOR])
    store.put(names.DESCRIPTOR, [json.dumps({**document, "cipher": "none"}).encode()])
    with pytest.raises(ManifestInvalid):
        open_repository("main", store, key)
    store.delete([names.DESCRIPTOR])
    store.put(names.DESCRIPTOR, [json.dumps({**document, "format": 2}).encode()])
    with pytest.raises(FormatTooNew):
        open_repository("main", store, key)


def test_another_system_id_needs_adoption(repository: Repository) -> None:
    assert ensure_identity(repository, identity(1))
    assert not ensure_identity(repository, identity(1))
    with pytest.raises(HistoryMismatch, match="another PostgreSQL cluster"):
        ensure_identity(repository, identity(2, 1))
    with pytest.raises(HistoryMismatch, match="segment or block size"):
        ensure_identity(repository, identity(1, segment=2 * SIZE))
    assert ensure_identity(repository, identity(2, 1), adopt=True)
    assert [found.system_id for found in list_identities(repository, "shop")] == ["1", "2"]
    current = current_identity(repository, "shop")
    assert current is not None
    assert current.system_id == "2"
    assert list_clusters(repository) == ["shop"]
    assert current_identity(repository, "other") is None


def test_catalog_lists_only_committed(repository: Repository) -> None:
    committed, running, large = "20261123T041500Z-0001", "20261123T051500Z-0002", "20261123T061500Z-0003"
    store = repository.store
    for backup_id, packs in ((committed, 3), (running, 2), (large, 450)):
        for number in range(packs):
            store.put(NAMES.backup(backup_id).pack(number), [b"x"])
        store.put(NAMES.backup(backup_id).relations, [b"x"])
    for backup_id in (committed, large):
        store.put(NAMES.backup(backup_id).manifest, [b"x"])
    assert backup_ids(repository, NAMES) == [committed, large]
    assert uncommitted_ids(repository, NAMES) == [running]
    with pytest.raises(NoSuitableBackup):
        load_backup(repository, NAMES, running)


def test_sealed_stream_by_ranges_and_by_reference(repository: Repository) -> None:
    data = os.urandom(2_500_000)
    stored = put_sealed(repository.store, repository.keyring, "shop/x/map", ObjectKind.MAP, [data[:7], data[7:]])
    opened = open_sealed(repository.store, repository.keyring, "shop/x/map", ObjectKind.MAP)
    assert opened.plain(1_048_570, 20) == data[1_048_570:1_048_590]
    assert opened.plain(0, len(data)) == data
    with pytest.raises(IntegrityError):
        opened.plain(len(data) - 1, 2)
    chunks = read_referenced(repository.store, repository.keyring, stored.ref, ObjectKind.MAP)
    assert b"".join(chunks) == data
    for wrong in (replace(stored.ref, salt=bytes(32)), replace(stored.ref, size_bytes=1)):
        with pytest.raises(IntegrityError, match="not the object"):
            b"".join(read_referenced(repository.store, repository.keyring, wrong, ObjectKind.MAP))


def test_archived_wal_is_put_once(repository: Repository) -> None:
    segment = SegmentName(1, 5, SIZE)
    data = os.urandom(SIZE)
    assert put_wal(repository, NAMES, segment, data) is Put.STORED
    assert put_wal(repository, NAMES, segment, data) is Put.ALREADY_THERE
    with pytest.raises(OverwriteRefused):
        put_wal(repository, NAMES, segment, data[:-1] + b"\x00\x01"[:1])
    assert get_wal(repository, NAMES, segment) == data
    with pytest.raises(ObjectNotFound):
        get_wal(repository, NAMES, segment.next())


def test_a_store_without_put_if_absent_is_looked_at_first(repository: Repository) -> None:
    weak = replace(repository, descriptor=replace(repository.descriptor, if_absent=False))
    segment = SegmentName(1, 5, SIZE)
    assert put_wal(weak, NAMES, segment, b"a" * 100) is Put.STORED
    assert put_wal(weak, NAMES, segment, b"a" * 100) is Put.ALREADY_THERE
    with pytest.raises(OverwriteRefused):
        put_wal(weak, NAMES, segment, b"b" * 100)


def archive(repository: Repository, *segments: tuple[int, int]) -> None:
    for timeline, number in segments:
        repository.store.put(NAMES.wal_file(SegmentName(timeline, number, SIZE)), [b"x"])


def test_runs_and_gaps_follow_the_history(repository: Repository) -> None:
    history = History(2, (HistoryEntry(1, Lsn(5 * SIZE + 100), "no recovery target"),))
    archive(repository, (1, 3), (1, 4), (1, 5), (1, 6), (1, 7), (2, 5), (2, 6), (2, 8))
    put_wal(repository, NAMES, HistoryName(2), history.render().encode())
    assert list_timelines(repository, NAMES) == [1, 2]
    assert get_history(repository, NAMES, 2).entries[0].switch_lsn == Lsn(5 * SIZE + 100)
    assert [found.segment.number for found in list_segments(repository, NAMES, 1, SIZE)] == [3, 4, 5, 6, 7]
    first = SegmentName(1, 5, SIZE)
    assert [found.segment.number for found in list_segments(repository, NAMES, 1, SIZE, first=first)] == [5, 6, 7]
    start = Lsn(3 * SIZE + 40)
    assert contiguous_until(repository, NAMES, history, start, SIZE) == SegmentName(2, 6, SIZE)
    assert contiguous_until(repository, NAMES, History.initial(1), start, SIZE) == SegmentName(1, 7, SIZE)
    assert contiguous_until(repository, NAMES, History.initial(1), Lsn(SIZE), SIZE) is None
    assert missing_segments(repository, NAMES, history, start, Lsn(9 * SIZE), SIZE) == [SegmentName(2, 7, SIZE)]
    # the old timeline's segment 5 does not stand in for the new timeline's first one
    repository.store.delete([NAMES.wal_file(SegmentName(2, 5, SIZE))])
    assert missing_segments(repository, NAMES, history, start, Lsn(6 * SIZE), SIZE) == [SegmentName(2, 5, SIZE)]
    assert contiguous_until(repository, NAMES, history, start, SIZE) == SegmentName(1, 4, SIZE)


def test_pins_are_there_while_held(repository: Repository) -> None:
    with pinned(repository, "shop", "backup", system_id=1, backup_id="", own_id="20261123T041500Z-0001", now=NOW):
        (pin,) = list_pins(repository, "shop")
        assert (pin.purpose, pin.own_id, pin.pid) == ("backup", "20261123T041500Z-0001", os.getpid())
    assert list_pins(repository, "shop") == []


def test_documents_are_not_replaced(repository: Repository) -> None:
    put_document(repository.store, repository.keyring, "shop/a", ObjectKind.MARK, b"{}")
    with pytest.raises(Exception, match="shop/a"):
        put_document(repository.store, repository.keyring, "shop/a", ObjectKind.MARK, b"[]")
    assert read_document(repository.store, repository.keyring, "shop/a", ObjectKind.MARK) == b"{}"


def test_a_lease_excludes_and_ends() -> None:
    store = MemoryStore()
    with leased(store, "shop", "backup", wait_s=0) as lease:
        with pytest.raises(Locked):
            acquire(store, "shop", "backup", wait_s=0, waiting=lambda _state: None)
        with leased(store, "shop", "expire", wait_s=0):
            pass
        lease.check()
    with leased(store, "shop", "backup", wait_s=0) as again:
        assert again.generation > lease.generation


def test_the_lease_of_a_dead_process_ends_at_once() -> None:
    store = MemoryStore()
    lease = acquire(store, "shop", "backup", wait_s=0, waiting=lambda _state: None)
    state = json.loads(b"".join(store.get(names.lease("shop", "backup", lease.generation))))
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    dead = {**state, "pid": child.pid, "pid_started": "1"}
    store.put(names.lease("shop", "backup", lease.generation + 1), [json.dumps(dead).encode()])
    with leased(store, "shop", "backup", wait_s=0) as taken:
        assert taken.generation == lease.generation + 2
    lease.release()


def test_a_lease_of_another_host_is_respected() -> None:
    store = MemoryStore()
    other = LeaseState(1, "x", "held", "elsewhere", "other-boot", 1, "1")
    store.put(names.lease("shop", "backup", 1), [json.dumps(to_json(other)).encode()])
    told: list[LeaseState] = []
    with pytest.raises(Locked, match="another backup"):
        acquire(store, "shop", "backup", wait_s=0.2, waiting=told.append)
    assert [state.host for state in told] == ["elsewhere"]


def test_strangers_in_the_archive_are_passed_over(repository: Repository) -> None:
    put_wal(repository, NAMES, SegmentName(2, 7, SIZE), bytes(SIZE))
    put_wal(repository, NAMES, HistoryName(2), b"1\t0/700000\tno recovery target specified\n")
    directory = NAMES.wal_directory(SegmentName(2, 7, SIZE))
    for stray in (f"{directory}copy-of-segment-24-bytes", "lost", "other/x", "history/00000002.history.bak"):
        name = stray if stray.startswith(directory) else NAMES.wal_prefix + stray
        repository.store.put(name, [b"?"])
    assert list_timelines(repository, NAMES) == [2]
    assert [str(found.segment) for found in list_segments(repository, NAMES, 2, SIZE)] == [str(SegmentName(2, 7, SIZE))]


def test_a_document_of_another_shape_is_named(repository: Repository) -> None:
    names = identity(1).names
    put_document(repository.store, repository.keyring, names.identity, ObjectKind.IDENTITY, b'{"format": 1}')
    with pytest.raises(ManifestInvalid, match=r"identity\.json"):
        current_identity(repository, "shop")
