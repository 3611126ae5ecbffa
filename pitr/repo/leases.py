"""Leases by generation: they save work (two nightly backups at once), they never carry safety (FORMAT.md, 6)."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pitr.core.documents import to_json
from pitr.core.errors import Locked, ObjectExists, ObjectNotFound, StoreError
from pitr.repo import names
from pitr.repo.documents import read_as
from pitr.store.base import ObjectStore

FORMAT = 1
RENEW_S = 30.0
STALE_S = 120.0


@dataclass(frozen=True, slots=True)
class LeaseState:
    format: int
    holder: str
    state: Literal["held", "released"]
    host: str
    boot_id: str
    pid: int
    pid_started: str
    """Start time of the process (field 22 of /proc/PID/stat), so that a reused pid is not mistaken for the holder."""


class Lease:
    """A held lease. ``generation`` is the fencing token. check() tells whether somebody took it over."""

    def __init__(self, store: ObjectStore, cluster: str, purpose: str, generation: int, state: LeaseState) -> None:
        self._store, self._cluster, self._purpose = store, cluster, purpose
        self._state = state
        self.generation = generation
        self._lost = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_stopped, name="pitr-lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises Locked when the lease was taken over (this process was stopped for longer than it lasts)."""
        if self._lost.is_set():
            raise Locked(
                f"the {self._purpose} lease of {self._cluster} was taken over by another process",
                hint="run the command again",
            )

    def release(self) -> None:
        self._stop.set()
        self._thread.join()
        if not self._lost.is_set():
            with contextlib.suppress(StoreError):
                self._advance(replace(self._state, state="released"))

    def _renew_until_stopped(self) -> None:
        while not self._stop.wait(RENEW_S):
            try:
                self._advance(self._state)
            except ObjectExists:
                self._lost.set()
                return
            except StoreError:
                continue  # an outage: the next renewal tries again, and others wait for STALE_S

    def _advance(self, state: LeaseState) -> None:
        _put(self._store, self._cluster, self._purpose, self.generation + 1, state)
        self.generation += 1
        if self._store.caps.can_delete and self.generation > 2:
            with contextlib.suppress(StoreError):
                self._store.delete([names.lease(self._cluster, self._purpose, self.generation - 2)])


@contextlib.contextmanager
def leased(
    store: ObjectStore,
    cluster: str,
    purpose: str,
    *,
    wait_s: float,
    waiting: Callable[[LeaseState], None] = lambda _state: None,
) -> Iterator[Lease]:
    """Hold the lease of ``purpose`` while the block runs; wait up to wait_s for it. Raises Locked (exit 12)."""
    lease = acquire(store, cluster, purpose, wait_s=wait_s, waiting=waiting)
    try:
        yield lease
    finally:
        lease.release()


def acquire(
    store: ObjectStore, cluster: str, purpose: str, *, wait_s: float, waiting: Callable[[LeaseState], None]
) -> Lease:
    mine = _own_state()
    deadline = time.monotonic() + wait_s
    seen: tuple[int, float] | None = None
    told = False
    while True:
        generation, current = _highest(store, cluster, purpose)
        if seen is None or seen[0] != generation:
            seen = (generation, time.monotonic())
        if current is None or current.state == "released" or _is_dead(current) or time.monotonic() - seen[1] > STALE_S:
            try:
                _put(store, cluster, purpose, generation + 1, mine)
            except ObjectExists:
                continue
            return Lease(store, cluster, purpose, generation + 1, mine)
        if time.monotonic() >= deadline:
            raise Locked(
                f"another {purpose} of {cluster} is running",
                detail=f"process {current.pid} on {current.host} holds the lease, generation {generation}",
                hint="wait for it, or give --lock-wait; the lease of a dead process ends by itself within two minutes",
            )
        if not told:
            waiting(current)
            told = True
        time.sleep(min(1.0, max(0.05, deadline - time.monotonic())))


def _put(store: ObjectStore, cluster: str, purpose: str, generation: int, state: LeaseState) -> None:
    store.put(names.lease(cluster, purpose, generation), [json.dumps(to_json(state)).encode()], if_absent=True)


def _highest(store: ObjectStore, cluster: str, purpose: str) -> tuple[int, LeaseState | None]:
    """Generation 0 and None when nobody ever held it."""
    last = None
    for info in store.list(names.lease_prefix(cluster, purpose)):
        last = info.name
    if last is None:
        return 0, None
    generation = int(last.rpartition("/")[2])
    try:
        data = b"".join(store.get(last))
    except ObjectNotFound:  # its holder moved on between the listing and the read
        return generation, replace(_own_state(), state="held", host="", boot_id="")
    return generation, read_as(LeaseState, data, last, FORMAT)


def _own_state() -> LeaseState:
    pid = os.getpid()
    return LeaseState(FORMAT, uuid.uuid4().hex, "held", socket.gethostname(), _boot_id(), pid, _pid_started(pid) or "")


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _pid_started(pid: int) -> str | None:
    """None when there is no such process (as far as this host can tell)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in ("Z", "X") else fields[19]


def _is_dead(state: LeaseState) -> bool:
    """Only a process of this host, this boot and this pid namespace can be known to be gone."""
    if not state.boot_id or state.host != socket.gethostname() or state.boot_id != _boot_id():
        return False
    return Path("/proc/self/stat").exists() and _pid_started(state.pid) != state.pid_started
