"""Entry point. Cheap to import: everything else is loaded when it is known what is to be run."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NoReturn

_BY_SIGNAL = (130, 143)


def entry() -> NoReturn:
    """The program ``pitr``."""
    _fill_standard_descriptors()
    from pitr.cli.walcmd import exit_status, wal_action

    argv = sys.argv[1:]
    action = wal_action(argv)
    if action is not None and not {"--help", "-h"} & {*argv}:
        # Not by way of the interpreter's end: it turns a full disk below stderr into status 120, "no such file".
        _exit_at_once(_run_wal(action, argv))
    try:
        from pitr.cli.app import run

        code = run(argv)
    except KeyboardInterrupt:  # before the signal handlers were in place
        code = 130
    if code in _BY_SIGNAL:
        _exit_at_once(code)  # not waiting for threads that wait for a store
    sys.exit(code if action is None else exit_status(action, code))


def _run_wal(action: str, argv: list[str]) -> int:
    """What PostgreSQL runs. Whatever fails, a broken installation too, a fetch does not end as "no such file"."""
    code = 200 if action == "fetch" else 1
    try:
        from pitr.cli.walrun import run

        code = run(argv)
    except BaseException:  # noqa: BLE001 - as above
        with contextlib.suppress(BaseException):
            import traceback

            traceback.print_exc()
    return code


def _exit_at_once(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()
    os._exit(code)


def _fill_standard_descriptors() -> None:
    """A closed 0, 1 or 2 would be given to the next file opened, and a message would be written into that."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
