"""A base backup that is killed, interrupted or refused by its store at any moment leaves nothing that is listed."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pitr.base.backup import run_base_backup
from pitr.core.errors import StoreUnavailable
from pitr.core.events import silent
from pitr.repo.catalog import backup_ids, load_backup, load_map
from pitr.repo.pins import list_pins
from pitr.store import PosixStore
from tests.support.base_backup import CLUSTER, MIB, Backed, contents, start_backed
from tests.support.cluster import Cluster, wait_until
from tests.support.faulty_store import FaultyStore

pytestmark = pytest.mark.pg

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def backed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backed]:
    """A cluster whose backup takes several packs; its backups are one another's predecessors."""
    directory = tmp_path_factory.mktemp("killed")
    cluster = Cluster.make(archive_to=directory / "archive", conf={"autovacuum": "off"})
    made = start_backed(cluster, directory)
    cluster.sql("CREATE TABLE big AS SELECT g AS id, md5(g::text) AS t FROM generate_series(1, 200000) g")
    yield made
    made.feeder.stop()
    cluster.discard()


def start(backed: Backed, **words: object) -> subprocess.Popen[str]:
    """A backup in a process of its own that may not wait for another one's lease."""
    request = {
        "cluster": CLUSTER, "conninfo": backed.cluster.conninfo(), "jobs": 2, "lock_wait_s": 0,
        "slice_bytes": MIB, "pack_bytes": MIB,
    }  # fmt: skip
    rate = words.pop("max_rate_bytes_per_s", None)
    words = {"repository": backed.repository.store.url.removeprefix("file://"), **words}
    words["request"] = {**request, "max_rate_bytes_per_s": rate}
    argv = [sys.executable, "-m", "tests.support.base_runner", json.dumps(words)]
    return subprocess.Popen(argv, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def is_whole(backed: Backed, backup_id: str) -> bool:
    manifest = load_backup(backed.repository, backed.names, backup_id)
    total = sum(
        len(data) for _, data in contents(backed.repository, backed.names, load_map(backed.repository, manifest))
    )
    return total == manifest.sizes.total_bytes


def sessions(backed: Backed) -> int:
    count = backed.cluster.value("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'pitr/%'")
    assert isinstance(count, int)
    return count


def test_killed_at_store_operations(backed: Backed) -> None:
    """Each next run works at once: the lease of a dead process of this host does not hold it up."""
    counting = FaultyStore(backed.repository.store)
    request = backed.request(slice_bytes=MIB, pack_bytes=MIB)
    run_base_backup(replace(backed.repository, store=counting), request, silent)
    operations = len(counting.operations)
    assert operations > 20
    listed = backup_ids(backed.repository, backed.names)
    chosen = sorted({*random.sample(range(1, operations - 6), 6), *range(operations - 5, operations + 1)})
    for number, kill_at in enumerate(chosen):
        moment = ("before", "during", "after")[number % 3]
        process = start(backed, kill_at=kill_at, moment=moment)
        out, err = process.communicate(timeout=60)
        assert process.returncode in (-signal.SIGKILL, 0), (kill_at, moment, out, err)
        after = backup_ids(backed.repository, backed.names)
        for new in set(after) - set(listed):
            assert is_whole(backed, new), (kill_at, moment)
        listed = after
    assert backed.backup(lock_wait_s=0).backup_id in backup_ids(backed.repository, backed.names)
    wait_until(lambda: sessions(backed) == 0, what="the end of the killed backups' sessions")


def test_killed_at_random_moments(backed: Backed) -> None:
    listed = backup_ids(backed.repository, backed.names)
    for _ in range(4):
        process = start(backed, max_rate_bytes_per_s=15 * MIB)
        assert process.stdout is not None
        assert process.stdout.readline() == "copying\n", process.communicate()
        time.sleep(random.uniform(0, 0.6))
        process.kill()
        process.communicate()
        assert backup_ids(backed.repository, backed.names) == listed
    assert backed.backup(lock_wait_s=0).skipped is None


def test_ctrl_c_ends_the_backup_and_cleans_up(backed: Backed) -> None:
    listed = backup_ids(backed.repository, backed.names)
    before = {info.name for info in backed.repository.store.list(backed.names.base_prefix)}
    pins = len(list_pins(backed.repository, CLUSTER))
    process = start(backed, max_rate_bytes_per_s=4 * MIB)
    assert process.stdout is not None
    assert process.stdout.readline() == "copying\n", process.communicate()
    own = lambda: {info.name for info in backed.repository.store.list(backed.names.base_prefix)} - before  # noqa: E731
    wait_until(own, what="a stored pack")
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert time.monotonic() - began < 5
    assert (process.returncode, err) == (130, "")
    assert own() == set()
    assert len(list_pins(backed.repository, CLUSTER)) == pins
    assert backup_ids(backed.repository, backed.names) == listed
    wait_until(lambda: sessions(backed) == 0, what="the end of the session")
    assert backed.backup(lock_wait_s=0).skipped is None


def test_every_failed_put_ends_the_backup_cleanly(backed: Backed) -> None:
    """Not counted: leases, whose failure to be renewed or released is nobody's loss."""

    def counted(operation: str, name: str) -> bool:
        return operation == "put" and "/lease/" not in name

    store = backed.repository.store
    before = {info.name for info in store.list(backed.names.base_prefix)}
    number = 0
    while True:
        number += 1
        faulty = FaultyStore(store, fail_at=number, only=counted)
        request = backed.request(lock_wait_s=0, pack_bytes=32 * MIB, jobs=1)
        try:
            result = run_base_backup(replace(backed.repository, store=faulty), request, silent)
        except StoreUnavailable:
            # nothing is left but what the commit, whose answer is unknown, may have made a backup
            left = {info.name for info in store.list(backed.names.base_prefix)} - before
            _, name = faulty.operations[-1]
            assert (left == set()) == (not name.endswith("backup.json")), (number, name)
            before |= left
            assert not {name for name in left if name.endswith("backup.json")}
            continue
        assert result.backup_id is not None
        assert number > len(faulty.operations) >= 7
        break


def test_a_commit_whose_answer_is_lost(backed: Backed) -> None:
    """The backup may exist, so its objects must stay."""
    store = PosixStore(Path(backed.repository.store.url.removeprefix("file://")))
    counting = FaultyStore(store)
    request = backed.request(lock_wait_s=0, jobs=1)
    run_base_backup(replace(backed.repository, store=counting), request, silent)
    puts = [name for operation, name in counting.operations if operation == "put"]
    commit = next(index for index, name in enumerate(puts) if name.endswith("backup.json"))
    listed = backup_ids(backed.repository, backed.names)
    lost = FaultyStore(store, ",".join(["put:ok"] * commit + ["put:lost"]))
    with pytest.raises(StoreUnavailable):
        run_base_backup(replace(backed.repository, store=lost), request, silent)
    [new] = set(backup_ids(backed.repository, backed.names)) - set(listed)
    assert is_whole(backed, new)
