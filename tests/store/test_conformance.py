"""The contract of ``pitr.store.base``, for every driver, bare and wrapped."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from pitr.core.errors import IntegrityError, ObjectExists, ObjectNotFound
from pitr.store import InvalidName, ObjectStore, probe_if_absent

MIB = 1 << 20


class BodyBroke(Exception):
    pass


def read(store: ObjectStore, name: str, **window: int | None) -> bytes:
    return b"".join(store.get(name, **window))  # type: ignore[arg-type]


def names(store: ObjectStore, prefix: str = "", after: str = "") -> list[str]:
    return [info.name for info in store.list(prefix, after=after)]


def breaking(chunks: int, chunk: bytes) -> Iterator[bytes]:
    for _ in range(chunks):
        yield chunk
    raise BodyBroke


def test_put_then_get_stat_and_list_agree(store: ObjectStore) -> None:
    written = store.put("a/b.c", [b"hello ", b"world"])
    assert read(store, "a/b.c") == b"hello world"
    assert (written.name, written.size_bytes) == ("a/b.c", 11)
    assert store.stat("a/b.c").size_bytes == 11
    [listed] = store.list("")
    assert (listed.name, listed.size_bytes) == ("a/b.c", 11)
    for info in (written, listed, store.stat("a/b.c")):
        assert info.modified.tzinfo == UTC
        assert abs(info.modified - datetime.now(UTC)) < timedelta(minutes=2)


def test_empty_object(store: ObjectStore) -> None:
    for body in ([], [b""], iter(())):
        assert store.put("empty", body).size_bytes == 0
        assert read(store, "empty") == b""
        assert read(store, "empty", offset=0, length=0) == b""
        assert store.stat("empty").size_bytes == 0
    with pytest.raises(IntegrityError):
        read(store, "empty", offset=0, length=1)


def test_put_replaces(store: ObjectStore) -> None:
    store.put("name", [b"one, longer"])
    store.put("name", [b"two"])
    assert read(store, "name") == b"two"


def test_missing_object(store: ObjectStore) -> None:
    store.put("other", [b"x"])
    for attempt in (
        lambda: store.stat("other/no"),
        lambda: store.stat("no"),
        lambda: next(store.get("no")),
        lambda: next(store.get("no/no"), None),
        lambda: next(store.get("no", offset=5, length=5), None),
        lambda: next(store.get("no", length=0), None),
    ):
        with pytest.raises(ObjectNotFound):
            attempt()
    assert names(store, "no") == []


def test_a_directory_is_no_object(store: ObjectStore) -> None:
    store.put("dir/object", [b"x"])
    with pytest.raises(ObjectNotFound):
        store.stat("dir")
    with pytest.raises(ObjectNotFound):
        read(store, "dir")
    store.delete(["dir"])
    assert names(store) == ["dir/object"]


@pytest.mark.parametrize("chunks", [1, 7, 12], ids=["small", "one part begun", "multipart"])
@pytest.mark.parametrize("if_absent", [False, True])
def test_body_that_raises_leaves_nothing(store: ObjectStore, big_chunk: bytes, chunks: int, if_absent: bool) -> None:
    with pytest.raises(BodyBroke):
        store.put("broken", breaking(chunks, big_chunk), if_absent=if_absent)
    with pytest.raises(ObjectNotFound):
        store.stat("broken")
    assert names(store) == []


def test_body_that_raises_leaves_the_old_object(store: ObjectStore, big_chunk: bytes) -> None:
    store.put("name", [b"old"])
    with pytest.raises(BodyBroke):
        store.put("name", breaking(12, big_chunk))
    assert read(store, "name") == b"old"


def test_if_absent_refuses_and_keeps(store: ObjectStore) -> None:
    store.put("lease/1", [b"first"], if_absent=True)
    with pytest.raises(ObjectExists):
        store.put("lease/1", [b"second"], if_absent=True)
    assert read(store, "lease/1") == b"first"
    store.delete(["lease/1"])
    store.put("lease/1", [b"third"], if_absent=True)
    assert read(store, "lease/1") == b"third"


def test_if_absent_race_has_one_winner(store: ObjectStore, request: pytest.FixtureRequest) -> None:
    if "moto" in request.node.name:
        return  # its check and its write are two steps
    barrier = threading.Barrier(16)

    def take(number: int) -> bool:
        barrier.wait()
        try:
            store.put("race/lease", [b"writer %d" % number], if_absent=True)
        except ObjectExists:
            return False
        return True

    for _ in range(1 if "seaweedfs" in request.node.name else 10):
        with ThreadPoolExecutor(16) as pool:
            won = list(pool.map(take, range(16)))
        assert won.count(True) == 1
        assert read(store, "race/lease") == b"writer %d" % won.index(True)
        store.delete(["race/lease"])


def test_if_absent_of_several_parts(store: ObjectStore, big_chunk: bytes) -> None:
    store.put("long", [big_chunk] * 12, if_absent=True)
    with pytest.raises(ObjectExists):
        store.put("long", [b"x" * MIB] * 12, if_absent=True)
    assert read(store, "long") == big_chunk * 12


def test_probe_finds_put_if_absent_honest(store: ObjectStore) -> None:
    assert probe_if_absent(store)
    assert names(store) == []


def test_ranges_inside(store: ObjectStore, big_chunk: bytes) -> None:
    content = big_chunk * 3 + b"tail!"
    store.put("ranged", [content])
    windows = [(0, None), (0, 1), (0, 0), (0, len(content)), (1, None), (MIB - 1, 2), (MIB, MIB), (3 * MIB + 4, 1)]
    windows += [(len(content), 0), (len(content), None), (7, 2 * MIB), (5, 0)]
    for offset, length in windows:
        end = len(content) if length is None else offset + length
        assert read(store, "ranged", offset=offset, length=length) == content[offset:end], (offset, length)


def test_ranges_behind_the_end(store: ObjectStore) -> None:
    store.put("ten", [b"0123456789"])
    for offset, length in [(0, 11), (5, 6), (10, 1), (11, None), (11, 0), (11, 1), (-1, 2), (0, -1)]:
        with pytest.raises(IntegrityError):
            read(store, "ten", offset=offset, length=length)


NASTY = [
    "A",
    "a+",
    "a-b.c",
    "a-b/.x",
    "a-b/x",
    "a.b",
    "a/_",
    "a/b",
    "a/c/d",
    "a/zz/1",
    "a0",
    "a=x",
    "b",
    ".hidden",
    "_/a",
]


def test_list_is_in_byte_order(store: ObjectStore) -> None:
    for name in NASTY:
        store.put(name, [name.encode()])
    assert names(store) == sorted(NASTY)


PREFIXES = ["", "a", "a/", "a-", "a-b", "a-b/", "a/c/d", "a/zz/", "nothing", "a.", ".", "a/c/d/e", "a0"]


def test_list_prefix_and_after(store: ObjectStore) -> None:
    for name in NASTY:
        store.put(name, [b""])
    for prefix in PREFIXES:
        wanted = sorted(name for name in NASTY if name.startswith(prefix))
        assert names(store, prefix) == wanted
        for after in (*wanted, prefix, "a", "a-", "a/b/c", "a-b/", "zzz", "0"):
            expected = [name for name in wanted if name > after]
            assert names(store, prefix, after) == expected, f"prefix {prefix!r} after {after!r}"


def test_list_of_many_pages(store: ObjectStore) -> None:
    made = [f"page/{number:05d}" for number in range(1005)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.put(name, [b"x"]), made))
    assert names(store, "page/") == made
    assert names(store, "page/", "page/00999") == made[1000:]
    store.delete(made)
    assert names(store) == []


def test_delete_is_idempotent(store: ObjectStore) -> None:
    for name in ("d/1", "d/2", "d/e/3", "keep/4"):
        store.put(name, [b"x"])
    store.delete(iter(["d/1", "d/nothing", "d/e/3", "nowhere/at/all"]))
    assert names(store) == ["d/2", "keep/4"]
    store.delete(["d/1", "d/2"])
    store.delete([])
    assert names(store) == ["keep/4"]


def test_multipart_object(store: ObjectStore) -> None:
    """40 MB in odd chunks, from a buffer that the body uses again and again."""
    digest = hashlib.sha256()

    def body() -> Iterator[memoryview]:
        buffer = bytearray(777_777)
        for number in range(52):
            pattern = number.to_bytes(4, "big") * (len(buffer) // 4 + 1)
            buffer[:] = pattern[: len(buffer)]
            digest.update(buffer)
            yield memoryview(buffer)

    info = store.put("multi", body())
    found = hashlib.sha256()
    size = 0
    for chunk in store.get("multi"):
        found.update(chunk)
        size += len(chunk)
    assert size == info.size_bytes == store.stat("multi").size_bytes == 52 * 777_777
    assert found.digest() == digest.digest()


@pytest.mark.parametrize("size", [5 * MIB - 1, 5 * MIB, 5 * MIB + 1, 10 * MIB])
def test_sizes_at_the_edge_of_a_part(store: ObjectStore, big_chunk: bytes, size: int) -> None:
    content = (big_chunk * 11)[:size]
    assert store.put("edge", iter([content])).size_bytes == size
    assert read(store, "edge") == content


def test_any_kind_of_buffer(store: ObjectStore) -> None:
    words = memoryview(bytearray(range(64))).cast("I")
    store.put("buffers", [b"bytes", bytearray(b"array"), memoryview(b"view"), words, memoryview(b"abcdef")[::1]])
    assert read(store, "buffers") == b"bytesarrayview" + bytes(range(64)) + b"abcdef"


def test_many_threads(store: ObjectStore, big_chunk: bytes) -> None:
    def work(number: int) -> bool:
        content = big_chunk[number:] + bytes([number]) * 100
        name = f"threads/{number % 5}/{number}"
        store.put(name, [content] * (7 if number % 8 == 0 else 1))
        good = read(store, name, offset=0, length=len(content)) == content
        if number % 3 == 0:
            store.delete([name])
        return good

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(40)))
    assert names(store, "threads/") == sorted(f"threads/{n % 5}/{n}" for n in range(40) if n % 3)


INVALID = [
    "",
    "/a",
    "a/",
    "a//b",
    ".",
    "..",
    "a/../b",
    "a/.",
    "a b",
    "a~",
    "ä",
    "a\n",
    "a\0b",
    "x" * 901,
    "\\",
    "y" * 256,
]


def test_invalid_names(store: ObjectStore) -> None:
    for name in INVALID:
        attempts: list[Callable[[str], object]] = [
            lambda name: store.put(name, [b"x"]),
            lambda name: next(store.get(name), None),
            store.stat,
            lambda name: store.delete([name]),
        ]
        for attempt in attempts:
            with pytest.raises(InvalidName):
                attempt(name)
    for prefix in ("/", "a//", "../", "a/../b", "~"):
        with pytest.raises(InvalidName):
            names(store, prefix)


def test_longest_name(store: ObjectStore) -> None:
    name = "/".join(["n" * 199] * 4) + "/" + "m" * 100
    assert len(name) == 900
    store.put(name, [b"x"])
    assert names(store) == [name]
    assert read(store, name) == b"x"


def test_abandoned_reads_do_no_harm(store: ObjectStore, big_chunk: bytes) -> None:
    store.put("long", [big_chunk] * 6)
    for _ in range(60):
        reading = store.get("long")
        assert next(reading)
        reading.close()  # type: ignore[attr-defined]
    assert read(store, "long") == big_chunk * 6
