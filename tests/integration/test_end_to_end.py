"""The main path through the real program: every kind of target, every damage that must be refused."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pitr.pg.lsn import Lsn
from tests.support.cluster import Cluster, Recovery, recover_in, wait_until
from tests.support.site import Site, flip_byte, make_site, object_files, start_archiving, tree_hash

pytestmark = pytest.mark.pg

STATE = "SELECT count(*)::text || ' ' || coalesce(md5(string_agg(md5(t::text), '' ORDER BY id)), '') FROM events AS t"


@dataclass
class Moment:
    """A state of the source: reached right after the transaction ``xid``."""

    state: str
    xid: int
    time: str
    lsn: Lsn


@dataclass
class History:
    """A site whose cluster went through a few moments, all archived."""

    site: Site
    moments: list[Moment] = field(default_factory=list)
    backup: str = ""


def _step(cluster: Cluster, statement: str) -> Moment:
    """One transaction; the position behind its commit, and a time between it and the next one."""
    with cluster.connect(autocommit=False) as connection:
        connection.execute(statement.encode())
        row = connection.execute("SELECT pg_current_xact_id()::text").fetchone()
        assert row is not None
        connection.commit()
    lsn = cluster.lsn()
    return Moment(cluster.value(STATE), int(row[0]), cluster.value("SELECT clock_timestamp()::text"), lsn)


def _archived(cluster: Cluster) -> None:
    """Switch the segment and wait until everything before it is in the archive."""
    name = cluster.switch_wal()
    wait_until(
        lambda: cluster.value("SELECT last_archived_wal >= %s FROM pg_stat_archiver", params=[name]), what="archiving"
    )


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[History]:
    directory = tmp_path_factory.mktemp("e2e")
    cluster = Cluster.make(conf={"autovacuum": "off"}, fresh=True).start()
    site = make_site(directory / "site", cluster)
    start_archiving(site)
    tablespace = directory / "space"
    tablespace.mkdir(mode=0o700)
    cluster.sql(f"CREATE TABLESPACE space LOCATION '{tablespace}'")
    cluster.sql("CREATE TABLE events (id bigint PRIMARY KEY, body text) TABLESPACE space")
    cluster.sql("INSERT INTO events SELECT n, repeat(md5(n::text), 20) FROM generate_series(1, 5000) AS n")
    found = History(site)
    found.backup = site.result("backup", "base", "--label", "nightly")["backup_id"]
    for number in range(4):
        first = 900_000 + number * 1000
        statement = f"INSERT INTO events SELECT n, 'later' FROM generate_series({first}, {first + 99}) AS n"
        found.moments.append(_step(cluster, statement))
        cluster.sql(f"SELECT pg_create_restore_point('moment-{number}')")
        _archived(cluster)
    cluster.sql("DELETE FROM events")
    _archived(cluster)
    yield found
    cluster.discard()


def _restored(site: Site, to: Path, *arguments: str) -> Recovery:
    space = to.with_name(to.name + "-space")
    site.ok("restore", "base", "--to", str(to), "--tablespace", f"space={space}", *arguments)
    return recover_in(to)


@pytest.mark.parametrize("kind", ["xid", "time", "lsn", "name", "xid-exclusive", "lsn-exclusive"])
def test_each_kind_of_target_reaches_its_moment(history: History, kind: str, tmp_path: Path) -> None:
    moment, following = history.moments[1], history.moments[2]
    arguments = {
        "xid": ["--xid", str(moment.xid)],
        "xid-exclusive": ["--xid", str(following.xid), "--exclusive"],
        "time": ["--time", moment.time],
        "lsn": ["--lsn", str(Lsn(moment.lsn - 1))],
        "lsn-exclusive": ["--lsn", str(moment.lsn), "--exclusive"],
        "name": ["--name", "moment-1"],
    }[kind]
    recovery = _restored(history.site, tmp_path / "copy", *arguments)
    assert recovery.outcome == "paused", recovery.log
    assert recovery.cluster.value(STATE) == moment.state
    recovery.cluster.discard()


def test_latest_and_immediate(history: History, tmp_path: Path) -> None:
    latest = _restored(history.site, tmp_path / "latest", "--action", "promote")
    assert latest.outcome == "promoted"
    assert latest.cluster.value("SELECT count(*) FROM events") == 0
    assert latest.cluster.value("SHOW archive_mode") == "off"
    immediate = _restored(history.site, tmp_path / "immediate", "nightly", "--immediate")
    assert immediate.outcome == "paused", immediate.log
    assert immediate.cluster.value("SELECT count(*) FROM events") == 5000


def test_delta_repairs_what_differs(history: History, tmp_path: Path) -> None:
    to, space = tmp_path / "copy", tmp_path / "copy-space"
    where = ("--to", str(to), "--tablespace", f"space={space}", "--xid", str(history.moments[0].xid))
    history.site.ok("restore", "base", *where)
    before = tree_hash(to)
    victim = next(path for path in (to / "base").rglob("*") if path.is_file() and path.stat().st_size > 16384)
    flip_byte(victim, 9000)
    (to / "base" / "intruder").write_bytes(b"x")
    history.site.refused(2, "restore", "base", *where)
    result = history.site.result("restore", "base", *where, "--delta")
    assert 0 < result["bytes_written"] < 4 << 20
    assert result["removed_files"] >= 1
    changed = {name for name, data in tree_hash(to).items() if before.get(name) != data}
    assert changed <= {"postgresql.auto.conf", "backup_label"}
    recovery = recover_in(to)
    assert recovery.outcome == "paused", recovery.log
    assert recovery.cluster.value(STATE) == history.moments[0].state


def test_list_show_and_status(history: History) -> None:
    listed = history.site.result("list")
    (shop,) = listed["clusters"]
    assert [row["id"] for row in shop["backups"]] == [history.backup]
    shown = history.site.result("show", "nightly")
    assert history.backup in str(shown)
    assert history.site.run("status").returncode == 0
    monitored = history.site.run("status", "--nagios")
    assert monitored.returncode == 0
    assert monitored.stdout.startswith("PITR OK - shop: newest backup is ")
    assert history.site.run("status", "--nagios", "--cluster", "shop", "--repo", "file:///nowhere").returncode == 3


def test_unreachable_targets_are_refused_before_anything_is_written(history: History, tmp_path: Path) -> None:
    to = tmp_path / "copy"
    for exit_code, arguments in (
        (30, ["--time", "2020-01-01T00:00:00Z"]),
        (31, ["--time", "2099-01-01T00:00:00Z"]),
        (31, ["--lsn", "FF/0"]),
        (30, ["--lsn", "0/1000100"]),
        (31, ["--xid", "4000000000"]),
        (31, ["--name", "never-made"]),
        (33, ["--latest", "--timeline", "7"]),
        (2, ["--time", "2026-01-01 00:00:00"]),
        (2, ["--latest", "--immediate"]),
    ):
        error = history.site.refused(
            exit_code, "restore", "base", "--to", str(to), "--tablespace", f"space={tmp_path / 's'}", *arguments
        )
        assert error["message"], arguments
        assert not to.exists()


def test_damage_in_the_repository_is_refused(history: History, tmp_path: Path) -> None:
    def damaged(name: str, *parts: str) -> tuple[Site, Path]:
        site = history.site.with_copied_repository(tmp_path / name)
        victim = max(object_files(site.repository, *parts), key=lambda path: path.stat().st_size)
        flip_byte(victim)
        return site, tmp_path / f"{name}-copy"

    for name, parts in (
        ("pack", ("/base/", "/pack/")),
        ("map", ("/base/", "/map")),
        ("manifest", ("/base/", "backup.json")),
        ("segment", ("/wal/00000001/", str(_segment_of(history, 2)))),
    ):
        site, to = damaged(name, *parts)
        error = site.refused(
            50, "restore", "base", "--to", str(to), "--tablespace", f"space={tmp_path / (name + '-s')}",
            "--xid", str(history.moments[3].xid),
        )  # fmt: skip
        assert "pitr" not in error["code"]
        assert not (to / "global" / "pg_control").exists()
        shutil.rmtree(site.directory)


def _segment_of(history: History, number: int) -> str:
    cluster = history.site.cluster
    found = cluster.value("SELECT pg_walfile_name(%s::pg_lsn)", params=[str(history.moments[number].lsn)])
    assert isinstance(found, str)
    return found


def test_a_hole_in_the_archive_is_named(history: History, tmp_path: Path) -> None:
    site = history.site.with_copied_repository(tmp_path / "hole")
    segment = _segment_of(history, 0)
    (victim,) = object_files(site.repository, f"/{segment}")
    victim.unlink()
    error = site.refused(
        32, "restore", "base", "--to", str(tmp_path / "copy"), "--tablespace", f"space={tmp_path / 's'}",
        "--xid", str(history.moments[3].xid),
    )  # fmt: skip
    assert segment in error["message"] + str(error["detail"])
    assert not (tmp_path / "copy").exists()


def test_recovery_never_opens_for_writes_on_a_broken_archive(history: History, tmp_path: Path) -> None:
    """Segments lost, damaged or out of reach between the restore and the start: FATAL, never a promotion."""
    segment = _segment_of(history, 3)
    for kind in ("lost", "flipped", "out of reach"):
        site = history.site.with_copied_repository(tmp_path / kind)
        site.repo_lines = ('retry_deadline = "2s"',)
        site.write_config()
        to = tmp_path / f"{kind[:3]}-copy"
        site.ok(
            "restore", "base", "--to", str(to), "--tablespace", f"space={tmp_path / kind[:3]}-s",
            "--latest", "--action", "promote",
        )  # fmt: skip
        (victim,) = object_files(site.repository, f"/{segment}")
        if kind == "lost":
            victim.unlink()
        elif kind == "flipped":
            flip_byte(victim)
        else:
            site.repository.rename(tmp_path / "elsewhere")
        recovery = recover_in(to, timeout=60)
        assert recovery.outcome == "exited", f"{kind}: {recovery.log}"
        assert "database system is ready to accept connections" not in recovery.log


def test_wrong_keys_and_foreign_clusters_are_refused(history: History, tmp_path: Path) -> None:
    site = history.site.with_copied_repository(tmp_path / "keys")
    other_key = tmp_path / "other.key"
    other_key.write_text("ab" * 32)
    other_key.chmod(0o600)
    site.key_file = other_key
    site.write_config()
    assert site.refused(14, "list")["code"] == "key-unavailable"
    stranger = Cluster.make(fresh=True).start()
    foreign = Site(tmp_path, stranger, history.site.url, history.site.key_file)
    foreign.write_config()
    foreign.ok("wal", "configure", "--apply", "--yes")
    stranger.restart()
    stranger.switch_wal()
    wait_until(lambda: stranger.value("SELECT failed_count > 0 FROM pg_stat_archiver"), what="a refused push")
    assert "another PostgreSQL cluster" in stranger.log
    assert foreign.refused(33, "backup", "base")["code"] == "history-mismatch"
    stranger.discard()


def test_pushing_what_is_not_that_segment_is_refused(history: History, tmp_path: Path) -> None:
    cluster, site = history.site.cluster, history.site.with_copied_repository(tmp_path / "push")
    wal = cluster.data_directory / "pg_wal"
    segment = next(path for path in sorted(wal.iterdir()) if len(path.name) == 24)
    data = segment.read_bytes()
    fake = tmp_path / "pg_wal"
    fake.mkdir()
    following = f"{int(segment.name, 16) + 1:024X}"
    for name, content, words in (
        (segment.name, data[: len(data) // 2], "truncated"),
        (following, data, ""),
        (segment.name, data[:8192] + bytes(8192) + data[16384:], ""),
        (segment.name, bytes(len(data)), ""),
    ):
        path = fake / name
        path.write_bytes(content)
        before = tree_hash(site.repository)
        done = site.run("wal", "push", str(path))
        assert 1 <= done.returncode <= 125, done.stderr
        assert "error:" in done.stderr
        assert words in done.stderr
        assert "Traceback" not in done.stderr
        assert tree_hash(site.repository) == before


def test_a_tablespace_made_after_the_backup_is_never_touched(history: History, tmp_path: Path) -> None:
    cluster = Cluster.make(fresh=True).start()
    site = make_site(tmp_path / "site", cluster)
    start_archiving(site)
    site.ok("backup", "base")
    late = tmp_path / "late"
    late.mkdir(mode=0o700)
    cluster.sql(f"CREATE TABLESPACE late LOCATION '{late}'")
    cluster.sql("CREATE TABLE there (n int) TABLESPACE late")
    cluster.sql("INSERT INTO there SELECT generate_series(1, 1000)")
    cluster.sql("CHECKPOINT")
    _archived(cluster)
    before = tree_hash(late)
    error = site.refused(31, "restore", "base", "--to", str(tmp_path / "copy"), "--latest")
    assert str(late) in error["message"] + str(error["detail"])
    assert tree_hash(late) == before
    assert not (tmp_path / "copy").exists()
    cluster.discard()


def test_a_second_pitr_follows_the_timeline_it_is_told(tmp_path: Path) -> None:
    cluster = Cluster.make(fresh=True).start()
    site = make_site(tmp_path / "site", cluster)
    start_archiving(site)
    cluster.sql("CREATE TABLE events (id bigint, body text)")
    site.ok("backup", "base")
    first = _step(cluster, "INSERT INTO events VALUES (1, 'kept')")
    wrong = _step(cluster, "INSERT INTO events VALUES (2, 'abandoned')")
    _archived(cluster)
    cluster.stop()

    # the old primary is replaced by a restored one, which archives as the same cluster
    new = tmp_path / "new"
    site.ok("restore", "base", "--to", str(new), "--xid", str(first.xid), "--role", "primary", "--action", "promote")
    recovery = recover_in(new)
    assert recovery.outcome == "promoted", recovery.log
    second = _step(recovery.cluster, "INSERT INTO events VALUES (3, 'new life')")
    _archived(recovery.cluster)
    recovery.cluster.stop()

    old = recover_in(_to(site, tmp_path / "old", "--xid", str(wrong.xid), "--timeline", "1"))
    assert old.cluster.value(STATE) == wrong.state
    latest = recover_in(_to(site, tmp_path / "latest", "--latest"))
    assert latest.cluster.value(STATE) == second.state

    # the first segment of timeline 2 is lost while timeline 1 has one of that number: refused, never replayed instead
    copy = site.with_copied_repository(tmp_path / "cut")
    (victim, *_more) = object_files(copy.repository, "/wal/00000002/")
    victim.unlink()
    copy.refused(32, "restore", "base", "--to", str(tmp_path / "cut-copy"), "--latest")
    for made in (old, latest, recovery):
        made.cluster.discard()


def _to(site: Site, directory: Path, *arguments: str) -> Path:
    site.ok("restore", "base", "--to", str(directory), *arguments)
    return directory
