"""Entry point. Cheap to import: everything else is loaded when it is known what is to be run."""

from __future__ import annotations

import os
import sys
from typing import NoReturn


def entry() -> NoReturn:
    """The program ``pitr``."""
    _fill_standard_descriptors()
    try:
        code = _run(sys.argv[1:])
    except KeyboardInterrupt:  # before the signal handlers were in place
        code = 130
    sys.exit(code)


def _run(argv: list[str]) -> int:
    from pitr.cli.walcmd import FETCH_STOP, wal_action

    action = wal_action(argv)
    if action is not None and "--help" not in argv:
        try:
            from pitr.cli.walrun import run as run_wal
        except Exception:  # noqa: BLE001 - a broken installation must not look like "no such file"
            import traceback

            traceback.print_exc()
            return FETCH_STOP if action == "fetch" else 1
        return run_wal(argv)
    from pitr.cli.app import run

    return run(argv)


def _fill_standard_descriptors() -> None:
    """A closed 0, 1 or 2 would be given to the next file opened, and a message would be written into that."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
