"""Running other programs: no shell, captured output, a clear error when one is missing or fails."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pitr.core.errors import ToolFailed, ToolMissing


@dataclass(frozen=True, slots=True)
class Finished:
    stdout: bytes
    stderr: str


def run_tool(
    argv: Sequence[str],
    *,
    stdin: bytes | None = None,
    env: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    hint: str | None = None,
) -> Finished:
    """Run argv to its end. ``env`` is added to the environment, with C messages. Raises ToolMissing or ToolFailed."""
    merged = {**os.environ, "LC_MESSAGES": "C", **(env or {})}
    try:
        done = subprocess.run(
            list(argv), input=stdin if stdin is not None else b"", env=merged, timeout=timeout_s, capture_output=True
        )
    except FileNotFoundError as error:
        raise ToolMissing(f"program not found: {argv[0]}", hint=hint) from error
    except PermissionError as error:
        raise ToolMissing(f"program cannot be executed: {argv[0]}", detail=str(error), hint=hint) from error
    except subprocess.TimeoutExpired as error:
        raise ToolFailed(f"{argv[0]} did not end within {timeout_s:g} s", hint=hint) from error
    stderr = done.stderr.decode("utf-8", "replace").strip()
    if done.returncode != 0:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"status {done.returncode}"
        raise ToolFailed(f"{argv[0]} ended with {how}", detail=stderr[-2000:] or None, hint=hint)
    return Finished(done.stdout, stderr)
