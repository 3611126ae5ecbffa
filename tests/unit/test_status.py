"""Lists and windows from hand-made manifests and segments in memory."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from pitr.archive.wal_status import wal_status
from pitr.codec import ObjectKind
from pitr.core.errors import AmbiguousName, UsageError
from pitr.pg.lsn import Lsn
from pitr.pg.segments import HistoryName, SegmentName
from pitr.repo.identity import FORMAT, Identity, ensure_identity
from pitr.repo.manifest import (
    BackupManifest,
    BadPages,
    ObjectRef,
    Parameters,
    ServerRecord,
    Sizes,
    SwitchPoint,
    WalRange,
    dump_manifest,
)
from pitr.repo.names import HistoryNames
from pitr.repo.objects import put_document
from pitr.repo.repository import Repository, create_repository, open_repository
from pitr.repo.walobjects import put_wal
from pitr.status.backups import list_backups, show_backup
from pitr.status.cluster import cluster_status
from pitr.store.memory import MemoryStore

SIZE = 1 << 20
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
NAMES = HistoryNames("shop", 7001)


@pytest.fixture
def repository() -> Repository:
    store = MemoryStore()
    create_repository(store, [], now=NOW, if_absent_works=True)
    opened = open_repository("main", store, None)
    ensure_identity(opened, Identity(FORMAT, "shop", "7001", 15, SIZE, 8192, NOW - timedelta(days=9)))
    return opened


def archive(repository: Repository, timeline: int, *numbers: int) -> None:
    for number in numbers:
        put_wal(repository, NAMES, SegmentName(timeline, number, SIZE), b"wal")


def at(segment: float) -> Lsn:
    return Lsn(int(segment * SIZE))


def backup(
    repository: Repository,
    backup_id: str,
    start: float,
    stop: float,
    *,
    history: tuple[SwitchPoint, ...] = (),
    label: str | None = None,
    bad: int = 0,
) -> BackupManifest:
    ended = datetime.strptime(backup_id[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    timeline = len(history) + 1
    manifest = BackupManifest(
        format=1,
        id=backup_id,
        kind="base",
        type="full",
        base_id=None,
        cluster="shop",
        system_id="7001",
        label=label,
        annotations={},
        started_at=ended - timedelta(minutes=5),
        ended_at=ended,
        elapsed_s=300.0,
        wal=WalRange(timeline, at(start), at(stop), history, "first", "last"),
        backup_label="",
        tablespace_map="",
        server=ServerRecord(
            version_num=150018,
            major=15,
            catalog_version=202209061,
            block_size=8192,
            segment_size_bytes=SIZE,
            data_checksums=True,
            wal_log_hints=False,
            full_page_writes=True,
            wal_level="replica",
            from_standby=False,
            parameters=Parameters(100, 8, 10, 0, 64),
            shared_preload_libraries="",
            data_directory="/d",
            config_file="/c",
            hba_file="/h",
            ident_file="/i",
            databases=(),
            tablespaces=(),
        ),
        map=ObjectRef("map", b"s" * 16, 1, b"h" * 32),
        relations=None,
        packs=1,
        sizes=Sizes(10, 1000, 1000, 1000, 400, 0),
        bad_pages=(BadPages("base/1/2", tuple(range(bad))),) if bad else (),
        warnings=(),
        pitr_version="0",
    )
    name = NAMES.backup(backup_id).manifest
    put_document(repository.store, repository.keyring, name, ObjectKind.MANIFEST, dump_manifest(manifest))
    return manifest


MONDAY, TUESDAY, WEDNESDAY = "20261121T100000Z-aaaa", "20261122T100000Z-bbbb", "20261123T100000Z-cccc"


def test_list_and_show(repository: Repository) -> None:
    archive(repository, 1, 2, 3, 5, 6)
    backup(repository, MONDAY, 2.1, 2.9, label="before")
    backup(repository, TUESDAY, 3.5, 5.5, bad=2)
    listed = list_backups(repository, "shop")
    assert [(row.id, row.usable, row.bad_pages, row.label) for row in listed.backups] == [
        (MONDAY, True, 0, "before"),
        (TUESDAY, False, 2, None),
    ]
    assert listed.backups[0].version == "15.18"
    assert str(SegmentName(1, 4, SIZE)) in (listed.backups[1].problem or "")
    for word in ("before", "aaaa", MONDAY, "oldest", "20261121"):
        assert show_backup(repository, "shop", word).backup.id == MONDAY
    details = show_backup(repository, "shop", "latest")
    assert details.missing_segments == (str(SegmentName(1, 4, SIZE)),)
    assert details.manifest.sizes.stored_bytes == 400
    with pytest.raises(AmbiguousName):
        show_backup(repository, "shop", "2026")
    with pytest.raises(UsageError):
        show_backup(repository, "shop", "nothing")


def test_an_empty_repository(repository: Repository) -> None:
    assert list_backups(repository, "other").backups == ()
    status = cluster_status(repository, "other", now=NOW)
    assert (status.system_id, status.timelines, status.needs_look) == (None, (), True)
    nothing = cluster_status(repository, "shop", now=NOW)
    assert nothing.newest_backup is None
    assert any("pitr backup base" in text for text in nothing.warnings)


def test_one_window_and_a_young_backup(repository: Repository) -> None:
    archive(repository, 1, *range(2, 10))
    backup(repository, TUESDAY, 2.1, 2.9)
    backup(repository, WEDNESDAY, 6.1, 6.9)
    status = cluster_status(repository, "shop", now=NOW, base_policy=timedelta(hours=26))
    (timeline,) = status.timelines
    (window,) = timeline.windows
    assert (window.from_lsn, window.to_lsn, window.backups) == (at(2.9), at(10), (TUESDAY, WEDNESDAY))
    assert window.from_time == datetime(2026, 11, 22, 10, tzinfo=UTC)
    assert timeline.last_segment == str(SegmentName(1, 9, SIZE))
    assert (status.warnings, status.needs_look) == ((), False)
    assert status.newest_backup_age == timedelta(hours=2)
    late = cluster_status(repository, "shop", now=NOW + timedelta(days=2), base_policy=timedelta(hours=26))
    assert late.needs_look
    assert any("the policy says" in text for text in late.warnings)


def test_a_gap_splits_the_window(repository: Repository) -> None:
    archive(repository, 1, 2, 3, 4, 7, 8, 9)
    backup(repository, MONDAY, 2.1, 2.9)
    backup(repository, TUESDAY, 4.5, 5.5)
    backup(repository, WEDNESDAY, 7.1, 7.9)
    (timeline,) = cluster_status(repository, "shop", now=NOW).timelines
    assert [(window.from_lsn, window.to_lsn, window.backups) for window in timeline.windows] == [
        (at(2.9), at(5), (MONDAY,)),
        (at(7.9), at(10), (WEDNESDAY,)),
    ]
    assert timeline.gaps == (f"{SegmentName(1, 5, SIZE)} to {SegmentName(1, 6, SIZE)}",)


def test_timelines_take_over_from_one_another(repository: Repository) -> None:
    """Timeline 2 left timeline 1 in segment 5, where timeline 1 went on to 8; a stray backup lies behind the fork."""
    archive(repository, 1, *range(2, 9))
    archive(repository, 2, 5, 6)
    put_wal(repository, NAMES, HistoryName(2), f"1\t{at(5.5)}\tno recovery target specified\n".encode())
    backup(repository, MONDAY, 2.1, 2.9)
    backup(repository, TUESDAY, 6.1, 6.2)
    first, second = cluster_status(repository, "shop", now=NOW).timelines
    assert [window.backups for window in first.windows] == [(MONDAY, TUESDAY)]
    assert (first.windows[0].to_lsn, first.begins_at) == (at(9), Lsn(0))
    assert [(window.backups, window.to_lsn) for window in second.windows] == [((MONDAY,), at(7))]
    assert (second.begins_at, second.last_segment, second.gaps) == (at(5.5), str(SegmentName(2, 6, SIZE)), ())


def test_a_timeline_without_its_history_file_is_named(repository: Repository) -> None:
    archive(repository, 1, 2)
    archive(repository, 2, 3)
    backup(repository, MONDAY, 2.1, 2.9)
    status = cluster_status(repository, "shop", now=NOW)
    assert [timeline.timeline for timeline in status.timelines] == [1]
    assert any("timeline 2" in text for text in status.warnings)


def test_an_older_system_id_is_listed_but_not_judged(repository: Repository) -> None:
    archive(repository, 1, 2)
    backup(repository, MONDAY, 2.1, 2.9)
    ensure_identity(repository, Identity(FORMAT, "shop", "7002", 16, SIZE, 8192, NOW), adopt=True)
    status = cluster_status(repository, "shop", now=NOW)
    assert (status.system_id, status.older_system_ids) == ("7002", ("7001",))
    assert status.newest_backup is None
    assert [row.id for row in list_backups(repository, "shop").backups] == [MONDAY]


def test_wal_status_names_gaps(repository: Repository) -> None:
    archive(repository, 1, 2, 3, 6)
    status = wal_status(repository, "shop")
    (timeline,) = status.timelines
    assert (timeline.first, timeline.last, timeline.segments) == (
        str(SegmentName(1, 2, SIZE)),
        str(SegmentName(1, 6, SIZE)),
        3,
    )
    (gap,) = timeline.gaps
    assert (gap.first, gap.last, gap.count) == (str(SegmentName(1, 4, SIZE)), str(SegmentName(1, 5, SIZE)), 2)
    assert status.archiver is None
    assert any("2 segments missing" in text for text in status.warnings)
    assert wal_status(repository, "other").warnings == ('nothing of cluster "other" is in the archive yet',)
