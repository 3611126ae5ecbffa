"""The one place that runs a command: events, errors, the JSON envelope, the exit code."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from pitr.cli.command import Context, Done, Render
from pitr.cli.options import GlobalOptions
from pitr.cli.output import is_terminal, write_out
from pitr.cli.render import result_json
from pitr.cli.reports import Reporter, error_members, make_reporter
from pitr.core.errors import Interrupted, PitrError

EXIT_BUG = 70
REPORT_HINT = "this is a bug in pitr: please report the lines above and the output of pitr --version to its maintainers"


@dataclass(frozen=True, slots=True)
class Failure:
    error: PitrError
    code: str
    exit_code: int
    trace: str | None = None


def run_command(function: Callable[[Context], object], *, options: GlobalOptions, schema: str, render: Render) -> int:
    """Run, print the result, return the exit code. Nothing but SystemExit passes."""
    reporter = make_reporter(options)
    outcome = attempt(lambda: function(Context(options, reporter)), reporter)
    if isinstance(outcome, Failure):
        return fail(outcome, reporter, json_wanted=options.json, schema=schema)
    done = outcome if isinstance(outcome, Done) else Done(outcome, 0)
    # Writing may fail as well: a full disk under stdout, a result that JSON cannot hold (a bug).
    written = attempt(lambda: _write_result(done, reporter, options, schema, render), reporter)
    if isinstance(written, Failure):
        return fail(written, reporter, json_wanted=False, schema=schema)
    if done.exit_code != 0:
        reporter.release()
    return done.exit_code


def attempt(function: Callable[[], object], reporter: Reporter) -> object | Failure:
    try:
        return function()
    except PitrError as error:
        return Failure(error, error.code, error.exit_code)
    except KeyboardInterrupt:
        return Failure(Interrupted("interrupted"), Interrupted.code, Interrupted.exit_code)
    except Exception as error:  # noqa: BLE001 - the last resort: whatever is not a PitrError is a bug
        told = PitrError(f"internal error: {type(error).__name__}: {error}", hint=REPORT_HINT)
        return Failure(told, "bug", EXIT_BUG, traceback.format_exc())
    finally:
        reporter.close()


def fail(failure: Failure, reporter: Reporter, *, json_wanted: bool, schema: str) -> int:
    """Tell the failure on stderr, and with --json on stdout too."""
    reporter.failed(failure.error, failure.code, failure.trace)
    if json_wanted:
        members = error_members(failure.error, failure.code)
        document = envelope(schema, failure.exit_code, reporter.warnings, None, members)
        written = attempt(lambda: write_out(document), reporter)
        if isinstance(written, Failure):
            reporter.failed(written.error, written.code)
    return failure.exit_code


def _write_result(done: Done, reporter: Reporter, options: GlobalOptions, schema: str, render: Render) -> None:
    if options.json:
        write_out(envelope(schema, done.exit_code, reporter.warnings, result_json(done.result), None))
    elif not options.quiet or done.exit_code != 0 or done.even_if_quiet:
        write_out("".join(f"{line}\n" for line in render(done.result)))


def envelope(schema: str, exit_code: int, warnings: list[str], result: object, error: object) -> str:
    """The document that every command prints with --json. ASCII, so that no locale can spoil it."""
    document = {
        "schema": schema,
        "ok": error is None,
        "exit_code": exit_code,
        "warnings": warnings,
        "result": result,
        "error": error,
    }
    return json.dumps(document, indent=2 if is_terminal(sys.stdout) else None, allow_nan=False) + "\n"
