"""Which files are relations, and which belong into a backup: the latter against pg_basebackup."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitr.pg.relfiles import (
    RelationFile,
    classify,
    directories_to_back_up,
    files_to_back_up,
    relation_directory,
    tablespace_version_directory,
)
from tests.support.cluster import ClusterFactory, as_server_user

RELATIONS = {
    "base/5/16384": RelationFile(1663, 5, 16384, "main", 0),
    "base/5/16384.12": RelationFile(1663, 5, 16384, "main", 12),
    "base/5/16384_fsm": RelationFile(1663, 5, 16384, "fsm", 0),
    "base/5/16384_vm.1": RelationFile(1663, 5, 16384, "vm", 1),
    "base/4294967295/4294967295_init": RelationFile(1663, 4294967295, 4294967295, "init", 0),
    "global/1262": RelationFile(1664, 0, 1262, "main", 0),
    "pg_tblspc/16400/PG_15_202209061/5/2619": RelationFile(16400, 5, 2619, "main", 0),
}
OTHERS = [
    "base/5/PG_VERSION",
    "base/5/pg_filenode.map",
    "base/5/t3_16384",
    "base/5/16384_vm_1",
    "base/5/16384.0",
    "base/5/016384",
    "base/5/16384.1.2",
    "base/5/sub/16384",
    "base/16384",
    "global/pg_control",
    "pg_tblspc/16400/5/2619",
    "pg_xact/0000",
    "16384",
    "base/5/16384\n",
    "/base/5/16384",
    "",
]


@pytest.mark.parametrize("path", RELATIONS)
def test_relation_files(path: str) -> None:
    assert classify(path) == RELATIONS[path]


@pytest.mark.parametrize("path", OTHERS)
def test_other_files(path: str) -> None:
    assert classify(path) is None


@given(
    st.integers(1, 2**32 - 1),
    st.integers(1, 2**32 - 1),
    st.sampled_from(["main", "fsm", "vm", "init"]),
    st.integers(0, 99999),
)
def test_every_relation_path_is_understood(database: int, filenode: int, fork: str, segment: int) -> None:
    path = f"base/{database}/{filenode}{'' if fork == 'main' else '_' + fork}{f'.{segment}' if segment else ''}"
    assert classify(path) == (1663, database, filenode, fork, segment)


def test_blocks_continue_in_the_next_segment() -> None:
    file = classify("base/5/16384.2")
    assert file is not None
    assert file.first_block(131072) == 262144


def test_directories() -> None:
    assert relation_directory("base/5") == (1663, 5)
    assert relation_directory("global") == (1664, 0)
    assert relation_directory(f"pg_tblspc/9/{tablespace_version_directory(15, 202209061)}/5") == (9, 5)
    assert relation_directory("base") is None
    assert relation_directory("pg_wal") is None


def test_unlogged_relations_keep_only_their_init_fork() -> None:
    names = [
        "100",
        "100.1",
        "100_fsm",
        "100_init",
        "1001",
        "1001_fsm",
        "200_init",
        "t1_100",
        "t1_100_fsm",
        "PG_VERSION",
    ]
    assert files_to_back_up("base/5", names) == ["100_init", "1001", "1001_fsm", "200_init", "PG_VERSION"]


def test_names_left_out_at_the_top_are_kept_elsewhere() -> None:
    names = [
        "backup_label.old",
        "tablespace_map",
        "postmaster.pid",
        "recovery.signal",
        "PG_VERSION",
        "backup_manifest.tmp",
    ]
    assert files_to_back_up("", names) == ["PG_VERSION"]
    assert files_to_back_up("my_extension", names) == names


def test_emptied_directories_stay() -> None:
    assert directories_to_back_up("", ["pg_wal", "pg_replslot", "base", "pgsql_tmp"]) == [
        "pg_wal",
        "pg_replslot",
        "base",
    ]
    assert directories_to_back_up("pg_wal", ["archive_status", "summaries", "mine"]) == ["archive_status", "summaries"]
    assert directories_to_back_up("pg_replslot", ["slot"]) == []
    for directory in ("pg_wal", "pg_wal/archive_status", "pg_replslot", "pg_replslot/slot", "pg_subtrans"):
        assert files_to_back_up(directory, ["0000"]) == []


def selected(data_directory: Path) -> tuple[set[str], set[str]]:
    """Files and directories that the rules select, walking as a backup does."""
    files: set[str] = set()
    directories: set[str] = set()
    todo = [""]
    while todo:
        directory = todo.pop()
        entries = list(os.scandir(data_directory / directory))
        prefix = f"{directory}/" if directory else ""
        files |= {
            prefix + name for name in files_to_back_up(directory, [entry.name for entry in entries if entry.is_file()])
        }
        below = [
            prefix + name
            for name in directories_to_back_up(directory, [entry.name for entry in entries if entry.is_dir()])
        ]
        directories.update(below)
        todo += below
    return files, directories


@pytest.mark.pg
@pytest.mark.majors
def test_selects_what_pg_basebackup_does(major: int, cluster_factory: ClusterFactory) -> None:
    cluster = cluster_factory(major, conf={"log_temp_files": "0", "work_mem": "64kB"}).start()
    place, mapped = cluster.directory / "space", cluster.directory / "mapped"
    place.mkdir()
    cluster.sql(f"CREATE TABLESPACE elsewhere LOCATION '{place}'")
    cluster.sql("CREATE TABLE far TABLESPACE elsewhere AS SELECT 1 AS n")
    cluster.sql(
        "CREATE UNLOGGED TABLE passing (id serial PRIMARY KEY, body text); INSERT INTO passing (body) VALUES ('x')"
    )
    cluster.sql("CREATE UNLOGGED TABLE passing_far TABLESPACE elsewhere AS SELECT 1 AS n; CHECKPOINT")
    cluster.sql("SELECT pg_create_physical_replication_slot('slot', true)")
    (cluster.data_directory / "base" / "pgsql_tmp").mkdir(exist_ok=True)
    (cluster.data_directory / "base" / "pgsql_tmp" / "pgsql_tmp1.0").write_text("x")
    for name in ("backup_manifest", "backup_label.old"):
        (cluster.data_directory / name).write_text("x")
    with cluster.connect() as session:
        session.execute("CREATE TEMP TABLE temporary AS SELECT 1 AS n")
        session.execute("CREATE TEMP TABLE temporary_far TABLESPACE elsewhere AS SELECT 1 AS n")
        assert any(name.name.startswith("t") for name in (cluster.data_directory / "base").glob("*/t*_*"))
        files, directories = selected(cluster.data_directory)
        target = cluster.directory / "copy"
        argv = [cluster.tools.path("pg_basebackup"), "-d", cluster.conninfo(), "-D", str(target), "-X", "none"]
        argv += ["-c", "fast", "--no-sync", "-T", f"{place}={mapped}", "--no-manifest"]
        subprocess.run(as_server_user(argv), check=True, capture_output=True)
    copied = {path.relative_to(target).as_posix(): path for path in followed(target)}
    copied_files = {name for name, path in copied.items() if path.is_file()}
    copied_directories = {name for name, path in copied.items() if path.is_dir()}
    # pg_basebackup brings these itself; backup_label.old is ours to leave out (design), PostgreSQL's to keep.
    assert copied_files - files <= {"backup_label", "tablespace_map", "backup_label.old"}
    assert files - copied_files == set()
    # A subdirectory of pg_wal that no file needs may be made or not.
    assert (copied_directories ^ directories) <= {"pg_wal/archive_status", "pg_wal/summaries"}
    assert not any("pgsql_tmp" in name for name in files)


def followed(top: Path) -> list[Path]:
    return [Path(root) / name for root, dirs, names in os.walk(top, followlinks=True) for name in [*dirs, *names]]
