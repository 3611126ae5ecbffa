"""The test support itself: what other tests take for granted about their clusters."""

from __future__ import annotations

import os
import subprocess
import sys

import psycopg
import pytest

from tests.support.cluster import MAJORS, Cluster, ClusterFactory, recover_in, wait_until

pytestmark = pytest.mark.pg


@pytest.mark.majors
def test_starts_and_stops_every_major(major: int, cluster_factory: ClusterFactory) -> None:
    cluster = cluster_factory(major, checksums=major % 2 == 0, conf={"application_name": "it's"}).start()
    assert cluster.value("SHOW server_version_num").startswith(str(major))
    assert cluster.value("SHOW data_checksums") == ("on" if major % 2 == 0 else "off")
    cluster.stop()
    assert not cluster.running
    assert "database system is shut down" in cluster.log


def test_machine_has_the_majors_the_suite_relies_on() -> None:
    assert {15, 16, 17, 18} <= set(MAJORS)


def test_kill_and_restart_recovers(cluster: Cluster) -> None:
    cluster.sql("CREATE TABLE t AS SELECT generate_series(1, 100) AS n")
    cluster.kill()
    cluster.start()
    assert cluster.value("SELECT count(*) FROM t") == 100
    assert "automatic recovery in progress" in cluster.log


def test_standby_follows_and_is_promoted(cluster: Cluster) -> None:
    standby = cluster.make_standby().start()
    lsn = cluster.commit_lsn("CREATE TABLE t AS SELECT 1 AS n")
    wait_until(lambda: standby.lsn() >= lsn)
    assert standby.value("SELECT n FROM t") == 1
    standby.promote()
    assert standby.value("SELECT pg_is_in_recovery()") is False


def test_recovery_of_a_copy_promotes(cluster: Cluster, cluster_factory: ClusterFactory) -> None:
    cluster.pgbench(scale=1, seconds=1)
    cluster.stop()
    subprocess.run(["cp", "-a", cluster.data_directory, cluster.directory / "copy"], check=True)
    recovery = recover_in(cluster.directory / "copy")
    assert recovery.outcome == "promoted"
    assert recovery.cluster.value("SELECT count(*) FROM pgbench_accounts") == 100_000


def test_recovery_that_cannot_work_exits(cluster_factory: ClusterFactory) -> None:
    broken = cluster_factory()
    (broken.data_directory / "recovery.signal").touch()
    recovery = recover_in(broken.data_directory)
    assert recovery.outcome == "exited"
    assert "must specify restore_command" in recovery.log


def test_server_ends_with_the_process_that_started_it() -> None:
    program = (
        "from tests.support.cluster import Cluster; import os, signal;"
        "c = Cluster.make().start(); print(c.pid, c.conninfo(), flush=True); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    pid, conninfo = done.stdout.strip().split(" ", 1)

    def gone() -> bool:
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            return True
        return False

    try:
        wait_until(gone, what="the end of the orphaned postmaster")
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(conninfo)
    finally:
        subprocess.run(["rm", "-rf", conninfo.split()[0].removeprefix("host=").rsplit("/", 1)[0]], check=True)
