"""The comparison behind scripts/bench."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
from bench_run import Measured, best, measure, tree_bytes

from pitr.core.units import format_size
from pitr.pg.tools import Tools, find_tools

DOCUMENTS = """
    CREATE TABLE documents AS
    SELECT gen_random_uuid() AS id, clock_timestamp() - make_interval(secs => n) AS at,
           jsonb_build_object('n', n, 'tags', jsonb_build_array(md5(n::text), 'tag-' || n % 97), 'ok', n % 3 = 0,
                              'who', jsonb_build_object('name', 'user ' || n % 5000,
                                                        'mail', md5((n * 7)::text) || '@example.org')) AS body,
           repeat('The quick brown fox number ' || n % 1000 || ' jumps over ' || md5((n * 13)::text) || '. ', 6) AS text
    FROM generate_series(1, {rows}) AS n"""


class Bench:
    """A loaded cluster, and the two programs that back it up."""

    def __init__(self, directory: Path, tools: Tools) -> None:
        self.directory = directory
        self.tools = tools
        self.data = directory / "data"
        self.sockets = Path(tempfile.mkdtemp(prefix="pitr-bench-"))
        self.log = directory / "commands.log"
        self.conninfo = f"host={self.sockets} user=bench dbname=postgres"
        self.pitr = str(Path(sys.executable).parent / "pitr")
        self.config = directory / "pitr.toml"

    def run(self, *argv: str) -> None:
        measure(list(argv), self.log)

    def create(self, scale: int, rows: int) -> None:
        self.run(self.tools.path("initdb"), "-D", str(self.data), "-U", "bench", "--data-checksums", "-A", "trust")
        with (self.data / "postgresql.conf").open("a") as conf:
            conf.write(
                "fsync = off\nshared_buffers = 512MB\nmax_wal_size = 8GB\nwal_level = replica\narchive_mode = on\n"
                f"archive_command = 'true'\nlisten_addresses = ''\nunix_socket_directories = '{self.sockets}'\n"
                "maintenance_work_mem = 256MB\ncheckpoint_timeout = 1h\nautovacuum = off\n"
            )
        self.start(self.data)
        self.run(
            self.tools.path("pgbench"), "-i", "-q", "-s", str(scale), "-h", str(self.sockets), "-U", "bench", "postgres"
        )
        self.sql(DOCUMENTS.format(rows=rows))
        self.sql("CHECKPOINT")

    def start(self, data: Path) -> None:
        self.run(self.tools.path("pg_ctl"), "-D", str(data), "-l", str(data) + ".log", "-w", "-t", "120", "start")

    def stop(self, data: Path) -> None:
        subprocess.run(
            [self.tools.path("pg_ctl"), "-D", str(data), "-m", "immediate", "-w", "stop"], capture_output=True
        )

    def sql(self, statement: str) -> None:
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            connection.execute(statement.encode())

    def archive_with(self, command: str) -> None:
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            literal = command.replace("'", "''")
            connection.execute(f"ALTER SYSTEM SET archive_command = '{literal}'".encode())
            connection.execute("SELECT pg_reload_conf()")

    def settle(self) -> None:
        """Both sides see the same clean state: nothing dirty in the server or the page cache."""
        self.sql("CHECKPOINT")
        os.sync()


def pitr_side(bench: Bench, url: str, extra: str, runs: int) -> dict[str, object]:
    bench.config.write_text(
        f'[repo.main]\nurl = "{url}"\nkey_file = "{bench.directory / "main.key"}"\n{extra}\n'
        f'[cluster.bench]\ndata_directory = "{bench.data}"\ndsn = "{bench.conninfo}"\njobs = 2\n'
    )
    prefix = [bench.pitr, "--config", str(bench.config), "--no-progress"]
    measure([*prefix, "init"], bench.log)
    bench.archive_with(f'{bench.pitr} --config {bench.config} --cluster bench wal push "%p"')
    backups, restores = [], []
    for number in range(runs):
        bench.settle()
        backups.append(measure([*prefix, "backup", "base", "--full"], bench.log))
        target = bench.directory / f"restored-{number}"
        os.sync()
        restores.append(measure([*prefix, "restore", "base", "--to", str(target), "--immediate"], bench.log))
        shutil.rmtree(target)
    shown = subprocess.run([*prefix, "--json", "show", "latest"], capture_output=True, check=True).stdout
    size = json.loads(shown)["result"]["manifest"]["sizes"]["stored_bytes"]
    return {"backup": best(backups), "restore": best(restores), "stored": size}


def peer_side(bench: Bench, runs: int) -> dict[str, object]:
    home = bench.directory / "peer"
    home.mkdir()
    conf = home / "pgbackrest.conf"
    conf.write_text(
        f"[global]\nrepo1-path={home}/repo\nrepo1-cipher-type=aes-256-cbc\nrepo1-cipher-pass=bench-passphrase\n"
        "repo1-bundle=y\ncompress-type=zst\ncompress-level=3\nprocess-max=2\nstart-fast=y\narchive-async=y\n"
        f"log-path={home}\nlock-path={home}/lock\nspool-path={home}/spool\nlog-level-console=warn\nlog-level-file=off\n"
        f"repo1-retention-full=100\n[bench]\npg1-path={bench.data}\npg1-socket-path={bench.sockets}\npg1-user=bench\n"
    )
    program = shutil.which("pgbackrest")
    assert program is not None
    prefix = [program, f"--config={conf}", "--stanza=bench"]
    bench.archive_with(f"{' '.join(prefix)} archive-push %p")
    measure([*prefix, "stanza-create"], bench.log)
    backups, restores = [], []
    for number in range(runs):
        bench.settle()
        before = tree_bytes(home / "repo/backup")
        backups.append(measure([*prefix, "--type=full", "backup"], bench.log))
        size = tree_bytes(home / "repo/backup") - before
        target = bench.directory / f"peer-{number}"
        target.mkdir(mode=0o700)
        os.sync()
        command = [*prefix, "restore", "--type=immediate", f"--pg1-path={target}", f"--spool-path={home}/restore"]
        restores.append(measure(command, bench.log))
        shutil.rmtree(target)
    return {"backup": best(backups), "restore": best(restores), "stored": size}


@contextlib.contextmanager
def s3_server(directory: Path) -> Iterator[dict[str, str]]:
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("s3_server.py")), "--dir", str(directory / "s3")],
        stdout=subprocess.PIPE,
    )
    try:
        assert server.stdout is not None
        yield json.loads(server.stdout.readline())
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=30)


def show(sides: dict[str, dict[str, object]]) -> None:
    print(f"{'':26}{'CPU s':>8}{'user':>8}{'sys':>8}{'wall s':>8}{'peak MB':>9}{'stored':>12}")
    for what in ("backup", "restore"):
        for side, results in sides.items():
            run = results[what]
            assert isinstance(run, Measured)
            stored = format_size(int(str(results["stored"]))) if what == "backup" else ""
            print(
                f"{what + ' ' + side:26}{run.cpu_s:8.2f}{run.user_s:8.2f}{run.system_s:8.2f}{run.wall_s:8.2f}"
                f"{run.peak_bytes / 1e6:9.0f}{stored:>12}"
            )
    if "pgBackRest" not in sides:
        return
    for side in [name for name in sides if name != "pgBackRest"]:
        for what in ("backup", "restore"):
            ours, peers = sides[side][what], sides["pgBackRest"][what]
            assert isinstance(ours, Measured)
            assert isinstance(peers, Measured)
            print(
                f"{what} {side}: {ours.cpu_s / peers.cpu_s:.2f} x CPU, {ours.wall_s / peers.wall_s:.2f} x wall", end=""
            )
            ratio = int(str(sides[side]["stored"])) / int(str(sides["pgBackRest"]["stored"]))
            print(f", {ratio:.2f} x stored" if what == "backup" else "")


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--scale", type=int, default=150)
    parser.add_argument("--document-rows", type=int, default=1_500_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--s3", action="store_true", help="also to a local S3 server")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--dir", type=Path, help="where to work (default: a temporary directory)")
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="pitr-bench-", dir=arguments.dir))
    bench = Bench(directory, find_tools(15, ("initdb", "pg_ctl", "pgbench")))
    try:
        bench.create(arguments.scale, arguments.document_rows)
        print(
            f"cluster of {format_size(tree_bytes(bench.data / 'base'))}, PostgreSQL {bench.tools.version}", flush=True
        )
        sides: dict[str, dict[str, object]] = {}
        repository = directory / "repository"
        sides["pitr, directory"] = pitr_side(bench, f"file://{repository}", "", arguments.runs)
        if not arguments.no_peer and shutil.which("pgbackrest"):
            sides["pgBackRest"] = peer_side(bench, arguments.runs)
        if arguments.s3:
            with s3_server(directory) as s3:
                secret = directory / "s3.secret"
                secret.write_text(s3["secret_key"])
                extra = (
                    f'endpoint = "{s3["endpoint"]}"\nregion = "us-east-1"\naccess_key = "{s3["access_key"]}"\n'
                    f'secret_key_file = "{secret}"\n'
                )
                shutil.rmtree(repository)
                (directory / "main.key").unlink()
                sides["pitr, S3"] = pitr_side(bench, f"s3://{s3['bucket']}/bench", extra, arguments.runs)
        show(sides)
    finally:
        bench.stop(bench.data)
        shutil.rmtree(directory, ignore_errors=True)
        shutil.rmtree(bench.sockets, ignore_errors=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
