"""What a base backup is asked for, and what it says afterwards."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal

from pitr.pg.lsn import Lsn
from pitr.repo.manifest import BadPages, Sizes

MIB = 1 << 20
Role = Literal["primary", "standby"]


def default_jobs() -> int:
    """One worker for each processor that this process may use."""
    return max(1, len(os.sched_getaffinity(0)))


@dataclass(frozen=True, slots=True)
class BaseBackupRequest:
    """``conninfo``: libpq's words or a URI, direct to the server. ``data_directory``: None asks the server.

    archive_wait_s   how long to wait for the segment that holds the stop position to reach the archive
    lock_wait_s      how long to wait for another backup of this cluster to end
    if_older_s       do nothing when a backup younger than this exists
    if_role          do nothing when the server has the other role
    full             do not build on an earlier backup
    pack_bytes       stored size from which on a pack is closed
    slice_bytes      big relation files are read in pieces of this size, so that none of them is one worker's tail
    """

    cluster: str
    conninfo: str
    data_directory: Path | None = None
    label: str | None = None
    annotations: dict[str, str] = field(default_factory=dict)
    jobs: int = field(default_factory=default_jobs)
    max_rate_bytes_per_s: int | None = None
    fast_checkpoint: bool = True
    lock_wait_s: float = 300.0
    archive_wait_s: float = 300.0
    if_older_s: float | None = None
    if_role: Role | None = None
    full: bool = False
    pack_bytes: int = 96 * MIB
    slice_bytes: int = 64 * MIB

    def __post_init__(self) -> None:
        if self.jobs < 1 or self.pack_bytes < 1 or self.slice_bytes < MIB or self.slice_bytes % MIB:
            raise ValueError("jobs and pack_bytes are at least 1, slice_bytes is a multiple of 1 MiB")


@dataclass(frozen=True, slots=True)
class BaseBackupResult:
    """``skipped`` says why nothing was done (if_older, if_role); then only ``backup_id`` may be set: the younger one.

    ``exit_code`` is 3 when the backup is listed but has bad pages.
    """

    backup_id: str | None
    skipped: str | None = None
    type: Literal["full", "incremental"] = "full"
    base_id: str | None = None
    label: str | None = None
    system_id: str = ""
    timeline: int = 0
    start_lsn: Lsn | None = None
    stop_lsn: Lsn | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    sizes: Sizes | None = None
    packs: int = 0
    elapsed_s: float = 0.0
    phases_s: dict[str, float] = field(default_factory=dict)
    bad_pages: tuple[BadPages, ...] = ()
    warnings: tuple[str, ...] = ()
    exit_code: int = 0
