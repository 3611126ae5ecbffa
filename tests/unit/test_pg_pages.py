"""The vectorised page checksum against a plain reading of checksum_impl.h, and against real clusters."""

from __future__ import annotations

import re
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pitr.pg.pages import PageChecker
from tests.support.cluster import ClusterFactory, as_server_user

OFFSETS = (
    *(0x5B1F36E9, 0xB8525960, 0x02AB50AA, 0x1DE66D2A, 0x79FF467A, 0x9BB9F8A3, 0x217E7CD2, 0x83E13D2C),
    *(0xF8D4474F, 0xE39EB970, 0x42C6AE16, 0x993216FA, 0x7B093B5D, 0x98DAFF3C, 0xF718902A, 0x0B1C9CDB),
    *(0xE58F764B, 0x187636BC, 0x5D7B3BB1, 0xE73DE7DE, 0x92BEC979, 0xCCA6C0B2, 0x304A0979, 0x85AA43D4),
    *(0x783125BB, 0x6CA8EAA2, 0xE407EAC6, 0x4B5CFC3E, 0x9FBF8C76, 0x15CA20BE, 0xF2CA9FD3, 0x959BD756),
)


def plain_checksum(page: bytes, block: int) -> int:
    page = page[:8] + b"\0\0" + page[10:]
    words = struct.unpack(f"<{len(page) // 4}I", page) + (0,) * 64
    sums = list(OFFSETS)
    for index, word in enumerate(words):
        mixed = sums[index % 32] ^ word
        sums[index % 32] = (mixed * 16777619 & 0xFFFFFFFF) ^ mixed >> 17
    result = block
    for value in sums:
        result ^= value
    return result % 65535 + 1


def make_page(rng: np.random.Generator, block: int, size: int = 8192, lsn: int = 0x1_0000_0028) -> bytes:
    page = bytearray(rng.bytes(size))
    struct.pack_into("<IIHHHHHHI", page, 0, lsn >> 32, lsn & 0xFFFFFFFF, 0, 0, 24, 100, size, size | 4, 0)
    struct.pack_into("<H", page, 8, plain_checksum(bytes(page), block))
    return bytes(page)


@given(st.integers(0, 2**32 - 3), st.integers(0, 2**32), st.sampled_from([1024, 4096, 8192, 32768]))
@settings(max_examples=15, deadline=None)
def test_equals_the_plain_algorithm(first_block: int, seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    pages = [make_page(rng, first_block + index, size) for index in range(2)]
    checker = PageChecker(size)
    assert checker.check(b"".join(pages), first_block).ok.tolist() == [True, True]
    assert checker.checksums(b"".join(pages), first_block).tolist() == [
        plain_checksum(page, first_block + index) for index, page in enumerate(pages)
    ]


def test_kinds_of_pages_in_one_buffer() -> None:
    rng = np.random.default_rng(1)
    zero = bytes(8192)
    new_but_not_empty = bytearray(8192)
    new_but_not_empty[8000] = 1
    flipped = bytearray(make_page(rng, 13))
    flipped[8191] ^= 0x80
    pages = [make_page(rng, 10, lsn=0xAB_0000_0000), zero, bytes(new_but_not_empty), bytes(flipped), make_page(rng, 99)]
    check = PageChecker().check(b"".join(pages), 10)
    assert check.ok.tolist() == [True, True, False, False, False]
    assert check.zero.tolist() == [False, True, False, False, False]
    assert check.new.tolist() == [False, True, True, False, False]
    assert check.lsn.tolist() == [0xAB_0000_0000, 0, 0, 0x1_0000_0028, 0x1_0000_0028]
    assert not check.all_ok


def test_without_checksums_only_headers_are_read() -> None:
    rng = np.random.default_rng(2)
    page = bytearray(make_page(rng, 0))
    page[5000] ^= 1
    check = PageChecker(verify=False).check(bytes(page) + bytes(8192), 0)
    assert check.all_ok
    assert check.zero.tolist() == [False, True]
    assert check.lsn.tolist() == [0x1_0000_0028, 0]


@pytest.mark.parametrize("pages", [1, 255, 256, 257, 700])
def test_batches_meet_at_their_borders(pages: int) -> None:
    rng = np.random.default_rng(pages)
    page = make_page(rng, 5000)
    checker = PageChecker()
    bodies = [bytearray(page) for _ in range(pages)]
    for index, checksum in enumerate(checker.checksums(page * pages, 5000)):
        struct.pack_into("<H", bodies[index], 8, checksum)
    for index in {0, pages - 1, pages // 2}:
        assert struct.unpack_from("<H", bodies[index], 8)[0] == plain_checksum(page, 5000 + index)
    buffer = b"".join(bodies)
    assert checker.check(buffer, 5000).all_ok
    assert checker.check(memoryview(bytearray(b"x" + buffer))[1:], 5000).all_ok  # unaligned
    assert not checker.check(buffer, 5001).ok.any()


def test_empty_and_odd_buffers() -> None:
    assert PageChecker().check(b"", 0).ok.tolist() == []
    with pytest.raises(ValueError, match="8193 bytes"):
        PageChecker().check(bytes(8193), 0)
    with pytest.raises(ValueError, match="block size"):
        PageChecker(8000)


RELATION_FILE = re.compile(r"[0-9]+(_fsm|_vm|_init)?(\.[0-9]+)?")


@pytest.mark.pg
@pytest.mark.majors
def test_agrees_with_a_real_cluster(major: int, cluster_factory: ClusterFactory) -> None:
    cluster = cluster_factory(major).start()
    cluster.pgbench_init(1)
    path = cluster.data_directory / cluster.value("SELECT pg_relation_filepath('pgbench_accounts')")
    lsn = cluster.value("SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint")
    cluster.stop()
    checker = PageChecker()
    pages = 0
    for file in cluster.data_directory.glob("[bg][al]*/**/*"):
        if file.is_file() and RELATION_FILE.fullmatch(file.name):
            check = checker.check(file.read_bytes(), 0)
            assert check.all_ok, file
            assert int(check.lsn.max(initial=0)) <= lsn
            pages += len(check.ok)
    assert pages > 2000
    damage(path, [3, 1000])
    assert np.flatnonzero(~checker.check(path.read_bytes(), 0).ok).tolist() == [3, 1000]
    argv = [cluster.tools.path("pg_checksums"), "--check", "-D", str(cluster.data_directory)]
    done = subprocess.run(as_server_user(argv), capture_output=True, text=True, env={"LC_ALL": "C"})
    assert re.findall(r"block (\d+):", done.stderr) == ["3", "1000"]


def damage(path: Path, blocks: list[int]) -> None:
    with path.open("r+b") as file:
        for block in blocks:
            file.seek(block * 8192 + 4000)
            byte = file.read(1)
            file.seek(-1, 1)
            file.write(bytes([byte[0] ^ 1]))
