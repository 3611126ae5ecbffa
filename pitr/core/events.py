"""Progress as data. Engines emit frozen events to a ``Report``; bars, JSON lines and metrics subscribe to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple


class PhaseStarted(NamedTuple):
    """A phase begins. ``total_bytes`` is None when it cannot be known."""

    phase: str
    total_bytes: int | None = None


class Advanced(NamedTuple):
    """``delta_bytes`` more of the phase are done. Emitted from any thread."""

    phase: str
    delta_bytes: int


class PhaseEnded(NamedTuple):
    phase: str
    elapsed_s: float


class Message(NamedTuple):
    """A line for the log. Warnings are also collected into the JSON envelope."""

    level: Literal["debug", "info", "warning"]
    text: str


Event = PhaseStarted | Advanced | PhaseEnded | Message
Report = Callable[[Event], None]
"""Thread-safe sink of events; must not raise."""


def silent(event: Event) -> None:
    """The Report of callers that want none."""


def warn(report: Report, text: str) -> None:
    report(Message("warning", text))


def info(report: Report, text: str) -> None:
    report(Message("info", text))
