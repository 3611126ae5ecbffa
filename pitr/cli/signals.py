"""SIGINT and SIGTERM become exceptions in the main thread; a second one ends the process at once, and so does cleaning
up that takes too long: a worker may be waiting for a store that does not answer."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import NoReturn

from pitr.core.errors import Interrupted, Terminated

HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
GRACE_S = 8.0
"""For cleaning up after the first signal; ten seconds are promised."""
_SHOW_CURSOR = "\x1b[?25h"


@contextlib.contextmanager
def signals_as_errors(overdue: Callable[[Interrupted], None] | None = None) -> Iterator[None]:
    """While inside, the first SIGINT raises Interrupted, the first SIGTERM or SIGHUP Terminated. What was ignored
    (nohup, a background job) stays ignored. Does nothing outside the main thread.

    ``overdue`` is called, with that error, when the block has not ended GRACE_S later. It is to end the process.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in HANDLED}
    taken = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    alarm_before = signal.getsignal(signal.SIGALRM)

    def first(number: int, frame: FrameType | None) -> NoReturn:
        _by_default_again()
        error = Interrupted("interrupted") if number == signal.SIGINT else Terminated("terminated")
        if overdue is not None:
            # A handler also runs while the main thread waits for a lock, such as the end of a worker.
            signal.signal(signal.SIGALRM, lambda _number, _frame: overdue(error))
            signal.setitimer(signal.ITIMER_REAL, GRACE_S)
        raise error

    for number in taken:
        signal.signal(number, first)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGALRM) is not alarm_before:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, alarm_before)
        for number in taken:
            signal.signal(number, before[number] if before[number] is not None else signal.SIG_DFL)


def _by_default_again() -> None:
    # The default action, not a handler: it also ends a main thread that is inside a long call of C code.
    for handled in HANDLED:
        if signal.getsignal(handled) is not signal.SIG_IGN:
            signal.signal(handled, signal.SIG_DFL)
    _restore_cursor()


def _restore_cursor() -> None:
    """The progress bar hides it, and a second signal would leave it so."""
    with contextlib.suppress(OSError, ValueError, RuntimeError, AttributeError):
        if sys.stderr.isatty():
            sys.stderr.write(_SHOW_CURSOR)
            sys.stderr.flush()
