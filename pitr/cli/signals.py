"""SIGINT and SIGTERM become exceptions in the main thread; a second one ends the process at once."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

from pitr.core.errors import Interrupted, Terminated

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SHOW_CURSOR = "\x1b[?25h"


@contextlib.contextmanager
def signals_as_errors() -> Iterator[None]:
    """While inside, the first SIGINT raises Interrupted, the first SIGTERM or SIGHUP Terminated. What was ignored
    (nohup, a background job) stays ignored. Does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in HANDLED}
    taken = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in taken:
        signal.signal(number, _first)
    try:
        yield
    finally:
        for number in taken:
            signal.signal(number, before[number] if before[number] is not None else signal.SIG_DFL)


def _first(number: int, frame: FrameType | None) -> None:
    # The default action, not a handler: it also ends a main thread that is inside a long call of C code.
    for handled in HANDLED:
        if signal.getsignal(handled) is not signal.SIG_IGN:
            signal.signal(handled, signal.SIG_DFL)
    _restore_cursor()
    if number == signal.SIGINT:
        raise Interrupted("interrupted")
    raise Terminated("terminated")


def _restore_cursor() -> None:
    """The progress bar hides it, and a second signal would leave it so."""
    with contextlib.suppress(OSError, ValueError, RuntimeError, AttributeError):
        if sys.stderr.isatty():
            sys.stderr.write(_SHOW_CURSOR)
            sys.stderr.flush()
