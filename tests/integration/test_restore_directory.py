"""What a restore does to directories: refusals, tablespaces, --delta, interruption, configuration, timelines."""

from __future__ import annotations

import fcntl
import os
import random
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pitr.core.errors import HistoryMismatch, Locked, OverwriteRefused, PitrError, TargetUnreachable, UsageError, WalGap
from pitr.core.events import Event, PhaseEnded
from pitr.pg.control import CONTROL_FILE
from pitr.pg.lsn import Lsn
from pitr.restore import Immediate, Latest, TargetLsn, TargetName, TargetXid, run_restore
from pitr.restore.destination import MARKER
from tests.support.archive import PROGRAM
from tests.support.cluster import Cluster, wait_until
from tests.support.restoring import STATE, Moment, Source
from tests.support.site import tree_hash

pytestmark = pytest.mark.pg


class Home:
    """A source with a table in a tablespace, one backup, one moment behind it."""

    def __init__(self, directory: Path) -> None:
        self.source = Source.make(directory)
        cluster = self.source.cluster
        self.space = directory / "a \\ space"
        self.space.mkdir(mode=0o700)
        cluster.sql(f"CREATE TABLESPACE space LOCATION '{self.space}'")
        cluster.sql("CREATE TABLE events (id bigint PRIMARY KEY, body text)")
        cluster.sql("CREATE TABLE spaced (id bigint) TABLESPACE space")
        cluster.sql("INSERT INTO events SELECT n, repeat(md5(n::text), 20) FROM generate_series(1, 5000) AS n")
        cluster.sql("INSERT INTO spaced SELECT generate_series(1, 2000)")
        self.backup = self.source.backup()
        self.moment: Moment = self.source.step("INSERT INTO events VALUES (9000, 'kept')")
        cluster.sql("DELETE FROM spaced WHERE id > 1000; CHECKPOINT")
        self.source.archived()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    made = Home(tmp_path_factory.mktemp("home"))
    yield made
    made.source.discard()


def live_tablespace(home: Home) -> dict[str, bytes]:
    home.source.cluster.sql("CHECKPOINT")
    return tree_hash(home.space)


def test_a_remapped_tablespace_never_leads_back(home: Home, tmp_path: Path) -> None:
    before = live_tablespace(home)
    to, new = tmp_path / "copy", tmp_path / "new space"
    result = home.source.restore(to, Latest(), tablespaces={"space": new}, action="promote")
    hint = f"chown -R postgres: {to} '{new}'"
    assert any(hint in warning for warning in result.warnings) is (os.geteuid() == 0 == to.stat().st_uid)
    (link,) = (to / "pg_tblspc").iterdir()
    assert link.readlink() == new
    assert not (to / "tablespace_map").exists()
    recovery = home.source.recover(to)
    assert recovery.outcome == "promoted", recovery.log
    assert link.readlink() == new
    recovery.cluster.sql("TRUNCATE spaced")
    recovery.cluster.sql("INSERT INTO spaced SELECT generate_series(1, 50)")
    recovery.cluster.sql("CHECKPOINT")
    recovery.cluster.restart("immediate")
    assert recovery.cluster.value("SELECT count(*) FROM spaced") == 50
    recovery.cluster.discard()
    assert live_tablespace(home) == before
    assert home.source.cluster.value("SELECT count(*) FROM spaced") == 1000


def test_tablespaces_in_use_are_refused(home: Home, tmp_path: Path) -> None:
    to, plan = tmp_path / "copy", home.source.plan
    with pytest.raises(OverwriteRefused, match=r"space.*not empty") as caught:
        plan(to, Latest())
    assert "--tablespace space=" in str(caught.value.hint)
    with pytest.raises(UsageError, match="no tablespace spaec"):
        plan(to, Latest(), tablespaces={"spaec": tmp_path / "x"})
    with pytest.raises(UsageError, match="absolute"):
        plan(to, Latest(), tablespaces={"space": Path("relative")})
    with pytest.raises(OverwriteRefused, match="cannot go to"):
        plan(to, Latest(), tablespaces={"space": to / "inside"})
    for key in ("space", str(home.space)):
        assert plan(to, Latest(), tablespaces={key: tmp_path / "x"}).tablespaces[0].location == str(tmp_path / "x")
    with pytest.raises(OverwriteRefused):
        plan(to, Latest(), role="primary")
    assert not to.exists()


def test_a_tablespace_made_after_the_backup(tmp_path: Path) -> None:
    """Refused while its place is in use; on another host (the place is gone) recovery fills it."""
    source = Source.make(tmp_path / "source")
    try:
        source.cluster.sql("CREATE TABLE events (id bigint PRIMARY KEY, body text)")
        source.backup()
        before = source.step("INSERT INTO events VALUES (1, 'before')")
        late = tmp_path / "late"
        late.mkdir(mode=0o700)
        source.cluster.sql(f"CREATE TABLESPACE late LOCATION '{late}'")
        source.cluster.sql("CREATE TABLE there (n int) TABLESPACE late")
        source.cluster.sql("INSERT INTO there SELECT generate_series(1, 1000)")
        source.cluster.sql("CHECKPOINT")
        source.archived()
        content = tree_hash(late)
        with pytest.raises(TargetUnreachable) as caught:
            source.restore(tmp_path / "copy", Latest())
        assert str(late) in caught.value.message
        assert not (tmp_path / "copy").exists()
        source.plan(tmp_path / "copy", TargetXid(before.xid))
        assert tree_hash(late) == content
        source.cluster.stop()
        late.rename(tmp_path / "elsewhere")
        result = source.restore(tmp_path / "copy", Latest())
        assert any(str(late) in warning for warning in result.warnings)
        recovery = source.recover(tmp_path / "copy")
        assert recovery.outcome == "paused", recovery.log
        assert recovery.cluster.value("SELECT count(*) FROM there") == 1000
    finally:
        source.discard()


def test_directories_that_must_not_be_touched(home: Home, tmp_path: Path) -> None:
    where = {"tablespaces": {"space": tmp_path / "x"}}
    live = home.source.cluster.data_directory
    with pytest.raises(OverwriteRefused, match="a server is running"):
        home.source.plan(live, Latest(), delta=True, **where)
    occupied = tmp_path / "documents"
    occupied.mkdir()
    (occupied / "letter").write_text("dear")
    with pytest.raises(UsageError, match="is not empty") as caught:
        home.source.plan(occupied, Latest(), **where)
    assert "--delta" in str(caught.value.hint)
    with pytest.raises(OverwriteRefused, match="not a data directory"):
        home.source.plan(occupied, Latest(), delta=True, **where)
    stranger = Cluster.make(fresh=True)
    with pytest.raises(HistoryMismatch, match="another cluster"):
        home.source.plan(stranger.data_directory, Latest(), delta=True, **where)
    stranger.discard()
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="not a directory"):
        home.source.plan(tmp_path / "file", Latest(), **where)
    assert (occupied / "letter").read_text() == "dear"


def damage(to: Path, seed: int) -> None:
    """Flip, cut, lengthen, delete and add, in a quarter of all files."""
    chance = random.Random(seed)
    files = sorted(path for path in to.rglob("*") if path.is_file() and not path.is_symlink())
    for path in chance.sample(files, len(files) // 4):
        data = bytearray(path.read_bytes())
        match chance.randrange(5):
            case 0 if data:
                data[chance.randrange(len(data))] ^= 0xFF
                path.write_bytes(data)
            case 1:
                path.write_bytes(data[: len(data) // 2])
            case 2:
                path.write_bytes(data + b"\0" * 8192 + b"x")
            case 3:
                path.unlink()
            case _:
                path.with_name(path.name + ".stray").write_bytes(b"stray")
    (to / "pg_wal" / "000000010000000000000001").write_bytes(b"old wal")
    (to / "standby.signal").write_bytes(b"")


@pytest.mark.parametrize("seed", [1, 2])
def test_delta_after_random_damage(home: Home, tmp_path: Path, seed: int) -> None:
    to, new = tmp_path / "copy", tmp_path / "space"
    options = {"tablespaces": {"space": new}}
    first = home.source.restore(to, TargetXid(home.moment.xid), **options)
    pristine, pristine_space = tree_hash(to), tree_hash(new)
    damage(to, seed)
    (new / next(iter(pristine_space))).unlink()
    if not (to / CONTROL_FILE).is_file() or len((to / CONTROL_FILE).read_bytes()) != 8192:
        pytest.fail("choose another seed: this one damages pg_control")
    result = home.source.restore(to, TargetXid(home.moment.xid), delta=True, **options)
    assert 0 < result.bytes_written < first.bytes_written
    assert result.removed_files > 0
    after = tree_hash(to)
    assert {name for name in {*after, *pristine} if after.get(name) != pristine.get(name)} <= {"postgresql.auto.conf"}
    assert tree_hash(new) == pristine_space
    recovery = home.source.recover(to)
    assert recovery.outcome == "paused", recovery.log
    assert recovery.cluster.value(STATE) == home.moment.state
    recovery.cluster.discard()


def test_delta_brings_a_used_copy_back(home: Home, tmp_path: Path) -> None:
    to, options = tmp_path / "copy", {"tablespaces": {"space": tmp_path / "space"}}
    home.source.restore(to, Latest(), action="promote", **options)
    recovery = home.source.recover(to)
    recovery.cluster.sql("INSERT INTO events SELECT n, 'more' FROM generate_series(20000, 30000) AS n")
    recovery.cluster.sql("DROP TABLE spaced")
    recovery.cluster.stop()
    home.source.restore(to, TargetXid(home.moment.xid), delta=True, **options)
    recovery = home.source.recover(to)
    assert recovery.outcome == "paused", recovery.log
    assert recovery.cluster.value(STATE) == home.moment.state
    assert recovery.cluster.value("SELECT count(*) FROM spaced") == 2000
    recovery.cluster.discard()


def test_wal_that_was_never_archived_is_not_removed(home: Home, tmp_path: Path) -> None:
    """Of a server whose archiving failed, pg_wal is the only copy of the last transactions."""
    to, options = tmp_path / "copy", {"tablespaces": {"space": tmp_path / "space"}}
    home.source.restore(to, Immediate(), **options)
    wal, status = to / "pg_wal", to / "pg_wal" / "archive_status"
    archived, only_here = home.source.archived(), "0000000100000000000000FE"
    for name in (archived, only_here):
        (wal / name).write_bytes(b"wal")
        (status / f"{name}.ready").touch()
    with pytest.raises(OverwriteRefused, match=f"{only_here} is not in the archive"):
        home.source.restore(to, Immediate(), delta=True, **options)
    assert (wal / only_here).exists()
    assert (to / CONTROL_FILE).exists()
    (status / f"{only_here}.ready").unlink()
    home.source.restore(to, Immediate(), delta=True, **options)
    assert not (wal / only_here).exists()


def test_two_restores_keep_out_of_each_others_way(home: Home, tmp_path: Path) -> None:
    """One that ends puts pg_control in place; the other would still be writing."""
    to, options = tmp_path / "copy", {"tablespaces": {"space": tmp_path / "space"}}
    home.source.restore(to, Immediate(), **options)
    descriptor = os.open(to, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with pytest.raises(Locked, match="another restore"):
            home.source.restore(to, Immediate(), delta=True, **options)
    finally:
        os.close(descriptor)
    assert (to / CONTROL_FILE).exists()
    home.source.restore(to, Immediate(), delta=True, **options)


def test_a_server_started_while_the_target_is_resolved_is_seen(home: Home, tmp_path: Path) -> None:
    to, options = tmp_path / "copy", {"tablespaces": {"space": tmp_path / "space"}}
    home.source.restore(to, Immediate(), **options)
    server = subprocess.Popen(["sleep", "60"])

    def start(event: Event) -> None:
        if isinstance(event, PhaseEnded) and event.phase == "resolve":
            (to / "postmaster.pid").write_text(f"{server.pid}\n")

    try:
        with pytest.raises(OverwriteRefused, match="a server is running"):
            run_restore(home.source.repository, home.source.request(to, Immediate(), delta=True, **options), start)
    finally:
        server.kill()
        server.wait()
    assert (to / CONTROL_FILE).exists()
    assert not (to / MARKER).exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_cut_short_it_cannot_start_and_delta_goes_on(home: Home, tmp_path: Path, number: signal.Signals) -> None:
    to, new = tmp_path / "copy", tmp_path / "space"
    environment = {**os.environ, "PITR_REPO": home.source.url, "PITR_ENCRYPTION": "false"}
    argv = [str(PROGRAM), "--cluster", "shop", "restore", "base", "--to", str(to), "--tablespace", f"space={new}"]
    process = subprocess.Popen(
        [*argv, "--max-rate", "1M"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    wait_until(lambda: (to / "base" / "1").is_dir() or process.poll() is not None, 30.0, "a start")
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == (130 if number == signal.SIGINT else -9), errors
    if number == signal.SIGINT:
        assert "--delta" in errors
    assert not (to / CONTROL_FILE).exists()
    assert (to / MARKER).exists()
    assert home.source.recover(to).outcome == "exited"
    with pytest.raises(UsageError, match="not empty"):
        home.source.restore(to, Latest(), tablespaces={"space": new})
    home.source.restore(to, TargetXid(home.moment.xid), delta=True, tablespaces={"space": new})
    assert not (to / MARKER).exists()
    recovery = home.source.recover(to)
    assert recovery.outcome == "paused", recovery.log
    assert recovery.cluster.value(STATE) == home.moment.state
    recovery.cluster.discard()


def test_settings_of_the_source_do_not_steer_the_copy(home: Home, tmp_path: Path) -> None:
    """A target in postgresql.conf, commands of an earlier recovery in postgresql.auto.conf, a recovery.conf."""
    source, to = home.source, tmp_path / "copy"
    cluster = source.cluster
    cluster.sql("ALTER SYSTEM SET recovery_end_command = 'touch /nowhere/at/all'")
    cluster.sql("ALTER SYSTEM SET work_mem = '7MB'")
    conf = cluster.data_directory / "postgresql.conf"
    text = conf.read_text()
    conf.write_text(text + "\nrecovery_target_name = 'leftover'\nrecovery_min_apply_delay = '1h'\n")
    try:
        source.backup()
        moment = source.step("INSERT INTO events VALUES (9500, 'later')")
        source.archived()
        source.restore(to, TargetXid(moment.xid), tablespaces={"space": tmp_path / "space"}, action="promote")
    finally:
        conf.write_text(text)
        cluster.sql("ALTER SYSTEM RESET ALL")
    recovery = source.recover(to)
    assert recovery.outcome == "promoted", recovery.log
    assert recovery.cluster.value(STATE) == moment.state
    assert recovery.cluster.value("SHOW work_mem") == "7MB"
    recovery.cluster.discard()


def test_configuration_outside_the_data_directory(tmp_path: Path) -> None:
    """Debian's layout: plain pg_ctl -D works on the copy, and it is the copy that starts."""
    source = Source.make(tmp_path / "source", start=False)
    try:
        cluster, etc = source.cluster, tmp_path / "etc" / "main"
        (etc / "conf.d").mkdir(parents=True)
        (etc / "empty.d").mkdir()
        data = cluster.data_directory
        for name in ("postgresql.conf", "pg_hba.conf", "pg_ident.conf"):
            (data / name).rename(etc / name)
        (etc / "conf.d" / "extra.conf").write_text("work_mem = '9MB'\n")
        with (etc / "postgresql.conf").open("a") as conf:
            conf.write(
                f"data_directory = '{data}'\nhba_file = '{etc}/pg_hba.conf'\nident_file = '{etc}/pg_ident.conf'\n"
            )
            conf.write(f"external_pid_file = '{tmp_path}/main.pid'\n")
            conf.write(f"include_dir 'empty.d'\ninclude_dir '{etc}/conf.d'\n")
        cluster.settings["config_file"] = str(etc / "postgresql.conf")
        cluster.start()
        cluster.sql("CREATE TABLE events (id bigint PRIMARY KEY, body text)")
        source.backup()
        moment = source.step("INSERT INTO events VALUES (1, 'x')")
        source.archived()
        pid_file = (tmp_path / "main.pid").read_text()
        to = tmp_path / "copy"
        result = source.restore(to, TargetXid(moment.xid))
        assert result.config_directory == f"{to}/restored-config"
        (etc / "conf.d" / "extra.conf").write_text("work_mem = '1MB'\n")
        recovery = source.recover(to)
        assert recovery.outcome == "paused", recovery.log
        copy = recovery.cluster
        assert copy.value(STATE) == moment.state
        assert copy.value("SHOW data_directory") == str(to)
        assert copy.value("SHOW hba_file").startswith(f"{to}/restored-config/")
        assert copy.value("SHOW work_mem") == "9MB"
        assert (tmp_path / "main.pid").read_text() == pid_file
    finally:
        source.discard()


def test_configuration_outside_of_a_restored_cluster(tmp_path: Path) -> None:
    """Restored in place, a cluster of Debian has its old configuration in the data directory, too."""
    source = Source.make(tmp_path / "source", start=False)
    try:
        cluster, etc = source.cluster, tmp_path / "etc"
        etc.mkdir()
        data = cluster.data_directory
        for name in ("postgresql.conf", "pg_hba.conf", "pg_ident.conf"):
            (data / name).rename(etc / name)
        with (etc / "postgresql.conf").open("a") as conf:
            conf.write(
                f"data_directory = '{data}'\nhba_file = '{etc}/pg_hba.conf'\nident_file = '{etc}/pg_ident.conf'\n"
            )
        cluster.settings["config_file"] = str(etc / "postgresql.conf")
        cluster.start()
        cluster.sql("CREATE TABLE events (id bigint PRIMARY KEY, body text)")
        source.backup()
        cluster.stop()
        source.restore(data, Immediate(), delta=True, role="primary", action="promote")
        (etc / "pg_ident.conf").write_text("# newer\n")
        cluster.start()
        wait_until(lambda: not cluster.value("SELECT pg_is_in_recovery()"), 60.0, "the promotion")
        source.backup()
        moment = source.step("INSERT INTO events VALUES (1, 'x')")
        source.archived()
        for to, options in ((tmp_path / "copy", {}), (tmp_path / "copy", {"delta": True})):
            result = source.restore(to, TargetXid(moment.xid), **options)
            assert result.config_directory == f"{to}/restored-config-2"
            recovery = source.recover(to)
            assert recovery.outcome == "paused", recovery.log
            assert recovery.cluster.value(STATE) == moment.state
            assert Path(recovery.cluster.value("SHOW ident_file")).read_text() == "# newer\n"
            recovery.cluster.stop()
    finally:
        source.discard()


def test_a_data_directory_setting_does_not_start_production(tmp_path: Path) -> None:
    source = Source.make(tmp_path / "source", start=False)
    try:
        source.cluster.configure({"data_directory": str(source.cluster.data_directory)})
        source.cluster.configure({"hba_file": f"{source.cluster.data_directory}/pg_hba.conf"})
        source.cluster.start()
        source.cluster.sql("CREATE TABLE events (id bigint PRIMARY KEY, body text)")
        source.backup()
        source.cluster.stop()
        to = tmp_path / "copy"
        source.restore(to, Immediate())
        recovery = source.recover(to)
        assert recovery.outcome == "paused", recovery.log
        assert recovery.cluster.value("SHOW data_directory") == str(to)
        assert recovery.cluster.value("SHOW hba_file") == f"{to}/pg_hba.conf"
    finally:
        source.discard()


def test_a_dropped_database_comes_back_whole(tmp_path: Path) -> None:
    """Stopping at the drop's commit would be too late: its files are gone before."""
    source = Source.make(tmp_path / "source")
    try:
        source.cluster.sql("CREATE TABLE events (id bigint PRIMARY KEY, body text)")
        source.cluster.sql("CREATE DATABASE precious")
        source.cluster.sql("CREATE TABLE gold AS SELECT generate_series(1, 100) AS n", db="precious")
        source.backup()
        kept = source.step("INSERT INTO events VALUES (1, 'kept')")
        start = source.cluster.lsn()
        source.cluster.sql("DROP DATABASE precious")
        end = source.cluster.lsn()
        source.step("INSERT INTO events VALUES (2, 'afterwards')")
        source.archived()
        xid = kept.xid + 1
        to = tmp_path / "copy"
        result = source.restore(to, TargetXid(xid, inclusive=False))
        assert result.plan.target is not None
        assert start <= result.plan.target.lsn < end
        assert any("DROP DATABASE" in warning for warning in result.warnings)
        recovery = source.recover(to)
        assert recovery.outcome == "paused", recovery.log
        assert recovery.cluster.value("SELECT sum(n) FROM gold", db="precious") == 5050
        assert recovery.cluster.value(STATE) == kept.state
    finally:
        source.discard()


def test_parameters_that_rose_after_the_backup(tmp_path: Path) -> None:
    source = Source.make(tmp_path / "source")
    try:
        source.cluster.sql("CREATE TABLE events (id bigint PRIMARY KEY, body text)")
        source.backup()
        source.cluster.configure({"max_connections": "177"})
        source.cluster.restart()
        moment = source.step("INSERT INTO events VALUES (1, 'x')")
        source.archived()
        for role in ("copy", "primary"):
            result = source.restore(tmp_path / role, TargetXid(moment.xid), role=role)
            assert "max_connections = '177'" in result.plan.settings
        recovery = source.recover(tmp_path / "copy")
        assert recovery.outcome == "paused", recovery.log
        assert recovery.cluster.value(STATE) == moment.state
    finally:
        source.discard()


def test_timelines(tmp_path: Path) -> None:
    """A restored primary goes on on timeline 2 while the old one is gone: both pasts can be reached by number."""
    source = Source.make(tmp_path / "source")
    try:
        source.cluster.sql("CREATE TABLE events (id bigint PRIMARY KEY, body text)")
        backup = source.backup()
        kept = source.step("INSERT INTO events VALUES (1, 'kept')")
        wrong = source.step("INSERT INTO events VALUES (2, 'abandoned')")
        source.cluster.sql("SELECT pg_create_restore_point('only on 1')")
        source.archived()
        source.archived()
        source.cluster.stop()
        new = tmp_path / "new"
        source.restore(new, TargetXid(kept.xid), role="primary", action="promote")
        recovery = source.recover(new)
        assert recovery.outcome == "promoted", recovery.log
        successor = recovery.cluster
        later = source.step("INSERT INTO events VALUES (3, 'new life')", successor)
        source.archived(successor)
        successor.stop()

        plan = source.plan(tmp_path / "latest", Latest())
        assert (plan.timeline, plan.backup_id) == (2, backup)
        assert any("timeline 1 went on" in warning for warning in plan.warnings)
        assert "recovery_target_timeline = '2'" in plan.settings
        source.restore(tmp_path / "latest", Latest())
        latest = source.recover(tmp_path / "latest")
        assert latest.cluster.value(STATE) == later.state, latest.log
        source.restore(tmp_path / "old", TargetXid(wrong.xid), timeline=1)
        old = source.recover(tmp_path / "old")
        assert old.cluster.value(STATE) == wrong.state, old.log
        with pytest.raises(HistoryMismatch, match="not on timeline 2") as caught:
            source.plan(tmp_path / "x", TargetName("only on 1"))
        assert caught.value.hint == "--timeline 1"

        # timeline 2's first segment is lost, timeline 1 has one of that number: refused, and never replayed instead
        victims = sorted((source.directory / "repository").rglob("00000002????????????????"))
        for victim in victims:
            victim.unlink()
        with pytest.raises(WalGap, match=victims[0].name) as gap:
            source.plan(tmp_path / "x", Latest())
        switch = re.search(r"--timeline 1 --lsn (\S+) --exclusive", str(gap.value.hint))
        assert switch is not None
        source.restore(tmp_path / "switch", TargetLsn(Lsn.parse(switch[1]), inclusive=False), timeline=1)
        up_to_switch = source.recover(tmp_path / "switch")
        assert up_to_switch.cluster.value(STATE) == kept.state, up_to_switch.log
    finally:
        source.discard()


def test_a_standby_follows(home: Home, tmp_path: Path) -> None:
    to, cluster = tmp_path / "standby", home.source.cluster
    conninfo = f"host={cluster.socket_directory} port=5432 user=postgres"
    result = home.source.restore(
        to, Latest(), role="standby", primary_conninfo=conninfo, tablespaces={"space": tmp_path / "space"}
    )
    assert result.plan.target is None
    standby = Cluster.at(to)
    try:
        standby.start()
        moment = home.source.step("INSERT INTO events VALUES (9900, 'streamed')")
        wait_until(lambda: standby.value(STATE) == moment.state, 30.0, "streaming")
        assert standby.value("SELECT count(*) FROM pg_stat_wal_receiver") == 1
    finally:
        standby.discard()


def test_a_moved_database_is_no_dropped_one(home: Home, tmp_path: Path) -> None:
    cluster = home.source.cluster
    cluster.sql("CREATE DATABASE moving")
    cluster.sql("CREATE TABLE kept AS SELECT generate_series(1, 10) AS n", db="moving")
    cluster.sql("ALTER DATABASE moving SET TABLESPACE space")
    moment = home.source.step("INSERT INTO events VALUES (9700, 'moved')")
    home.source.archived()
    to, new = tmp_path / "copy", tmp_path / "space"
    result = home.source.restore(to, TargetXid(moment.xid), tablespaces={"space": new})
    assert not any("DROP" in warning for warning in result.warnings)
    recovery = home.source.recover(to)
    assert recovery.outcome == "paused", recovery.log
    assert recovery.cluster.value("SELECT count(*) FROM kept", db="moving") == 10
    recovery.cluster.discard()


def test_errors_while_writing_say_how_to_go_on(home: Home, tmp_path: Path) -> None:
    to = tmp_path / "copy"
    packs = [path for path in (home.source.directory / "repository").rglob("pack/*") if path.is_file()]
    hidden = [path.rename(path.with_name(path.name + ".away")) for path in packs]
    try:
        with pytest.raises(PitrError) as caught:
            home.source.restore(to, Immediate(), tablespaces={"space": tmp_path / "space"})
        assert "--delta" in str(caught.value.hint)
        assert not (to / CONTROL_FILE).exists()
    finally:
        for path in hidden:
            path.rename(path.with_name(path.name.removesuffix(".away")))
    home.source.restore(to, Immediate(), tablespaces={"space": tmp_path / "space"}, delta=True)
    assert (to / CONTROL_FILE).exists()
