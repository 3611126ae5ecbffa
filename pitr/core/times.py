"""Moments as people write them: the T words of the command line."""

from __future__ import annotations

import re
import zoneinfo
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo

from pitr.core.clock import format_utc
from pitr.core.errors import UsageError
from pitr.core.units import parse_duration

EXAMPLES = '"2026-11-23 03:02:10Z", "2026-11-23 03:02+01:00", "2026-11-23 03:02 Europe/Paris", "-30m"'
_ZONE_NAME = re.compile(r"^(?P<time>.*\d)\s+(?P<zone>[A-Za-z][A-Za-z0-9_+/-]*)$")
_SPACED_OFFSET = re.compile(r"(?<=\d)\s+(?=(?:[+-]\d{2}(?::?\d{2})?|[zZ])$)")


@dataclass(frozen=True, slots=True)
class Moment:
    """``value`` is UTC. ``assumed_local``: no zone was given, so the machine's was taken; say so."""

    value: datetime
    assumed_local: bool = False


def parse_moment(text: str, *, now: datetime, local: tzinfo | None = None) -> Moment:
    """For filters such as --since. Without a zone: local time (``local``: the zone to take for it, default the
    machine's). Raises UsageError, also for a time that a change of clocks skips or repeats."""
    stripped = text.strip()
    if stripped.startswith("-"):
        try:
            return Moment((now - parse_duration(stripped[1:])).astimezone(UTC))
        except (ValueError, OverflowError) as error:
            raise _not_a_time(text, str(error)) from error
    naive_or_aware = _parse(stripped, text)
    if naive_or_aware.tzinfo is not None:
        return Moment(naive_or_aware.astimezone(UTC))
    return Moment(_in_zone(naive_or_aware, local, text), assumed_local=True)


def parse_target_time(text: str, *, now: datetime, local: tzinfo | None = None) -> datetime:
    """For recovery targets: a zone is required, and the refusal shows both readings. UTC. Raises UsageError."""
    moment = parse_moment(text, now=now, local=local)
    if not moment.assumed_local:
        return moment.value
    as_utc = _parse(text.strip(), text).replace(tzinfo=UTC)
    shown = as_utc.strftime("%Y-%m-%d %H:%M:%S.%f").removesuffix(".000000")
    offset = moment.value.astimezone(local).strftime("%z")
    raise UsageError(
        f"the target time {text!r} has no time zone",
        detail=f"as UTC it is {format_utc(as_utc)}, as local time of this machine {format_utc(moment.value)}",
        hint=f'write "{shown}Z" or "{shown}{offset[:3]}:{offset[3:5]}"',
    )


def _parse(stripped: str, original: str) -> datetime:
    zone: tzinfo | None = None
    if (named := _ZONE_NAME.match(stripped)) and named["zone"].lower() != "z":
        zone, stripped = _zone(named["zone"], original), named["time"]
    try:
        moment = datetime.fromisoformat(_SPACED_OFFSET.sub("", stripped).upper())
    except ValueError as error:
        raise _not_a_time(original, None) from error
    if zone is None:
        return moment
    if moment.tzinfo is not None:
        raise _not_a_time(original, "it has both an offset and a zone name")
    return _in_zone(moment, zone, original)


def _zone(name: str, original: str) -> tzinfo:
    if name.upper() in ("UTC", "GMT"):
        return UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        # Abbreviations (CET, EST) that the database lacks are ambiguous over the world, so they are not guessed.
        raise _not_a_time(original, f"the time zone {name} is not known on this machine") from error


def _in_zone(naive: datetime, zone: tzinfo | None, original: str) -> datetime:
    """UTC; refuses what the clocks of the zone show twice or never."""
    if zone is not None:
        readings = {naive.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)}
    else:
        readings = {naive.replace(fold=fold).astimezone(UTC) for fold in (0, 1)}
    if len(readings) == 1:
        return readings.pop()
    first, second = sorted(readings)
    back = first.astimezone(zone).replace(tzinfo=None)
    what = "occurs twice" if back == naive else "does not occur"
    raise UsageError(
        f"the time {original!r} {what} in its time zone",
        detail="the clocks change there",
        hint=f"write {format_utc(first)} or {format_utc(second)}",
    )


def _not_a_time(text: str, detail: str | None) -> UsageError:
    return UsageError(f"not a time: {text!r}", detail=detail, hint=f"examples: {EXAMPLES}")
