"""Units, documents, redaction, the pool."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum

import pytest

from pitr.core.documents import DocumentError, from_json, to_json
from pitr.core.pool import Cancelled, Stop, run_parallel
from pitr.core.secrets import Secret, redact
from pitr.core.units import format_duration, format_size, parse_duration, parse_size
from pitr.pg.lsn import Lsn


@pytest.mark.parametrize(
    ("text", "size"),
    [("64MiB", 64 << 20), ("64m", 64 << 20), ("1.5G", 3 << 29), ("0", 0), ("500 k", 512000), ("7B", 7)],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5.2", "12 furlongs"])
def test_wrong_sizes(text: str) -> None:
    with pytest.raises(ValueError):
        parse_size(text)


def test_sizes_shown() -> None:
    assert [format_size(n) for n in (0, 1023, 1024, 1536, 10 << 20, 3 << 40)] == [
        "0 B", "1023 B", "1.00 KiB", "1.50 KiB", "10.0 MiB", "3.00 TiB",
    ]  # fmt: skip


def test_durations() -> None:
    assert parse_duration("1h30m") == timedelta(minutes=90)
    assert parse_duration("35d") == timedelta(days=35)
    assert parse_duration("5min") == timedelta(minutes=5)
    assert parse_duration("20") == timedelta(seconds=20)
    for wrong in ("", "h", "5 parsecs", "-3s"):
        with pytest.raises(ValueError):
            parse_duration(wrong)
    assert [format_duration(s) for s in (0.4, 12.34, 245, 7800, 100000)] == [
        "0.40 s", "12.3 s", "4 min 05 s", "2 h 10 min", "1 d 3 h",
    ]  # fmt: skip


class Colour(Enum):
    RED = "red"


@dataclass(frozen=True)
class Inner:
    lsn: Lsn
    data: bytes


@dataclass(frozen=True)
class Outer:
    when: datetime
    inner: tuple[Inner, ...]
    colour: Colour
    note: str | None
    share: float
    table: dict[str, int] = field(default_factory=dict)


def test_documents_round_trip_and_name_what_is_wrong() -> None:
    value = Outer(
        datetime(2026, 1, 2, 3, 4, 5, 6, UTC), (Inner(Lsn(0x1_0000_0000), b"\x01\xff"),), Colour.RED, None, 0.5
    )
    document = to_json(value)
    assert document["inner"][0] == {"lsn": "1/0", "data": "01ff"}
    assert document["note"] is None
    assert from_json(Outer, document) == value
    assert from_json(Outer, {**document, "newer": 1}) == value
    for wrong, words in (
        ({**document, "colour": "blue"}, "Outer.colour"),
        ({**document, "when": "2026-01-02T03:04:05"}, "Outer.when"),
        ({**document, "inner": [{"lsn": "zz"}]}, r"Outer.inner\[\].lsn"),
        ({key: item for key, item in document.items() if key != "share"}, "Outer.share: missing"),
        ([], "Outer"),
    ):
        with pytest.raises(DocumentError, match=words):
            from_json(Outer, wrong)


def test_secrets_do_not_show() -> None:
    assert "hunter2" not in repr(Secret("hunter2")) + str(Secret("hunter2"))
    assert redact("host=db password=hunter2 user=x") == "host=db password=*** user=x"
    assert redact("password = 'it''s \\' long' port=1").count("***") == 1
    assert redact("postgresql://me:hunter2@db/x") == "postgresql://me:***@db/x"
    assert redact("at postgresql://me:hun@ter2@db/x now") == "at postgresql://me:***@db/x now"


def test_the_first_error_stops_the_rest() -> None:
    reached = threading.Event()
    stopped: list[int] = []

    def work(job: int, stop: Stop) -> None:
        if job == 0:
            reached.wait(10)
            raise ValueError("first")
        reached.set()
        try:
            for _ in range(100_000):
                stop.check()
                threading.Event().wait(0.001)
        except Cancelled:
            stopped.append(job)
            raise

    with pytest.raises(ValueError, match="first"):
        run_parallel(range(1000), work, threads=2)
    assert len(stopped) <= 2


def test_every_job_runs_once() -> None:
    seen: list[int] = []
    lock = threading.Lock()

    def work(job: int, _stop: Stop) -> None:
        with lock:
            seen.append(job)

    run_parallel(iter(range(500)), work, threads=3)
    assert sorted(seen) == list(range(500))
