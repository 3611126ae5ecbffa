"""kill -9 of wal receive under load: no hole in the archive, no commit lost that a synchronous client was told of."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import psycopg
import pytest

from tests.support.cluster import Cluster, ClusterFactory, recover_in
from tests.support.receiving import SYNCHRONOUS, gapless, partial_objects, receiving, wal_objects
from tests.support.site import make_site

pytestmark = pytest.mark.pg

KILLS = int(os.environ.get("PITR_TEST_KILLS", "10"))
"""More of them by hand."""


INSERT = "INSERT INTO events SELECT %s, string_agg(md5(random()::text), '') FROM generate_series(1, 500)"
"""Large enough for segments to end between the kills."""


class Client(threading.Thread):
    """Commits one row after the other; ``acknowledged`` are those that the server has confirmed."""

    def __init__(self, cluster: Cluster, first: int) -> None:
        super().__init__(daemon=True)
        self.acknowledged: list[int] = []
        self.stopped = False
        self._cluster = cluster
        self._next = first

    def run(self) -> None:
        with self._cluster.connect() as connection:
            while not self.stopped:
                try:
                    connection.execute(INSERT, (self._next,))
                except psycopg.OperationalError:
                    return
                self.acknowledged.append(self._next)
                self._next += 1


@pytest.mark.timeout(60 + KILLS * 12)
def test_killed_at_random_moments(tmp_path: Path, cluster_factory: ClusterFactory) -> None:
    cluster = cluster_factory(segment_size_mb=1, conf={"autovacuum": "off"}, fresh=True).start()
    site = make_site(tmp_path / "site", cluster)
    cluster.sql("CREATE TABLE events (id bigint, filler text)")
    with receiving(site, "--create-slot") as receiver:
        receiver.streams()
        site.ok("backup", "base")
        receiver.end(signal.SIGKILL)
    cluster.sql("; ".join(f"ALTER SYSTEM SET {name} = '{value}'" for name, value in SYNCHRONOUS.items()))
    cluster.restart()
    clients = [Client(cluster, number * 1_000_000) for number in range(1, 3)]
    for client in clients:
        client.start()
    chance = random.Random(7)
    progressed = 0
    for _ in range(KILLS):
        before = sum(len(client.acknowledged) for client in clients)
        with receiving(site) as receiver:
            # Sometimes while it starts or catches up, sometimes in the middle of the stream.
            if chance.random() < 0.6:
                receiver.streams()
            time.sleep(chance.uniform(0.0, 0.8))
            assert receiver.running, receiver.log
            receiver.end(signal.SIGKILL)
        progressed += sum(len(client.acknowledged) for client in clients) > before
    assert progressed >= KILLS // 4
    for client in clients:
        client.stopped = True
    cluster.stop("immediate")
    for client in clients:
        client.join(10)
    acknowledged = {row for client in clients for row in client.acknowledged}
    assert len(acknowledged) > KILLS
    assert gapless(wal_objects(site), 4096)
    assert partial_objects(site)
    site.ok("restore", "base", "--to", str(tmp_path / "copy"), "--latest", "--action", "promote")
    recovery = recover_in(tmp_path / "copy")
    assert recovery.outcome == "promoted", recovery.log
    restored = {row[0] for row in recovery.cluster.sql("SELECT id FROM events")}
    assert acknowledged <= restored, sorted(acknowledged - restored)[:5]
    assert len(restored - acknowledged) <= len(clients)  # of each the one that was under way
    sys.stdout.write(f"{KILLS} kills, {len(acknowledged)} commits acknowledged, {len(wal_objects(site))} segments\n")
