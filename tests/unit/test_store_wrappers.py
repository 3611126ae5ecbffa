"""Retrying, throttling, counting and the faulty store, by a clock of the test's own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from pitr.core.errors import NoSpace, ObjectExists, ObjectNotFound, StoreDenied, StoreError, StoreUnavailable
from pitr.store import ObjectInfo, Retrying, RetryPolicy
from pitr.store.memory import MemoryStore
from pitr.store.s3_list import Page, listed
from pitr.store.wrappers import Counting, ReadOnly, Throttled, TokenBucket
from tests.support.faulty_store import FaultyStore


class FakeTime:
    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def sleep(self, delay_s: float) -> None:
        self.slept.append(delay_s)
        self.now += delay_s

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


def retrying(store: FaultyStore | MemoryStore, time: FakeTime, **changes: object) -> Retrying:
    options: dict[str, object] = {"base_delay_s": 1.0, "max_delay_s": 8.0, "jitter": lambda: 0.0}
    policy = RetryPolicy(sleep=time.sleep, monotonic=time.monotonic, **(options | changes))  # type: ignore[arg-type]
    return Retrying(store, policy)


def test_delays_double_up_to_the_limit(time: FakeTime) -> None:
    faulty = FaultyStore(MemoryStore(), "put:fail," * 6)
    retrying(faulty, time).put("a", [b"x"])
    assert time.slept == [1, 2, 4, 8, 8, 8]


def test_jitter_shortens_by_up_to_half(time: FakeTime) -> None:
    faulty = FaultyStore(MemoryStore(), "stat:fail,stat:fail")
    shares = iter([0.0, 1.0])
    with pytest.raises(ObjectNotFound):
        retrying(faulty, time, jitter=lambda: next(shares)).stat("a")
    assert time.slept == [1, 1]


def test_deadline_and_attempts_end_it(time: FakeTime) -> None:
    faulty = FaultyStore(MemoryStore(), "put:fail," * 50)
    with pytest.raises(StoreUnavailable):
        retrying(faulty, time, deadline_s=20.0).put("a", [b"x"])
    assert time.slept == [1, 2, 4, 8]  # 15 seconds gone, the next 8 would be too many
    time.slept.clear()
    with pytest.raises(StoreUnavailable):
        retrying(faulty, time, attempts=3).put("a", [b"x"])
    assert time.slept == [1, 2]


@pytest.mark.parametrize(("fault", "error"), [("denied", StoreDenied), ("full", NoSpace), ("missing", ObjectNotFound)])
def test_only_transient_errors_are_retried(time: FakeTime, fault: str, error: type[Exception]) -> None:
    store = retrying(FaultyStore(MemoryStore(), f"put:{fault}"), time)
    with pytest.raises(error):
        store.put("a", [b"x"])
    assert time.slept == []


def test_a_list_is_put_again_a_stream_only_when_untouched(time: FakeTime) -> None:
    memory = MemoryStore()
    retrying(FaultyStore(memory, "put:torn,put:fail,put:torn"), time).put("a", [b"1", b"2", b"3"])
    assert b"".join(memory.get("a")) == b"123"
    retrying(FaultyStore(memory, "put:fail"), time).put("b", iter([b"1", b"2"]))
    assert b"".join(memory.get("b")) == b"12"
    with pytest.raises(StoreUnavailable):
        retrying(FaultyStore(memory, "put:torn"), time).put("c", iter([b"1", b"2"]))
    assert [info.name for info in memory.list("")] == ["a", "b"]


def test_an_error_of_the_body_is_no_failure_of_the_store(time: FakeTime) -> None:
    class Source:
        def __iter__(self) -> Iterator[bytes]:
            yield b"x"
            raise StoreUnavailable("another store, read from")

    with pytest.raises(StoreUnavailable, match="another store"):
        retrying(MemoryStore(), time).put("a", Source())
    assert time.slept == []


def test_a_lost_answer_of_put_if_absent(time: FakeTime) -> None:
    memory = MemoryStore()
    store = retrying(FaultyStore(memory, "put:lost"), time)
    assert store.put("a", [b"mi", b"ne"], if_absent=True).size_bytes == 4
    memory.put("b", [b"theirs"])
    for content in (b"mine", b"mines!"):
        store = retrying(FaultyStore(memory, "put:fail"), time)
        with pytest.raises(ObjectExists):
            store.put("b", [content], if_absent=True)
    store = retrying(FaultyStore(memory), time)
    with pytest.raises(ObjectExists):
        store.put("b", [b"theirs"], if_absent=True)  # the first answer is to be believed


def test_get_goes_on_where_it_broke(time: FakeTime) -> None:
    memory = MemoryStore()
    content = bytes(range(256)) * 16384
    memory.put("a", [content])
    store = retrying(FaultyStore(memory, "get:short@100,get:fail,get:short@2000000,get:short@7"), time)
    assert b"".join(store.get("a")) == content
    assert time.slept == [1, 2, 1, 1]  # progress starts anew
    store = retrying(FaultyStore(memory, "get:short@10,get:short@20"), time)
    assert b"".join(store.get("a", offset=5, length=30)) == content[5:35]


def test_get_that_broke_after_its_last_byte_is_complete(time: FakeTime) -> None:
    memory = MemoryStore()
    memory.put("a", [b"0123456789"])
    store = retrying(FaultyStore(memory, "get:short@4"), time)
    assert b"".join(store.get("a", offset=2, length=4)) == b"2345"


def test_list_goes_on_behind_the_last_name(time: FakeTime) -> None:
    memory = MemoryStore()
    for name in "abcde":
        memory.put(name, [b"x"])

    class Breaking(MemoryStore):
        broken = 0

        def list(self, prefix: str, *, after: str = "") -> Iterator[object]:  # type: ignore[override]
            for number, info in enumerate(memory.list(prefix, after=after)):
                if number == 2 and self.broken < 2:
                    self.broken += 1
                    raise StoreUnavailable("page")
                yield info

    assert [info.name for info in retrying(Breaking(), time).list("")] == list("abcde")
    assert len(time.slept) == 2


def test_delete_takes_an_iterator(time: FakeTime) -> None:
    memory = MemoryStore()
    for name in "abc":
        memory.put(name, [b"x"])
    retrying(FaultyStore(memory, "delete:fail,delete:lost"), time).delete(iter("abc"))
    assert list(memory.list("")) == []


def test_token_bucket_holds_the_rate(time: FakeTime) -> None:
    bucket = TokenBucket(1000, burst_bytes=500, sleep=time.sleep, monotonic=time.monotonic)
    bucket.take(500)
    assert time.slept == []
    for _ in range(10):
        bucket.take(300)
    assert time.now == pytest.approx(1003.0)
    time.now += 60
    bucket.take(500)
    before = time.now
    bucket.take(5000)
    assert time.now - before == pytest.approx(5.0)


def test_throttled_both_ways(time: FakeTime) -> None:
    def bucket(rate: float) -> TokenBucket:
        return TokenBucket(rate, burst_bytes=0, sleep=time.sleep, monotonic=time.monotonic)

    store = Throttled(MemoryStore(), up=bucket(1000), down=bucket(4000))
    store.put("a", [b"x" * 1000, b"y" * 3000])
    assert time.now == pytest.approx(1004.0)
    assert len(b"".join(store.get("a", length=2000))) == 2000
    assert time.now == pytest.approx(1004.5)


def test_token_bucket_is_shared_by_threads() -> None:
    slept: list[float] = []
    bucket = TokenBucket(1e6, burst_bytes=0, sleep=slept.append, monotonic=lambda: 0.0)
    threads = [threading.Thread(target=lambda: [bucket.take(10) for _ in range(100)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(slept) == pytest.approx(8000 / 1e6)


def test_read_only_refuses_changes() -> None:
    memory = MemoryStore()
    memory.put("a", [b"x"])
    store = ReadOnly(memory)
    assert not store.caps.can_delete
    with pytest.raises(StoreDenied):
        store.put("a", [b"y"])
    with pytest.raises(StoreDenied):
        store.delete(["a"])
    assert b"".join(store.get("a")) == b"x"


def test_counting() -> None:
    store = Counting(MemoryStore())
    store.put("a", [b"12345", memory_of_words()])
    store.put("b", iter([b"1"]))
    assert len(b"".join(store.get("a", offset=1))) == 12
    store.stat("a")
    list(store.list(""))
    store.delete(iter(["a", "b"]))
    counts = store.counts()
    assert counts.operations == {"put": 2, "get": 1, "stat": 1, "list": 1, "delete": 2}
    assert (counts.sent_bytes, counts.received_bytes) == (14, 12)


def memory_of_words() -> memoryview:
    return memoryview(bytes(8)).cast("I")


def test_faulty_store_spoils_bytes_as_scripted() -> None:
    memory = MemoryStore()
    memory.put("a", [b"0123456789"])
    store = FaultyStore(memory, "get:flip@3,get:flip@3,get:cut@4,put:flip@1")
    assert b"".join(store.get("a")) == b"0122456789"
    assert b"".join(store.get("a", offset=2, length=2)) == b"22"
    assert b"".join(store.get("a")) == b"0123"
    assert b"".join(store.get("a")) == b"0123456789"
    store.put("b", [b"00", b"00"])
    assert b"".join(memory.get("b")) == b"0100"


def test_faulty_store_fails_the_nth_operation() -> None:
    memory = MemoryStore()
    store = FaultyStore(memory, fail_at=2, only=lambda operation, name: operation == "put")
    store.put("a", [b"x"])
    store.stat("a")
    with pytest.raises(StoreUnavailable):
        store.put("b", [b"x"])
    store.put("c", [b"x"])
    assert [info.name for info in memory.list("")] == ["a", "c"]
    assert store.operations == [("put", "a"), ("put", "b"), ("put", "c")]


def test_list_that_breaks_on_a_server_of_another_order_is_an_error(time: FakeTime) -> None:
    """It yields a/x, breaks, and has a-b behind it: going on behind a/x would lose a-b without a word."""

    class TreeOrder(MemoryStore):
        broken = False

        def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
            return listed(self.pages, prefix, after)

        def pages(self, start: str) -> Iterator[Page]:
            for name in ("a/x", "a-b", "b"):
                if name == "a-b" and not self.broken:
                    self.broken = True
                    raise StoreUnavailable("page")
                if name > start or (name == "a-b" and start == "a/x"):
                    yield [ObjectInfo(name, 1, datetime(2026, 1, 1, tzinfo=UTC))]

    with pytest.raises(StoreError, match="out of order"):
        list(retrying(TreeOrder(), time).list(""))
    assert time.slept == [1]
