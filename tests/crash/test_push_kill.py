"""kill -9 of wal push at every store operation and at random moments: nothing is acknowledged that is not stored,
nothing half written is visible, and the next push works."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from pitr.archive.push import push_segment
from pitr.archive.remote import Remote
from pitr.core.errors import ObjectNotFound
from pitr.repo.repository import Repository, create_repository, open_repository
from pitr.repo.walobjects import Put, get_wal
from pitr.store import PosixStore
from tests.support.archive import PROGRAM, WalSample, program_environment
from tests.support.faulty_store import FaultyStore, Moment

pytestmark = pytest.mark.pg


def make(directory: Path) -> None:
    directory.mkdir()
    create_repository(PosixStore(directory), [], now=datetime.now(UTC), if_absent_works=True)


def reopened(directory: Path) -> Repository:
    return open_repository("main", PosixStore(directory), None)


def in_child(work: Callable[[], object]) -> int:
    """Run work in a forked process; its exit status, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        status = 70
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def push(path: Path, store: FaultyStore | PosixStore) -> Put:
    repository = open_repository("main", store, None)
    return push_segment([Remote.opened(repository)], "shop", path).outcomes[0][1]


def content(directory: Path, sample: WalSample, number: int) -> bytes | None:
    """What a reader sees: the verified file, or none. Anything half written raises IntegrityError."""
    try:
        return get_wal(reopened(directory), sample.names(), sample.segment(1, number))
    except ObjectNotFound:
        return None


def operations_of_a_push(tmp_path: Path, sample: WalSample) -> list[str]:
    directory = tmp_path / "counted"
    make(directory)
    store = FaultyStore(PosixStore(directory))
    push(sample.path(1, sample.first), store)
    return [operation for operation, _ in store.operations]


@pytest.mark.parametrize("moment", ["before", "during", "after"])
def test_killed_at_every_store_operation(tmp_path: Path, wal_sample: WalSample, moment: Moment) -> None:
    path, data = wal_sample.path(1, wal_sample.first), wal_sample.data(1, wal_sample.first)
    operations = operations_of_a_push(tmp_path, wal_sample)
    assert operations.count("put") == 2
    for number, operation in enumerate(operations, 1):
        directory = tmp_path / f"{moment}{number}"
        make(directory)
        store = FaultyStore(PosixStore(directory), kill_at=number, moment=moment)
        status = in_child(partial(push, path, store))
        # A read of something missing, or of which the beginning was enough, does not come to its end.
        survived = moment == "after" and operation in ("get", "list", "stat")
        assert status == -signal.SIGKILL or (status == 0 and survived)
        assert content(directory, wal_sample, wal_sample.first) in ((data,) if status == 0 else (None, data))
        push(path, PosixStore(directory))
        assert content(directory, wal_sample, wal_sample.first) == data
        assert push(path, PosixStore(directory)) is Put.ALREADY_THERE


def test_killed_at_random_moments(tmp_path: Path, wal_sample: WalSample) -> None:
    """The real program, killed from outside; an exit status of 0 is the only acknowledgement."""
    directory = tmp_path / "repo"
    make(directory)
    data = tmp_path / "data"
    shutil.copytree(wal_sample.directory, data)
    chance = random.Random(4)
    numbers = range(wal_sample.first, wal_sample.fork)
    environment = program_environment(f"file://{directory}")
    killed = 0
    for round_ in range(16):
        number = numbers[round_ % len(numbers)]
        process = subprocess.Popen(
            [str(PROGRAM), "wal", "push", f"pg_wal/{wal_sample.segment(1, number)}"],
            cwd=data,
            env=environment,
            stderr=subprocess.PIPE,
        )
        try:
            process.wait(chance.uniform(0.05, 0.6))
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
        _, stderr = process.communicate()
        acknowledged = process.returncode == 0
        killed += process.returncode == -signal.SIGKILL
        assert process.returncode in (0, -signal.SIGKILL), stderr
        stored = content(directory, wal_sample, number)
        assert stored in (None, wal_sample.data(1, number))
        assert stored is not None or not acknowledged
    assert killed > 0
    for number in numbers:
        done = subprocess.run(
            [str(PROGRAM), "wal", "push", f"pg_wal/{wal_sample.segment(1, number)}"],
            cwd=data,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        assert content(directory, wal_sample, number) == wal_sample.data(1, number)


def test_terminated_by_the_server(tmp_path: Path, wal_sample: WalSample) -> None:
    """SIGTERM ends it soon, with a status that the archiver survives (pgarch.c gives up above 125 and for signals)."""
    directory = tmp_path / "repo"
    make(directory)
    data = tmp_path / "data"
    shutil.copytree(wal_sample.directory, data)
    # A pipe in place of the segment: the program waits for its content.
    name = str(wal_sample.segment(1, wal_sample.first))
    (data / "pg_wal" / name).unlink()
    os.mkfifo(data / "pg_wal" / name)
    process = subprocess.Popen(
        [str(PROGRAM), "wal", "push", f"pg_wal/{name}"],
        cwd=data,
        env=program_environment(f"file://{directory}"),
        stderr=subprocess.PIPE,
    )
    writer = os.open(data / "pg_wal" / name, os.O_WRONLY)  # returns when the program has opened it
    started = time.monotonic()
    process.terminate()
    _, stderr = process.communicate(timeout=30)
    os.close(writer)
    assert 1 <= process.returncode <= 125, (process.returncode, stderr)
    assert time.monotonic() - started < 10
    assert content(directory, wal_sample, wal_sample.first) is None
