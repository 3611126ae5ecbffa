"""Runs one base backup in a process of its own, to be killed: ``python -m tests.support.base_runner JSON``.

JSON: ``repository`` (a directory), ``kill_at`` and ``moment`` of a FaultyStore (optional), ``request`` (fields of
BaseBackupRequest). Prints "copying" when the copy begins and the id of the backup at the end; 130 when interrupted.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

from pitr.base.backup import run_base_backup
from pitr.base.request import BaseBackupRequest
from pitr.core.events import Event, PhaseStarted
from pitr.repo.repository import open_repository
from pitr.store import PosixStore
from tests.support.faulty_store import FaultyStore


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _report(event: Event) -> None:
    if isinstance(event, PhaseStarted) and event.phase == "copy":
        _say("copying")


def main() -> int:
    words = json.loads(sys.argv[1])
    repository = open_repository("main", PosixStore(Path(words["repository"])), None)
    if "kill_at" in words:
        store = FaultyStore(repository.store, kill_at=words["kill_at"], moment=words["moment"])
        repository = replace(repository, store=store)
    try:
        result = run_base_backup(repository, BaseBackupRequest(**words["request"]), _report)
    except KeyboardInterrupt:
        return 130
    _say(str(result.backup_id))
    return 0


if __name__ == "__main__":
    sys.exit(main())
