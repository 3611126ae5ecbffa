"""Runs ``wal push`` and ``wal fetch`` without click: PostgreSQL starts one process for each segment.

Exit codes are chosen here and nowhere else. A push says 0 or 1 to 125; a fetch 0, 1 or 200 by its engine's answer, and
whatever goes wrong around it is 200 (on a standby, which may not hear more than 125: 1).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pitr.cli.walcmd import FETCH_STOP, WalCommand, exit_status, parse, wal_action
from pitr.core.errors import Interrupted, PitrError, UsageError
from pitr.core.events import Event, Message
from pitr.core.secrets import redact

if TYPE_CHECKING:
    from pitr.config.settings import Settings

_BUG_HINT = "this is a bug in pitr: please report the lines above and the output of pitr --version"
_STANDBY_SIGNAL = "standby.signal"


def run(argv: Sequence[str]) -> int:
    """Run one command line that wal_action() knows. Returns the exit code; everything was printed to stderr."""
    from pitr.cli.signals import signals_as_errors

    action = wal_action(argv)
    assert action is not None
    try:
        with signals_as_errors():
            command = parse(argv)
            if command is None:
                raise UsageError(f"not understood: wal {' '.join(argv[argv.index(action) :])}", hint=_usage(action))
            return _push(command) if action == "push" else _fetch(command)
    except PitrError as error:
        write_error(error)
        return _failed(argv, error)
    except Exception as error:  # noqa: BLE001 - the last resort: whatever is not a PitrError is a bug
        import traceback

        _say(traceback.format_exc())
        write_error(PitrError(f"internal error: {type(error).__name__}: {error}", hint=_BUG_HINT))
        return _failed(argv, None)


def _failed(argv: Sequence[str], error: PitrError | None) -> int:
    action = wal_action(argv)
    if action == "fetch":
        if isinstance(error, Interrupted):
            return error.exit_code  # 128 + signal: the server knows that it was told to end (wait_result_is_signal)
        if Path(_STANDBY_SIGNAL).exists():
            return 1
        return FETCH_STOP
    return exit_status("push", 1 if error is None else error.exit_code)


def _usage(action: str) -> str:
    if action == "push":
        return 'pitr wal push PATH, in archive_command: ... wal push "%p"'
    return 'pitr wal fetch NAME DEST [--chain TIMELINE] [--until SEGMENT], in restore_command: ... wal fetch %f "%p"'


def _push(command: WalCommand) -> int:
    from pitr.api.wal import wal_push

    log = _Log(command)
    result = wal_push(_settings(command, log), Path(command.arguments[0]), report=log)
    for repository, outcome in result.outcomes:
        log.verbose(f"{result.name}: {outcome.value} in repository {repository}")
    if "--json" in command.flags:
        _print_json(
            "pitr.wal-push/1",
            log,
            {
                "name": result.name,
                "system_id": result.system_id,
                "size_bytes": result.size_bytes,
                "outcomes": {repository: outcome.value for repository, outcome in result.outcomes},
            },
        )
    return 0


def _fetch(command: WalCommand) -> int:
    from pitr.api.wal import wal_fetch
    from pitr.archive.fetch import RetryPolicy
    from pitr.core.units import parse_duration

    log = _Log(command)
    retry = command.values.get("--retry-for")
    try:
        policy = None if retry is None else RetryPolicy(total_s=parse_duration(retry).total_seconds())
    except ValueError as error:
        raise UsageError(f"--retry-for: {error}") from error
    outcome = wal_fetch(
        _settings(command, log),
        command.arguments[0],
        Path(command.arguments[1]),
        chain=_number(command, "--chain"),
        until=command.values.get("--until"),
        system_id=_number(command, "--system-id"),
        retry=policy,
        report=log,
    )
    if outcome.error is not None:
        log.release()
        write_error(outcome.error)
    else:
        log.verbose(outcome.why)
    if "--json" in command.flags:
        _print_json("pitr.wal-fetch/1", log, {"exit_code": outcome.exit_code, "why": outcome.why})
    return outcome.exit_code


def _number(command: WalCommand, option: str) -> int | None:
    text = command.values.get(option)
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise UsageError(f"{option} takes a number, not {text!r}")
    return int(text)


def _settings(command: WalCommand, log: _Log) -> Settings:
    from pitr.config.load import load_settings

    values = command.values
    settings = load_settings(config=values.get("--config"), cluster=values.get("--cluster"), repo=values.get("--repo"))
    for text in settings.warnings:
        log(Message("warning", text))
    return settings


class _Log:
    """A Report that writes messages to stderr, which is the server's log. With --quiet only when the command fails."""

    def __init__(self, command: WalCommand) -> None:
        self.warnings: list[str] = []
        self._held: list[str] | None = [] if "--quiet" in command.flags else None
        self._verbose = "--verbose" in command.flags

    def __call__(self, event: Event) -> None:
        if not isinstance(event, Message) or (event.level == "debug" and not self._verbose):
            return
        text = redact(event.text)
        if event.level == "warning":
            self.warnings.append(text)
        line = f"{event.level}: {text}\n"
        if self._held is not None:
            self._held.append(line)
        else:
            _say(line)

    def verbose(self, text: str) -> None:
        if self._verbose:
            self(Message("info", text))

    def release(self) -> None:
        for line in self._held or ():
            _say(line)
        self._held = None


def write_error(error: PitrError) -> None:
    """``error:``, ``detail:``, ``hint:``, a line each."""
    for name, text in (("error", error.message), ("detail", error.detail), ("hint", error.hint)):
        if text:
            _say(f"{name}: {redact(text)}\n")


def _say(text: str) -> None:
    """To stderr. A log that cannot be written (closed, a full disk) must not change what the server is told."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(text)


def _print_json(schema: str, log: _Log, result: dict[str, object]) -> None:
    import json

    code = result.get("exit_code", 0)
    document = {
        "schema": schema, "ok": code == 0, "exit_code": code, "warnings": log.warnings, "result": result, "error": None,
    }  # fmt: skip
    sys.stdout.write(json.dumps(document) + "\n")
