"""For tests of wal receive: the real program as a child, its log, and what the archive holds."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pitr.pg.lsn import Lsn
from tests.support.cluster import Cluster, as_server_user, wait_until
from tests.support.site import PITR, Site, object_files

SYNCHRONOUS = {"synchronous_standby_names": "pitr_receive"}


@dataclass
class Receiver:
    site: Site
    process: subprocess.Popen[bytes]
    log_file: Path

    @property
    def log(self) -> str:
        return self.log_file.read_text("utf-8", "replace")

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def streams(self, cluster: Cluster | None = None) -> None:
        """Wait until it streams."""
        query = "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'pitr_receive' AND state = %s"
        where = cluster or self.site.cluster
        wait_until(lambda: where.value(query, params=["streaming"]) or not self.running, what=f"stream:\n{self.log}")
        assert self.running, self.log

    def said(self, text: str) -> None:
        wait_until(lambda: text in self.log, what=f'"{text}" in its log')

    def end(self, how: signal.Signals = signal.SIGTERM, timeout: float = 10.0) -> int:
        """Send the signal and return the exit status."""
        if self.running:
            self.process.send_signal(how)
        return self.process.wait(timeout)


@contextlib.contextmanager
def receiving(site: Site, *arguments: str) -> Iterator[Receiver]:
    """``pitr wal receive``, killed at the end of the block if it still runs. Logs are joined."""
    log_file = site.directory / "receive.log"
    argv = as_server_user([PITR, "--config", str(site.config), "--verbose", "wal", "receive", *arguments])
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", **site.environment}
    with log_file.open("ab") as log:
        process = subprocess.Popen(argv, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        yield Receiver(site, process, log_file)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(10)


def flushed(cluster: Cluster) -> Lsn:
    """What the receiver has reported as durable; 0/0 without one."""
    rows = cluster.sql("SELECT flush_lsn::text FROM pg_stat_replication WHERE application_name = 'pitr_receive'")
    return Lsn.parse(rows[0][0]) if rows and rows[0][0] is not None else Lsn(0)


def await_durable(cluster: Cluster, lsn: Lsn, timeout: float = 30.0) -> None:
    wait_until(lambda: flushed(cluster) >= lsn, timeout, f"{lsn} to be durable, {flushed(cluster)} is")


def partial_objects(site: Site, segment: str = "") -> list[Path]:
    return object_files(site.repository, "/wal/", f"{segment}.partial-")


def wal_objects(site: Site, timeline: int = 1) -> list[str]:
    """Names of the archived segments of a timeline, ascending."""
    found = object_files(site.repository, f"/wal/{timeline:08X}/")
    return sorted(path.name for path in found if len(path.name) == 24)


def gapless(names: Sequence[str], segments_per_log: int) -> bool:
    numbers = [int(name[8:16], 16) * segments_per_log + int(name[16:], 16) for name in names]
    return numbers == list(range(numbers[0], numbers[0] + len(numbers)))
