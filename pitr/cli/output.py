"""Writing to stdout and stderr: whole, safe for any encoding, and calm about readers that went away."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import TextIO

from pitr.core.files import os_errors_as_pitr


def prepare_streams() -> None:
    """No character can fail to be written: what the encoding lacks is shown as an escape."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def write_out(text: str) -> None:
    """To stdout, flushed. A reader that went away (``| head``) is fine; a full disk raises NoSpace."""
    if sys.stdout is None:
        return
    try:
        with os_errors_as_pitr("cannot write to standard output"):
            try:
                sys.stdout.write(text)
                sys.stdout.flush()
            except BrokenPipeError:
                _discard(sys.stdout)
    except BaseException:
        _discard(sys.stdout)
        raise


def write_err(text: str) -> None:
    """To stderr, flushed. Failures are ignored: there is nowhere left to tell them."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        _discard(sys.stderr)


def _discard(stream: TextIO) -> None:
    """Send the rest to /dev/null, so that the interpreter's own flush at the end does not fail again."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False


def printable(text: str) -> str:
    """Control characters (a file name's, a tool's) as escapes, so that they cannot drive the terminal."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape", "surrogatepass").decode("ascii")
        for c in text
    )
