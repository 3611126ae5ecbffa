"""Measured runs of whole commands: user and system CPU seconds, wall time, peak memory, also of their children."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Measured:
    """``peak_bytes``: of the largest single process."""

    user_s: float
    system_s: float
    wall_s: float
    peak_bytes: int

    @property
    def cpu_s(self) -> float:
        return self.user_s + self.system_s


def measure(argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> Measured:
    """Run argv to its end; its output goes to the log. Exits when it fails."""
    with log.open("ab") as output:
        output.write(f"$ {' '.join(argv)}\n".encode())
        output.flush()
        began = time.monotonic()
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env)
        _pid, status, usage = os.wait4(process.pid, 0)
        wall_s = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"{' '.join(argv)} ended with {process.returncode}; see {log}\n{log.read_text()[-3000:]}")
    return Measured(usage.ru_utime, usage.ru_stime, wall_s, usage.ru_maxrss * 1024)


def tree_bytes(path: Path) -> int:
    return sum(file.lstat().st_size for file in path.rglob("*") if file.is_file())


def best(runs: Sequence[Measured]) -> Measured:
    """Least CPU and least wall time of the runs, each for itself; the largest peak."""
    least = min(runs, key=lambda run: run.cpu_s)
    return Measured(least.user_s, least.system_s, min(run.wall_s for run in runs), max(run.peak_bytes for run in runs))
