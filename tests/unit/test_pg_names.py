"""LSNs, segment names and archive names."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitr.pg.lsn import Lsn
from pitr.pg.segments import (
    DEFAULT_SEGMENT_SIZE,
    BackupHistoryName,
    HistoryName,
    PartialName,
    SegmentName,
    is_segment_size,
    parse_archive_name,
)
from tests.support.cluster import Cluster

lsns = st.integers(0, 2**64 - 1)
sizes = st.integers(20, 30).map(lambda exponent: 1 << exponent)
timelines = st.integers(1, 2**32 - 1)


@st.composite
def segment_names(draw: st.DrawFn) -> SegmentName:
    size = draw(sizes)
    return SegmentName(draw(timelines), draw(st.integers(0, 2**64 // size - 1)), size)


@given(lsns)
def test_lsn_text_round_trip(value: int) -> None:
    assert Lsn.parse(str(Lsn(value))) == value
    assert f"{Lsn(value)}" == str(Lsn(value))


def test_lsn_shows_itself_as_postgresql_does() -> None:
    assert str(Lsn(0x16B3748)) == "0/16B3748"
    assert str(Lsn(0xAB_0000_000F)) == "AB/F"
    assert repr(Lsn(1)) == "Lsn(0/1)"
    assert str(Lsn(0xFFFFFFFF) + 1) == "1/0"
    assert str(1 + Lsn(0xFFFFFFFF)) == "1/0"
    assert type(Lsn(5) - Lsn(3)) is int
    assert {Lsn(7): "x"}[Lsn(7)] == "x"
    assert Lsn(1) < Lsn(2)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "/",
        "0/",
        "/0",
        "0/0/0",
        "0x1/2",
        " 0/1",
        "0/1 ",
        "0/1\n",
        "G/0",
        "-1/0",
        "123456789/0",
        "0/123456789",
        "٣/0",
    ],
)
def test_not_an_lsn(text: str) -> None:
    with pytest.raises(ValueError, match="not an LSN"):
        Lsn.parse(text)


@given(segment_names())
def test_segment_name_round_trip(name: SegmentName) -> None:
    assert SegmentName.parse(str(name), name.size_bytes) == name
    assert len(str(name)) == 24
    assert name.end - name.start == name.size_bytes
    assert name.next().previous() == name
    assert name.next().start == name.end
    assert SegmentName.containing(name.timeline, name.start, name.size_bytes) == name
    assert SegmentName.containing(name.timeline, name.end - 1, name.size_bytes) == name
    assert SegmentName.ending_at(name.timeline, name.end, name.size_bytes) == name
    assert SegmentName.ending_at(name.timeline, name.start + 1, name.size_bytes) == name
    assert name.at_timeline(9).number == name.number


@given(segment_names())
def test_names_sort_as_positions(name: SegmentName) -> None:
    assert name < name.next()
    assert str(name) < str(name.next()) or name.end == 2**64


@given(segment_names(), st.data())
def test_archive_names_round_trip(name: SegmentName, data: st.DataObject) -> None:
    offset = data.draw(st.integers(0, name.size_bytes - 1))
    for parsed in (name, HistoryName(name.timeline), BackupHistoryName(name, offset), PartialName(name)):
        assert parse_archive_name(str(parsed), name.size_bytes) == parsed


def test_archive_names_look_like_postgresqls() -> None:
    segment = SegmentName(1, 2, DEFAULT_SEGMENT_SIZE)
    assert str(segment) == "000000010000000000000002"
    assert str(SegmentName(1, 256, DEFAULT_SEGMENT_SIZE)) == "000000010000000100000000"
    assert str(HistoryName(2)) == "00000002.history"
    assert str(BackupHistoryName(segment, 0x28)) == "000000010000000000000002.00000028.backup"
    assert str(PartialName(segment)) == "000000010000000000000002.partial"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "..",
        "/etc/passwd",
        "../000000010000000000000002",
        "000000010000000000000002\n",
        "00000001000000000000000",
        "0000000100000000000000020",
        "00000001000000000000000a",
        "000000000000000000000002",
        "000000010000000000000100",
        "00000000.history",
        "0000000A.History",
        "00000002.history.tmp",
        "000000010000000000000002.backup",
        "000000010000000000000002.01000000.backup",
        "000000010000000000000100.00000028.backup",
        "000000010000000000000002.Partial",
        "RECOVERYXLOG",
    ],
)
def test_not_an_archive_name(text: str) -> None:
    with pytest.raises(ValueError):
        parse_archive_name(text, DEFAULT_SEGMENT_SIZE)


def test_segment_size_limits_the_name() -> None:
    assert SegmentName.parse("000000010000000000000FFF", 1 << 20).number == 0xFFF
    with pytest.raises(ValueError):
        SegmentName.parse("000000010000000000000004", 1 << 30)
    for size in (0, 1 << 19, 1 << 31, 3 << 20, -(1 << 24)):
        assert not is_segment_size(size)
        with pytest.raises(ValueError):
            SegmentName.parse("000000010000000000000000", size)


def test_nothing_before_the_first_segment() -> None:
    with pytest.raises(ValueError):
        SegmentName(1, 0, DEFAULT_SEGMENT_SIZE).previous()
    with pytest.raises(ValueError):
        SegmentName.ending_at(1, 0, DEFAULT_SEGMENT_SIZE)


@pytest.mark.pg
def test_agrees_with_pg_walfile_name(shared_cluster: Cluster) -> None:
    for value in (0x1000001, 0x2000000, 0xFFFFFFFF, 0x1_0000_0000, 0x1_0000_0001, 0xAB_CDEF_1234, 2**63):
        lsn = Lsn(value)
        before = shared_cluster.value("SELECT pg_walfile_name(%s::pg_lsn)", params=[str(lsn)])
        assert str(SegmentName.ending_at(1, lsn, DEFAULT_SEGMENT_SIZE)) == before
        assert Lsn.parse(shared_cluster.value("SELECT %s::pg_lsn::text", params=[str(lsn)])) == lsn


def test_the_cold_path_loads_nothing_heavy() -> None:
    modules = ["lsn", "segments", "timelines", "control", "relfiles", "cluster_files", "versions"]
    heavy = {"numpy", "psycopg", "boto3", "subprocess", "click"}
    imports = ", ".join(f"pitr.pg.{name}" for name in modules)
    program = f"import sys, {imports}; sys.exit(', '.join({heavy!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr.strip() == ""
