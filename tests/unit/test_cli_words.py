"""Words of the command line: moments and ids."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from pitr.core.errors import AmbiguousName, NoSuitableBackup, UsageError
from pitr.core.ids import UnknownName, match_id
from pitr.core.times import parse_moment, parse_target_time

NOW = datetime(2026, 11, 23, 5, 0, tzinfo=UTC)
PARIS = ZoneInfo("Europe/Paris")


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-23T03:02:00Z",
        "2026-11-23 03:02Z",
        "2026-11-23 03:02 z",
        "2026-11-23 04:02+01",
        "2026-11-23 04:02:00.000 +01:00",
        "2026-11-23 04:02 Europe/Paris",
        "2026-11-23 03:02 UTC",
        "-118min",
        " -1h58m ",
    ],
)
def test_moments_with_a_zone(text: str) -> None:
    expected = datetime(2026, 11, 23, 3, 2, tzinfo=UTC)
    assert parse_target_time(text, now=NOW, local=PARIS) == expected
    assert not parse_moment(text, now=NOW, local=PARIS).assumed_local


def test_without_a_zone_filters_take_local_time_and_say_so() -> None:
    moment = parse_moment("2026-11-23 04:02", now=NOW, local=PARIS)
    assert moment.value == datetime(2026, 11, 23, 3, 2, tzinfo=UTC)
    assert moment.assumed_local
    assert parse_moment("2026-11-23", now=NOW, local=PARIS).value == datetime(2026, 11, 22, 23, 0, tzinfo=UTC)


def test_without_a_zone_a_target_is_refused_with_both_readings() -> None:
    with pytest.raises(UsageError, match="no time zone") as caught:
        parse_target_time("2026-11-23 04:02", now=NOW, local=PARIS)
    hint = caught.value.hint or ""
    assert hint == 'write "2026-11-23 04:02:00Z" or "2026-11-23 04:02:00+01:00"'
    for reading in hint.split('"')[1::2]:
        parse_target_time(reading, now=NOW)


@pytest.mark.parametrize(
    ("text", "what"), [("2026-10-25 02:30", "occurs twice"), ("2026-03-29 02:30", "does not occur")]
)
def test_times_at_a_change_of_clocks(text: str, what: str) -> None:
    for written in (text, f"{text} Europe/Paris"):
        with pytest.raises(UsageError, match=what):
            parse_moment(written, now=NOW, local=PARIS)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "-",
        "-5 parsecs",
        "03:02",
        "2026-13-01",
        "2026-11-23 03:02 Mars/Base",
        "2026-11-23 03:02+01 Europe/Paris",
        "-99999999999d",
    ],
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="not a time"):
        parse_moment(text, now=NOW)


def test_the_machine_s_zone_is_the_default() -> None:
    naive = datetime(2026, 7, 1, 12, 0)  # noqa: DTZ001
    assert parse_moment("2026-07-01 12:00", now=NOW).value == naive.astimezone(UTC)
    assert parse_moment("-0s", now=NOW).value - NOW == timedelta(0)


IDS = ["20261121T041500Z-3fa2", "20261122T041500Z-77b1", "20261122T161500Z-3fa3"]


@pytest.mark.parametrize(
    ("text", "index"),
    [(IDS[1], 1), ("latest", 2), ("oldest", 0), ("20261121", 0), ("3fa2", 0), ("7b1", 1), ("before-deploy", 1)],
)
def test_ids(text: str, index: int) -> None:
    assert match_id(text, IDS, labels={"before-deploy": IDS[1]}) == IDS[index]


def test_ids_that_are_not_unique() -> None:
    with pytest.raises(AmbiguousName) as caught:
        match_id("20261122", IDS)
    assert caught.value.exit_code == 2
    assert caught.value.detail == f"{IDS[1]}, {IDS[2]}"
    with pytest.raises(AmbiguousName):
        match_id("2", IDS)


def test_ids_that_are_not_there() -> None:
    for text in ("", "ffff", "41500Z"):
        with pytest.raises(UnknownName):
            match_id(text, IDS[:1])
    with pytest.raises(NoSuitableBackup):
        match_id("latest", [])
