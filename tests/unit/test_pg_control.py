"""pg_control against pg_controldata of real clusters, and against damage."""

from __future__ import annotations

import dataclasses
import struct
import subprocess
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitr.core.errors import ConfigError, IntegrityError, VersionUnsupported
from pitr.core.files import LocalFileError
from pitr.pg.control import (
    CONTROL_FILE,
    ControlData,
    DbState,
    parse_control,
    read_control,
    read_control_file,
    read_major_version,
)
from pitr.pg.crc32c import crc32c
from pitr.pg.lsn import Lsn
from pitr.pg.versions import MAJOR_OF_CATALOG_VERSION
from tests.support.cluster import Cluster, ClusterFactory, wait_until


def controldata(cluster: Cluster) -> dict[str, str]:
    argv = [cluster.tools.path("pg_controldata"), str(cluster.data_directory)]
    text = subprocess.run(argv, capture_output=True, text=True, check=True, env={"LC_ALL": "C", "TZ": "UTC"}).stdout
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def assert_agrees(control: ControlData, said: dict[str, str]) -> None:
    """Every field that pg_controldata prints."""
    yes = {True: "yes", False: "no"}
    on = {True: "on", False: "off"}
    expected = {
        "pg_control version number": str(control.control_version),
        "Catalog version number": str(control.catalog_version),
        "Database system identifier": str(control.system_identifier),
        "Database cluster state": control.state.label,
        "Latest checkpoint location": str(control.checkpoint_lsn),
        "Latest checkpoint's REDO location": str(control.redo_lsn),
        "Latest checkpoint's TimeLineID": str(control.timeline),
        "Latest checkpoint's PrevTimeLineID": str(control.previous_timeline),
        "Latest checkpoint's full_page_writes": on[control.full_page_writes],
        "Latest checkpoint's NextXID": f"{control.next_xid >> 32}:{control.next_xid & 0xFFFFFFFF}",
        "Latest checkpoint's NextOID": str(control.next_oid),
        "Minimum recovery ending location": str(control.min_recovery_lsn),
        "Min recovery ending loc's timeline": str(control.min_recovery_timeline),
        "Backup start location": str(control.backup_start_lsn),
        "Backup end location": str(control.backup_end_lsn),
        "End-of-backup record required": yes[control.backup_end_required],
        "wal_level setting": control.wal_level,
        "wal_log_hints setting": on[control.wal_log_hints],
        "max_connections setting": str(control.recovery_parameters["max_connections"]),
        "max_worker_processes setting": str(control.recovery_parameters["max_worker_processes"]),
        "max_wal_senders setting": str(control.recovery_parameters["max_wal_senders"]),
        "max_prepared_xacts setting": str(control.recovery_parameters["max_prepared_transactions"]),
        "max_locks_per_xact setting": str(control.recovery_parameters["max_locks_per_transaction"]),
        "track_commit_timestamp setting": on[control.track_commit_timestamp],
        "Maximum data alignment": str(control.max_align),
        "Database block size": str(control.block_size_bytes),
        "Blocks per segment of large relation": str(control.relation_segment_blocks),
        "WAL block size": str(control.wal_block_size_bytes),
        "Bytes per WAL segment": str(control.segment_size_bytes),
        "Data page checksum version": str(control.checksum_version),
    }
    assert {key: said[key] for key in expected} == expected
    assert control.float_format == 1234567.0
    assert control.time.strftime("%c") == said["pg_control last modified"]
    assert control.checkpoint_time.strftime("%c") == said["Time of latest checkpoint"]


@pytest.mark.pg
@pytest.mark.majors
def test_agrees_with_pg_controldata(major: int, cluster_factory: ClusterFactory) -> None:
    cluster = cluster_factory(
        major,
        checksums=major % 2 == 1,
        segment_size_mb=4,
        conf={
            "max_connections": "31",
            "max_worker_processes": "9",
            "max_wal_senders": "7",
            "max_prepared_transactions": "5",
            "max_locks_per_transaction": "77",
            "wal_log_hints": "on",
            "track_commit_timestamp": "on",
            "wal_level": "logical",
        },
    )
    cluster.start()
    cluster.sql("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
    cluster.sql("CHECKPOINT")
    path = cluster.data_directory / CONTROL_FILE
    running = read_control(path)
    assert_agrees(running, controldata(cluster))
    assert (running.state, running.major, running.wal_level) == (DbState.IN_PRODUCTION, major, "logical")
    assert running.recovery_parameters == {
        "max_connections": 31,
        "max_worker_processes": 9,
        "max_wal_senders": 7,
        "max_prepared_transactions": 5,
        "max_locks_per_transaction": 77,
    }
    assert running.checksums == (major % 2 == 1)
    cluster.stop()
    stopped = read_control(path)
    assert_agrees(stopped, controldata(cluster))
    assert stopped.state is DbState.SHUTDOWNED
    assert read_major_version(cluster.data_directory) == major


@pytest.mark.pg
def test_agrees_on_a_standby(cluster: Cluster) -> None:
    standby = cluster.make_standby()
    control = read_control(standby.data_directory / CONTROL_FILE)
    assert_agrees(control, controldata(standby))
    standby.start()
    lsn = cluster.commit_lsn("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n")
    wait_until(lambda: standby.lsn() >= lsn)
    standby.stop()
    control = read_control(standby.data_directory / CONTROL_FILE)
    assert_agrees(control, controldata(standby))
    assert control.state is DbState.SHUTDOWNED_IN_RECOVERY
    assert control.min_recovery_lsn > Lsn(0)
    assert control.min_recovery_timeline == 1


@pytest.mark.pg
def test_reads_while_the_server_writes(cluster: Cluster) -> None:
    """Checkpoints, a segment switch each, rewrite pg_control all the time; no reader ever meets a bad one."""
    path = cluster.data_directory / CONTROL_FILE
    seen = set()
    done = threading.Event()

    def checkpoints() -> None:
        with cluster.connect() as connection:
            for _ in range(30):
                connection.execute("SELECT pg_switch_wal()")
                connection.execute("CHECKPOINT")
        done.set()

    writer = threading.Thread(target=checkpoints)
    writer.start()
    while not done.is_set():
        seen.add(read_control(path).checkpoint_lsn)
    writer.join()
    assert len(seen) > 5


def fabricated(major: int, **changes: object) -> bytes:
    """A pg_control that no server wrote, laid out by hand from catalog/pg_control.h."""
    catalog_version = next(version for version, of in MAJOR_OF_CATALOG_VERSION.items() if of == major)
    control_version = changes.get("control_version", {17: 1700, 18: 1800}.get(major, 1300))
    head = struct.pack(
        "<QIIi4xqQ", 7, control_version, changes.get("catalog_version", catalog_version), 6, 1000, 0x2000060
    )
    checkpoint = struct.pack("<QII?3xI", 0x2000028, 3, 2, True, 1 if major >= 18 else 0)
    checkpoint += struct.pack("<QIIIIIII4xqIII4x", 700, 16384, 1, 0, 3, 1, 1, 1, 999, 0, 0, 0)
    tail = struct.pack("<QQI4xQQ?3x", 1000, 0x3000000, 3, 0x10, 0x20, True)
    tail += struct.pack("<i?3xiiiii?3x", 1, False, 100, 8, 10, 0, 64, False)
    tail += struct.pack("<IdIIIIIIII?3xI", 8, 1234567.0, 8192, 131072, 8192, 16 << 20, 64, 32, 1996, 2048, True, 1)
    tail += (b"\1" if major >= 18 else b"") + b"n" * 32
    body = head + checkpoint + tail
    body += b"\0" * (-len(body) % 4)
    return (body + struct.pack("<I", crc32c(body))).ljust(8192, b"\0")


@pytest.mark.parametrize("major", range(13, 19))
def test_every_supported_layout(major: int) -> None:
    control = parse_control(fabricated(major))
    assert (control.major, control.system_identifier, control.timeline, control.previous_timeline) == (major, 7, 3, 2)
    assert (control.redo_lsn, control.checkpoint_lsn) == (Lsn(0x2000028), Lsn(0x2000060))
    assert (control.min_recovery_lsn, control.backup_start_lsn, control.backup_end_lsn) == (0x3000000, 0x10, 0x20)
    assert control.backup_end_required
    assert control.time == datetime.fromtimestamp(1000, UTC)
    assert (control.segment_size_bytes, control.checksum_version) == (16 << 20, 1)
    assert dataclasses.replace(control, timeline=4).timeline == 4


@given(st.integers(0, 290), st.integers(1, 255))
def test_any_flipped_bits_are_noticed(position: int, mask: int) -> None:
    data = bytearray(fabricated(15))
    data[position] ^= mask
    with pytest.raises((IntegrityError, VersionUnsupported)):
        parse_control(bytes(data))


@pytest.mark.parametrize("data", [b"", b"\0" * 8192, fabricated(15)[:100]])
def test_short_and_empty_files_are_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError):
        parse_control(data)


def test_other_versions_are_refused() -> None:
    with pytest.raises(VersionUnsupported, match="1201"):
        parse_control(fabricated(13, control_version=1201))
    with pytest.raises(VersionUnsupported, match="catalog version 202301010"):
        parse_control(fabricated(15, catalog_version=202301010))


def test_torn_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "pg_control"
    torn = bytearray(fabricated(15))
    torn[40] ^= 1
    path.write_bytes(torn)
    mender = threading.Timer(0.1, lambda: path.write_bytes(fabricated(15)))
    mender.start()
    data, control = read_control_file(path)
    mender.join()
    assert data == fabricated(15)
    assert control.timeline == 3


def test_damaged_file_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "pg_control"
    damaged = bytearray(fabricated(15))
    damaged[40] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(IntegrityError, match="pg_control"):
        read_control(path)


def test_no_data_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not a PostgreSQL data directory"):
        read_control(tmp_path / CONTROL_FILE)
    (tmp_path / "global").touch()
    with pytest.raises(ConfigError, match="not a PostgreSQL data directory"):
        read_control(tmp_path / CONTROL_FILE)
    with pytest.raises(ConfigError, match="not a PostgreSQL data directory"):
        read_major_version(tmp_path)


def test_an_unreadable_control_file(tmp_path: Path) -> None:
    with pytest.raises(LocalFileError, match="cannot read"):
        read_control(tmp_path / ("x" * 300) / CONTROL_FILE)


@pytest.mark.parametrize(
    ("text", "error"),
    [("12\n", VersionUnsupported), ("9.6\n", VersionUnsupported), ("", IntegrityError), ("x", IntegrityError)],
)
def test_version_file(tmp_path: Path, text: str, error: type[Exception]) -> None:
    (tmp_path / "PG_VERSION").write_text(text)
    with pytest.raises(error):
        read_major_version(tmp_path)


def test_crc32c_check_value() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"\0" * 32) == 0x8A9136AA  # RFC 3720, B.4
    assert crc32c(bytes(range(32))) == 0x46DD794E


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_crc32c_continues(first: bytes, second: bytes) -> None:
    assert crc32c(second, crc32c(first)) == crc32c(first + second)
