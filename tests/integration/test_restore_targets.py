"""Every kind of target, with and without the target itself, from the right backup; and what cannot be reached."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pitr.core.errors import (
    AmbiguousName,
    HistoryMismatch,
    IntegrityError,
    NoSuitableBackup,
    PitrError,
    TargetUnreachable,
    UsageError,
    WalGap,
)
from pitr.core.events import silent
from pitr.pg.lsn import Lsn
from pitr.restore import (
    Immediate,
    Latest,
    RecoveryTarget,
    TargetLsn,
    TargetName,
    TargetTime,
    TargetXid,
    plan_restore,
)
from pitr.store import PosixStore
from tests.support.cluster import MAJORS
from tests.support.restoring import STATE, Moment, Source
from tests.support.site import flip_byte

pytestmark = pytest.mark.pg


@dataclass
class Story:
    source: Source
    first: str
    second: str
    moments: list[Moment]
    subtransaction: int
    subtransaction_of: int


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """Backup, moments 0 and 1, backup, moments 2 and 3, a transaction with a subtransaction, everything deleted."""
    source = Source.make(tmp_path_factory.mktemp("story"))
    cluster = source.cluster
    cluster.sql("CREATE TABLE events (id bigint PRIMARY KEY, body text)")
    cluster.sql("INSERT INTO events SELECT n, repeat(md5(n::text), 20) FROM generate_series(1, 3000) AS n")
    first, second, moments = source.backup(), "", []
    for number in range(4):
        if number == 2:
            second = source.backup()
        moments.append(source.step(f"INSERT INTO events VALUES ({9000 + number}, 'moment {number}')"))
        cluster.sql(f"SELECT pg_create_restore_point('moment {number}')")
    source.archived()
    for _ in range(2):
        cluster.sql("SELECT pg_create_restore_point('twice')")
    with cluster.connect(autocommit=False) as connection:
        connection.execute("INSERT INTO events VALUES (9100, 'top')")
        connection.execute("SAVEPOINT inner_part")
        connection.execute("INSERT INTO events VALUES (9101, 'sub')")
        row = connection.execute(
            "SELECT pg_current_xact_id()::text::bigint, (SELECT max(xmin::text::bigint) FROM events)"
        ).fetchone()
        assert row is not None
        connection.commit()
    cluster.sql("DELETE FROM events")
    source.archived()
    yield Story(source, first, second, moments, row[1], row[0])
    source.discard()


def target_of(kind: str, moment: Moment, number: int) -> RecoveryTarget:
    """A target whose state is that of ``moment`` when inclusive, of the one before when not."""
    match kind:
        case "xid":
            return TargetXid(moment.xid)
        case "xid-exclusive":
            return TargetXid(moment.xid, inclusive=False)
        case "time":
            return TargetTime(moment.time)
        case "time-exclusive":
            return TargetTime(moment.time, inclusive=False)
        case "lsn":
            return TargetLsn(Lsn(moment.end - 1), inclusive=False)
        case "lsn-exclusive":
            return TargetLsn(moment.start, inclusive=False)
        case _:
            return TargetName(f"moment {number}")


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("kind", ["xid", "xid-exclusive", "time", "time-exclusive", "lsn", "lsn-exclusive", "name"])
def test_a_target_is_resolved_to_its_commit(story: Story, tmp_path: Path, kind: str, number: int) -> None:
    moment = story.moments[number]
    included = story.moments[number - 1] if kind.endswith("exclusive") else moment
    plan = story.source.plan(tmp_path / "copy", target_of(kind, moment, number))
    assert plan.backup_id == (story.first if number == 1 else story.second)
    assert plan.target is not None
    assert plan.target.last_included is not None
    if not (kind.endswith("exclusive") and number == 3):  # moment 2 lies behind the second backup's start as well
        assert plan.target.last_included.xid == included.xid
    if kind in ("xid-exclusive", "time-exclusive"):
        assert plan.target.first_excluded is not None
        assert plan.target.first_excluded.xid == moment.xid
    assert not (tmp_path / "copy").exists()


@pytest.mark.parametrize("kind", ["xid", "xid-exclusive", "time", "time-exclusive", "lsn", "lsn-exclusive", "name"])
def test_the_restored_server_pauses_at_the_target(story: Story, tmp_path: Path, kind: str) -> None:
    number = 1 if kind in ("xid", "time-exclusive", "name") else 3
    moment = story.moments[number]
    expected = story.moments[number - 1] if kind.endswith("exclusive") else moment
    result = story.source.restore(tmp_path / "copy", target_of(kind, moment, number))
    assert result.files == result.plan.files > 500
    recovery = story.source.recover(tmp_path / "copy")
    assert recovery.outcome == "paused", recovery.log
    assert recovery.cluster.value("SELECT count(*) FROM events WHERE id > 9000 OR id = 9000") == (
        number if kind.endswith("exclusive") else number + 1
    )
    assert recovery.cluster.value(STATE) == expected.state
    assert recovery.cluster.value("SHOW archive_mode") == "off"
    recovery.cluster.discard()


def test_latest_and_immediate(story: Story, tmp_path: Path) -> None:
    latest = story.source.restore(tmp_path / "latest", Latest(), action="promote")
    assert latest.plan.backup_id == story.second
    recovery = story.source.recover(tmp_path / "latest")
    assert recovery.outcome == "promoted", recovery.log
    assert recovery.cluster.value("SELECT count(*) FROM events") == 0
    recovery.cluster.sql("INSERT INTO events VALUES (1, 'writable')")
    recovery.cluster.discard()
    immediate = story.source.restore(tmp_path / "immediate", Immediate(), backup_id=story.first)
    assert immediate.plan.target is not None
    recovery = story.source.recover(tmp_path / "immediate")
    assert recovery.outcome == "paused", recovery.log
    assert recovery.cluster.value("SELECT count(*) FROM events") == 3000
    recovery.cluster.discard()


def test_shutdown_ends_the_server_at_the_target(story: Story, tmp_path: Path) -> None:
    """Opened as the next steps say, it is still at the target (without recovery.signal it would go on behind it)."""
    to, moment = tmp_path / "copy", story.moments[0]
    result = story.source.restore(to, TargetXid(moment.xid), action="shutdown")
    recovery = story.source.recover(to)
    assert recovery.outcome == "exited"
    assert "shutdown at recovery target" in recovery.log
    (step,) = [step for step in result.next_steps if "recovery_target_action" in step]
    assert f"'promote' in {to}/postgresql.auto.conf" in step
    auto_conf = to / "postgresql.auto.conf"
    auto_conf.write_text(
        auto_conf.read_text().replace("recovery_target_action = 'shutdown'", "recovery_target_action = 'promote'")
    )
    opened = story.source.recover(to)
    assert opened.outcome == "promoted", opened.log
    assert opened.cluster.value(STATE) == moment.state


def refused(story: Story, tmp_path: Path, error: type[PitrError], target: RecoveryTarget, **options: object) -> str:
    with pytest.raises(error) as caught:
        story.source.plan(tmp_path / "copy", target, **options)
    assert caught.value.hint
    assert not (tmp_path / "copy").exists()
    return f"{caught.value.message}: {caught.value.detail}: {caught.value.hint}"


def test_what_cannot_be_reached_is_refused(story: Story, tmp_path: Path) -> None:
    moments = story.moments
    text = refused(story, tmp_path, NoSuitableBackup, TargetTime(datetime(2020, 1, 1, tzinfo=UTC)))
    assert "no backup can reach 2020-01-01 00:00:00+00:00" in text
    assert story.first in text
    text = refused(story, tmp_path, NoSuitableBackup, TargetLsn(Lsn.parse("0/100100")))
    assert "earliest LSN" in text
    text = refused(story, tmp_path, TargetUnreachable, TargetXid(moments[1].xid), backup_id=story.second)
    assert "not in the archive" in text or story.second in text
    text = refused(story, tmp_path, TargetUnreachable, TargetTime(moments[1].time), backup_id=story.second)
    assert f"backup {story.second} cannot reach" in text
    text = refused(story, tmp_path, TargetUnreachable, TargetTime(datetime.now(UTC) + timedelta(days=1)))
    assert "--latest" in text
    refused(story, tmp_path, TargetUnreachable, TargetLsn(Lsn.parse("FF/0")))
    refused(story, tmp_path, TargetUnreachable, TargetXid(4_000_000_000))
    refused(story, tmp_path, TargetUnreachable, TargetName("never made"))
    text = refused(story, tmp_path, AmbiguousName, TargetName("twice"))
    assert "--lsn" in text
    text = refused(story, tmp_path, TargetUnreachable, TargetXid(story.subtransaction))
    assert f"--xid {story.subtransaction_of}" in text
    refused(story, tmp_path, HistoryMismatch, Latest(), timeline=7)
    refused(story, tmp_path, NoSuitableBackup, Latest(), cluster="other")
    refused(story, tmp_path, UsageError, TargetTime(datetime(2026, 1, 1)))  # noqa: DTZ001 - no zone is the point
    refused(story, tmp_path, UsageError, TargetXid(moments[0].xid), role="standby")


@pytest.fixture
def copied(story: Story, tmp_path: Path) -> Story:
    """The same story with a repository that may be damaged."""
    shutil.copytree(story.source.directory / "repository", tmp_path / "damaged" / "repository")
    store = PosixStore(tmp_path / "damaged" / "repository")
    repository = replace(story.source.repository, store=store)
    return replace(story, source=Source(story.source.cluster, tmp_path / "damaged", repository))


def test_a_hole_is_named_and_what_lies_before_it_restores(copied: Story, tmp_path: Path) -> None:
    source, after = copied.source, copied.moments[1]
    plan = source.plan(tmp_path / "copy", TargetXid(after.xid))
    assert plan.segments is not None
    last = source.cluster.value("SELECT pg_walfile_name(%s::pg_lsn)", params=[str(copied.moments[3].end)])
    source.segment_file(last).unlink()
    for target in (TargetXid(copied.moments[3].xid), Latest(), TargetTime(copied.moments[3].time)):
        text = refused(copied, tmp_path, WalGap, target)
        assert last in text
    hint = re.search(r"--lsn (\S+) --exclusive stops before the gap", refused(copied, tmp_path, WalGap, Latest()))
    assert hint is not None
    to_the_gap = source.plan(tmp_path / "copy", TargetLsn(Lsn.parse(hint[1]), inclusive=False))
    assert to_the_gap.target is not None
    assert to_the_gap.target.inclusive
    assert to_the_gap.target.until < last
    assert source.plan(tmp_path / "copy", TargetXid(after.xid)).target == plan.target


def test_damaged_wal_is_refused_before_anything_is_written(copied: Story, tmp_path: Path) -> None:
    source = copied.source
    segment = source.cluster.value("SELECT pg_walfile_name(%s::pg_lsn)", params=[str(copied.moments[3].start)])
    flip_byte(source.segment_file(segment), 300)
    with pytest.raises(IntegrityError, match=segment):
        source.restore(tmp_path / "copy", Latest())
    assert not (tmp_path / "copy").exists()


def test_damaged_pack_leaves_nothing_that_starts(copied: Story, tmp_path: Path) -> None:
    source = copied.source
    for pack in (source.directory / "repository").rglob("pack/*"):
        flip_byte(pack, pack.stat().st_size // 2)
    with pytest.raises(IntegrityError, match="pack") as caught:
        source.restore(tmp_path / "copy", Latest())
    assert "--delta" in str(caught.value.hint)
    assert not (tmp_path / "copy" / "global" / "pg_control").exists()
    assert source.recover(tmp_path / "copy").outcome == "exited"


def test_a_target_is_the_same_from_either_backup(story: Story, tmp_path: Path) -> None:
    target = TargetXid(story.moments[3].xid)
    from_first = story.source.plan(tmp_path / "copy", target, backup_id=story.first).target
    from_second = story.source.plan(tmp_path / "copy", target, backup_id=story.second).target
    assert from_first is not None
    assert from_second is not None
    assert (from_first.lsn, from_first.inclusive, from_first.until) == (
        from_second.lsn,
        from_second.inclusive,
        from_second.until,
    )


@pytest.mark.majors
@pytest.mark.parametrize("major", [major for major in MAJORS if major != 15])
def test_the_main_path_on_other_majors(major: int, tmp_path: Path) -> None:
    source = Source.make(tmp_path / "source", major=major)
    try:
        source.cluster.sql("CREATE TABLE events (id bigint PRIMARY KEY, body text)")
        source.cluster.sql("INSERT INTO events SELECT n, md5(n::text) FROM generate_series(1, 1000) AS n")
        source.backup()
        kept = source.step("INSERT INTO events VALUES (2000, 'kept')")
        wrong = source.step("DELETE FROM events")
        source.archived()
        source.restore(tmp_path / "copy", TargetXid(wrong.xid, inclusive=False), action="promote")
        recovery = source.recover(tmp_path / "copy")
        assert recovery.outcome == "promoted", recovery.log
        assert recovery.cluster.value(STATE) == kept.state
        plan_restore(source.repository, source.request(tmp_path / "again", TargetTime(kept.time)), silent)
    finally:
        source.discard()
