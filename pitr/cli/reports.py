"""Subscribers of events: text, JSON lines, silence. Every one also keeps the warnings for the JSON envelope."""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Protocol

from pitr.cli.options import GlobalOptions
from pitr.cli.output import is_terminal, printable, write_err
from pitr.core.clock import format_utc, utc_now
from pitr.core.errors import PitrError
from pitr.core.events import Advanced, Event, Message, PhaseEnded, PhaseStarted
from pitr.core.secrets import redact

PROGRESS_INTERVAL_S = 1.0


class Bar(Protocol):
    def show(self, event: PhaseStarted | Advanced | PhaseEnded) -> None: ...
    def line(self, text: str) -> bool:
        """Print above the bar; False when none is shown."""
        ...

    def close(self) -> None: ...


class Reporter:
    """A ``Report``: thread-safe, does not raise. Messages are text lines on stderr."""

    def __init__(self, options: GlobalOptions, bar: Bar | None = None) -> None:
        self.warnings: list[str] = []
        self._verbose = options.verbose
        self._quiet = options.quiet
        self._held: list[str] = []
        self._bar = bar
        self._lock = threading.RLock()

    def __call__(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, Message):
                self._message(event)
            elif self._bar is not None:
                self._bar.show(event)

    def _message(self, message: Message) -> None:
        text = redact(message.text)
        if message.level == "warning":
            self.warnings.append(text)
        if message.level != "debug" or self._verbose:
            prefix = "" if message.level == "info" else f"{message.level}: "
            self._emit(printable(prefix + text))

    def _emit(self, line: str) -> None:
        if self._quiet:
            self._held.append(line)
        elif self._bar is None or not self._bar.line(line):
            write_err(line + "\n")

    def failed(self, error: PitrError, code: str, trace: str | None = None) -> None:
        """The last word: error, detail, hint. What --quiet held back comes first."""
        self.release()
        if trace is not None:
            write_err(printable(redact(trace)))
        write_err(error_text(error))

    def release(self) -> None:
        """Print what --quiet held back: the exit code is not 0."""
        held, self._held, self._quiet = self._held, [], False
        for line in held:
            write_err(line + "\n")

    def close(self) -> None:
        """The command is over: no bar any more. Idempotent."""
        with self._lock:
            if self._bar is not None:
                self._bar.close()
                self._bar = None


class JsonLines(Reporter):
    """``--log json``: each message, and each phase at most once a second, is one JSON object on a line of stderr."""

    def __init__(self, options: GlobalOptions) -> None:
        super().__init__(options)
        self._phases: dict[str, _Phase] = {}

    def __call__(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, Message):
                self._message(event)
            else:
                self._progress(event)

    def _message(self, message: Message) -> None:
        text = redact(message.text)
        if message.level == "warning":
            self.warnings.append(text)
        if message.level != "debug" or self._verbose:
            self._object(level=message.level, text=text)

    def _progress(self, event: PhaseStarted | Advanced | PhaseEnded) -> None:
        now = time.monotonic()
        if isinstance(event, PhaseStarted):
            self._phases[event.phase] = _Phase(event.total_bytes, now)
            self._object(event="phase-started", phase=event.phase, total_bytes=event.total_bytes)
        elif isinstance(event, PhaseEnded):
            phase = self._phases.pop(event.phase, None)
            done = None if phase is None else phase.done_bytes
            self._object(event="phase-ended", phase=event.phase, done_bytes=done, elapsed_s=round(event.elapsed_s, 3))
        else:
            phase = self._phases.setdefault(event.phase, _Phase(None, now))
            phase.done_bytes += event.delta_bytes
            if now - phase.shown_at >= PROGRESS_INTERVAL_S:
                phase.shown_at = now
                self._object(event="progress", phase=event.phase, **phase.figures(now))

    def _object(self, **members: object) -> None:
        self._emit(json.dumps({"time": format_utc(utc_now()), **members}))

    def failed(self, error: PitrError, code: str, trace: str | None = None) -> None:
        self.release()
        members = error_members(error, code)
        extra = {} if trace is None else {"traceback": redact(trace)}
        write_err(json.dumps({"time": format_utc(utc_now()), "level": "error", **members, **extra}) + "\n")


class _Phase:
    def __init__(self, total_bytes: int | None, now: float) -> None:
        self.total_bytes = total_bytes
        self.done_bytes = 0
        self.started_at = now
        self.shown_at = now

    def figures(self, now: float) -> dict[str, object]:
        rate = self.done_bytes / max(now - self.started_at, 1e-9)
        left = None if self.total_bytes is None else max(0, self.total_bytes - self.done_bytes)
        eta = None if left is None or rate <= 0 else round(left / rate, 1)
        return {
            "done_bytes": self.done_bytes,
            "total_bytes": self.total_bytes,
            "rate_bytes_per_s": round(rate),
            "eta_s": eta,
        }


def make_reporter(options: GlobalOptions) -> Reporter:
    if options.log == "json":
        return JsonLines(options)
    if options.quiet or options.no_progress or not is_terminal(sys.stderr):
        return Reporter(options)
    from pitr.cli.bar import TerminalBar

    return Reporter(options, TerminalBar())


def error_members(error: PitrError, code: str) -> dict[str, str | None]:
    return {
        "code": code,
        "message": redact(error.message),
        "detail": None if error.detail is None else redact(error.detail),
        "hint": None if error.hint is None else redact(error.hint),
    }


def error_text(error: PitrError) -> str:
    """The lines ``error:``, ``detail:``, ``hint:``."""
    parts = [("error", error.message), ("detail", error.detail), ("hint", error.hint)]
    return "".join(f"{name}: {printable(redact(text))}\n" for name, text in parts if text)
