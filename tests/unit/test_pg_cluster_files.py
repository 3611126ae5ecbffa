"""postmaster.pid, tablespace links and Debian's layout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pitr.core.errors import IntegrityError
from pitr.pg.cluster_files import (
    debian_cluster,
    read_postmaster_file,
    server_running,
    tablespace_links,
)
from tests.support.cluster import Cluster


@pytest.mark.pg
def test_running_killed_and_stopped_server(cluster: Cluster) -> None:
    assert server_running(cluster.data_directory) == cluster.pid
    lock = read_postmaster_file(cluster.data_directory)
    assert lock is not None
    assert (lock.data_directory, lock.port, lock.status) == (str(cluster.data_directory), 5432, "ready")
    assert lock.socket_directory == str(cluster.socket_directory)
    assert lock.started is not None
    cluster.kill()
    assert (cluster.data_directory / "postmaster.pid").exists()
    assert server_running(cluster.data_directory) is None
    cluster.start()
    cluster.stop()
    assert read_postmaster_file(cluster.data_directory) is None
    assert server_running(cluster.data_directory) is None


@pytest.mark.pg
def test_tablespace_links(cluster: Cluster) -> None:
    place = cluster.directory / "space"
    place.mkdir()
    cluster.sql(f"CREATE TABLESPACE elsewhere LOCATION '{place}'")
    oid = cluster.value("SELECT oid::bigint FROM pg_tablespace WHERE spcname = 'elsewhere'")
    (cluster.data_directory / "pg_tblspc" / "77").mkdir()
    assert tablespace_links(cluster.data_directory) == {oid: place}


def test_lock_file_of_a_process_that_is_gone(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    (tmp_path / "postmaster.pid").write_text(f"{ended.pid}\n/data\n")
    assert server_running(tmp_path) is None
    lock = read_postmaster_file(tmp_path)
    assert lock is not None
    assert (lock.pid, lock.port, lock.status) == (ended.pid, None, None)


def test_standalone_backend_counts(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        (tmp_path / "postmaster.pid").write_text(f"-{process.pid}\n/data\n")
        assert server_running(tmp_path) == process.pid
    finally:
        process.communicate(b"\n")


def test_own_process_is_not_the_server(tmp_path: Path) -> None:
    (tmp_path / "postmaster.pid").write_text(f"{os.getpid()}\n")
    assert server_running(tmp_path) is None


@pytest.mark.parametrize("text", ["", "\n", "0\n", "abc\n"])
def test_unreadable_lock_file_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "postmaster.pid").write_text(text)
    with pytest.raises(IntegrityError):
        server_running(tmp_path)


def test_no_lock_file(tmp_path: Path) -> None:
    assert server_running(tmp_path) is None
    assert server_running(tmp_path / "missing") is None
    assert tablespace_links(tmp_path) == {}


def test_debian_cluster_is_found_by_its_configuration(tmp_path: Path) -> None:
    data, etc = tmp_path / "it's data", tmp_path / "etc"
    data.mkdir()
    config = etc / "15" / "main"
    config.mkdir(parents=True)
    quoted = str(data).replace("'", "''")
    (config / "postgresql.conf").write_text(f"#data_directory = 'ConfigDir'\ndata_directory = '{quoted}'\t# use data\n")
    found = debian_cluster(data, configuration=etc)
    assert found is not None
    assert (found.major, found.name, found.config_directory) == (15, "main", config)
    assert found.control_argv("restart") == ["pg_ctlcluster", "15", "main", "restart"]
    assert debian_cluster(tmp_path, configuration=etc) is None
