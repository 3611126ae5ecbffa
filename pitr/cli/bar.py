"""The progress bar of a terminal: amount, rate, time left. rich is imported when the first phase begins."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pitr.core.events import Advanced, PhaseEnded, PhaseStarted

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class TerminalBar:
    """One line for each phase at work; they vanish when it ends."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}

    def show(self, event: PhaseStarted | Advanced | PhaseEnded) -> None:
        if isinstance(event, PhaseEnded):
            self._end(event.phase)
            return
        progress = self._start()
        if event.phase not in self._tasks or isinstance(event, PhaseStarted):
            total = event.total_bytes if isinstance(event, PhaseStarted) else None
            self._end(event.phase, keep=True)
            self._tasks[event.phase] = progress.add_task(event.phase, total=total)
        if isinstance(event, Advanced):
            progress.update(self._tasks[event.phase], advance=event.delta_bytes)

    def line(self, text: str) -> bool:
        if self._progress is None:
            return False
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)
        return True

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        self._progress = None
        self._tasks.clear()

    def _end(self, phase: str, *, keep: bool = False) -> None:
        task = self._tasks.pop(phase, None)
        if self._progress is not None and task is not None:
            self._progress.refresh()
            self._progress.remove_task(task)
        if not self._tasks and not keep:
            self.close()

    def _start(self) -> Progress:
        if self._progress is None:
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )

            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                DownloadColumn(binary_units=True),
                TransferSpeedColumn(),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._progress.start()
        return self._progress
