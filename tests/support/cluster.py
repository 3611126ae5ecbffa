"""Real PostgreSQL clusters for tests: initdb once per session and kind, a copy for each test, Unix sockets only.

As root the server programs run in a user namespace that maps root to an ordinary user; files stay root's outside.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import psycopg
import pytest

from pitr.core.errors import ToolMissing
from pitr.pg.lsn import Lsn
from pitr.pg.tools import Tools, find_tools
from pitr.pg.versions import SUPPORTED_MAJORS

DEFAULT_MAJOR = 15
START_TIMEOUT_S = 60.0
Value = TypeVar("Value")
Outcome = Literal["promoted", "paused", "exited"]
StopMode = Literal["smart", "fast", "immediate"]
_STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}


def tools_of(major: int) -> Tools:
    return find_tools(major, ("postgres", "initdb", "pg_ctl"))


def _installed_majors() -> list[int]:
    found = []
    for major in SUPPORTED_MAJORS:
        with contextlib.suppress(ToolMissing):
            tools_of(major)
            found.append(major)
    return found


MAJORS = _installed_majors()


def as_server_user(argv: Sequence[str]) -> list[str]:
    """The command line that runs argv as the server's user: not as root, but with root's files."""
    if os.geteuid() != 0:
        return list(argv)
    return ["unshare", "--user", "--map-user=1000", "--", *argv]


def _dying_with_us(argv: Sequence[str]) -> list[str]:
    """PDEATHSIG inside the namespace (entering one clears it): an interrupted test run leaves no server behind."""
    return [*as_server_user([]), "setpriv", "--pdeathsig", "QUIT", *argv]


def wait_until(predicate: Callable[[], Value | None], timeout: float = 30.0, what: str = "the condition") -> Value:
    """Poll until predicate returns something true, and return that. Fails the test after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    delay = 0.005
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come true within {timeout:g} s")
        time.sleep(delay)
        delay = min(delay * 1.5, 0.1)


# One short directory per process: a socket's path may have 107 bytes.
_root: Path | None = None
_live: list[Cluster] = []
_templates: dict[tuple[object, ...], Path] = {}
_made = 0


def _session_root() -> Path:
    global _root
    if _root is None:
        _root = Path(tempfile.mkdtemp(prefix="pt", dir="/tmp"))
        atexit.register(_clean_up)
    return _root


def _clean_up() -> None:
    while _live:
        _live[-1].discard()
    if _root is not None:
        shutil.rmtree(_root, ignore_errors=True)


def _new_directory() -> Path:
    global _made
    _made += 1
    directory = _session_root() / f"c{_made}"
    directory.mkdir(mode=0o700)
    return directory


def run_initdb(
    data_directory: Path, tools: Tools, *, checksums: bool, segment_size_mb: int, args: Sequence[str]
) -> None:
    argv = [tools.path("initdb"), "-D", str(data_directory), "-U", "postgres", "--auth=trust", "--no-sync"]
    argv += ["-E", "UTF8", "--locale=C", f"--wal-segsize={segment_size_mb}"]
    if checksums:
        argv.append("--data-checksums")
    elif tools.major >= 18:
        argv.append("--no-data-checksums")
    done = subprocess.run(as_server_user([*argv, *args]), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def _template(tools: Tools, checksums: bool, segment_size_mb: int, args: tuple[str, ...]) -> Path:
    key = (tools.bin_dir, checksums, segment_size_mb, args)
    if key not in _templates:
        path = _session_root() / f"t{len(_templates)}"
        run_initdb(path, tools, checksums=checksums, segment_size_mb=segment_size_mb, args=args)
        _templates[key] = path
    return _templates[key]


@dataclass
class Cluster:
    """A data directory and, between start() and stop(), its postmaster (a child of this process).

    Socket directory, TCP and fsync are set on the server's command line, so that neither a copy nor a restored data
    directory can get in the way of the cluster it came from.
    """

    data_directory: Path
    tools: Tools
    directory: Path
    fsync: bool = False
    settings: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def make(
        cls,
        major: int = DEFAULT_MAJOR,
        *,
        checksums: bool = True,
        segment_size_mb: int = 16,
        initdb_args: Sequence[str] = (),
        conf: Mapping[str, str] | None = None,
        archive_to: Path | None = None,
        fsync: bool = False,
        fresh: bool = False,
    ) -> Cluster:
        """A new cluster, not started. ``conf``: settings added to postgresql.conf. ``archive_to``: archive by cp.

        Clusters copied from the same template have the same system identifier; ``fresh`` runs initdb for a new one.
        """
        tools = tools_of(major)
        directory = _new_directory()
        data_directory = directory / "data"
        if fresh:
            run_initdb(
                data_directory, tools, checksums=checksums, segment_size_mb=segment_size_mb, args=tuple(initdb_args)
            )
        else:
            template = _template(tools, checksums, segment_size_mb, tuple(initdb_args))
            subprocess.run(["cp", "-a", str(template), str(data_directory)], check=True)
        cluster = cls(data_directory, tools, directory, fsync=fsync)
        settings = {"shared_buffers": "32MB", "max_wal_size": "256MB", "log_line_prefix": "%m [%p] ", **(conf or {})}
        if archive_to is not None:
            archive_to.mkdir(parents=True, exist_ok=True)
            stored = f'"{archive_to}/%f"'
            command = f'test ! -e {stored} && cp "%p" {stored}.tmp && mv {stored}.tmp {stored}'
            settings = {"archive_mode": "on", "archive_command": command, **settings}
        cluster.configure(settings)
        _live.append(cluster)
        return cluster

    @classmethod
    def at(
        cls, data_directory: Path, major: int = DEFAULT_MAJOR, *, settings: Mapping[str, str] | None = None
    ) -> Cluster:
        """A cluster on an existing (restored) data directory; ``settings`` go to the server's command line."""
        cluster = cls(data_directory, tools_of(major), _new_directory(), settings=dict(settings or {}))
        _live.append(cluster)
        return cluster

    # Configuration and connections

    @property
    def major(self) -> int:
        return self.tools.major

    @property
    def socket_directory(self) -> Path:
        return self.directory

    @property
    def log(self) -> str:
        """Everything the server has logged."""
        path = self.directory / "log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    @property
    def env(self) -> dict[str, str]:
        """libpq's environment for this cluster."""
        return {"PGHOST": str(self.socket_directory), "PGPORT": "5432", "PGUSER": "postgres", "PGDATABASE": "postgres"}

    def configure(self, settings: Mapping[str, str]) -> None:
        """Append settings to postgresql.conf; a running server must be reloaded or restarted."""
        with (self.data_directory / "postgresql.conf").open("a") as conf:
            for name, value in settings.items():
                quoted = value.replace("'", "''")
                conf.write(f"{name} = '{quoted}'\n")

    def conninfo(self, db: str = "postgres", user: str = "postgres") -> str:
        return f"host={self.socket_directory} port=5432 user={user} dbname={db}"

    def connect(self, db: str = "postgres", *, user: str = "postgres", autocommit: bool = True) -> psycopg.Connection:
        return psycopg.connect(self.conninfo(db, user), autocommit=autocommit)

    def sql(self, query: str, db: str = "postgres", params: Sequence[object] | None = None) -> list[tuple[Any, ...]]:
        """Run SQL and return the rows of the last statement; several (without params) are one transaction."""
        with self.connect(db) as connection:
            cursor = connection.execute(query.encode(), params)
            while cursor.nextset():
                pass
            return cursor.fetchall() if cursor.description is not None else []

    def value(self, query: str, db: str = "postgres", params: Sequence[object] | None = None) -> Any:
        """The single value of a query."""
        return self.sql(query, db, params)[0][0]

    def lsn(self) -> Lsn:
        """Where the next record will be written (on a standby: what has been replayed)."""
        in_recovery = self.value("SELECT pg_is_in_recovery()")
        return Lsn.parse(
            self.value(f"SELECT pg_{'last_wal_replay' if in_recovery else 'current_wal_insert'}_lsn()::text")
        )

    def commit_lsn(self, query: str, db: str = "postgres") -> Lsn:
        """Run a query in a transaction of its own; the position behind its commit record (if nobody else writes)."""
        self.sql(query, db)
        return self.lsn()

    def switch_wal(self) -> str:
        """End the current segment (something is written first, an idle server would not switch) and return its name."""
        return str(
            self.value("SELECT pg_logical_emit_message(false, 'switch', ''); SELECT pg_walfile_name(pg_switch_wal())")
        )

    # Life and death

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        """The postmaster's process id."""
        assert self.process is not None
        return self.process.pid

    def _server_argv(self) -> list[str]:
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.socket_directory),
            "port": "5432",
            "logging_collector": "off",
            "fsync": "on" if self.fsync else "off",
            **self.settings,
        }
        argv = [self.tools.path("postgres"), "-D", str(self.data_directory)]
        for name, value in settings.items():
            argv += ["-c", f"{name}={value}"]
        return argv

    def launch(self) -> None:
        """Start the postmaster and do not wait for it."""
        assert not self.running
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                _dying_with_us(self._server_argv()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "LC_ALL": "C"},
                start_new_session=True,
            )

    def start(self, timeout: float = START_TIMEOUT_S) -> Cluster:
        """Start the server and wait until it takes connections."""
        self.launch()
        assert self.process is not None
        wait_until(lambda: self.process is None or self.process.poll() is not None or self._ready(), timeout, "start")
        if self.process.poll() is not None:
            raise AssertionError(f"the server ended with status {self.process.returncode}:\n{self.log[-4000:]}")
        return self

    def _ready(self) -> bool:
        """The last line of postmaster.pid says so, as for pg_ctl."""
        try:
            lines = (self.data_directory / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() in ("ready", "standby")

    def stop(self, mode: StopMode = "fast", timeout: float = 60.0) -> None:
        if self.running:
            self._end(_STOP_SIGNALS[mode], timeout)

    def kill(self) -> None:
        """kill -9 of the postmaster; its orphans notice and are awaited, so that it can be started again."""
        self._end(signal.SIGKILL, 30.0)

    def _end(self, signal_number: int, timeout: float) -> None:
        assert self.process is not None
        children = _children(self.pid)
        os.kill(self.pid, signal_number)
        self.process.wait(timeout)
        wait_until(lambda: not any(_is_child_alive(child) for child in children), timeout, "the end of the backends")

    def restart(self, mode: StopMode = "fast") -> None:
        self.stop(mode)
        self.start()

    def reload(self) -> None:
        self.sql("SELECT pg_reload_conf()")

    def promote(self) -> None:
        assert self.value("SELECT pg_promote(true, 60)") is True

    def discard(self) -> None:
        """End the server whatever its state, and remove its files."""
        if self.running:
            with contextlib.suppress(subprocess.TimeoutExpired, AssertionError):
                self._end(signal.SIGQUIT, 10.0)
        if self.running:
            self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
        if self in _live:
            _live.remove(self)

    def make_standby(self, *, conf: Mapping[str, str] | None = None) -> Cluster:
        """A streaming standby of this running cluster, not started."""
        directory = _new_directory()
        argv = [
            self.tools.path("pg_basebackup"),
            "-D",
            str(directory / "data"),
            "-c",
            "fast",
            "-R",
            "--no-sync",
            "-X",
            "stream",
        ]
        argv += ["-d", f"host={self.socket_directory} port=5432 user=postgres"]
        done = subprocess.run(as_server_user(argv), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        standby = Cluster(directory / "data", self.tools, directory, fsync=self.fsync)
        standby.configure(conf or {})
        _live.append(standby)
        return standby

    # Load

    def _pgbench(self, args: Sequence[str], db: str) -> list[str]:
        program = shutil.which("pgbench") or self.tools.path("pgbench")
        return [program, "-h", str(self.socket_directory), "-p", "5432", "-U", "postgres", *args, db]

    def pgbench_init(self, scale: int = 1, db: str = "postgres") -> None:
        done = subprocess.run(self._pgbench(["-i", "-q", "-s", str(scale)], db), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def pgbench_run(self, seconds: float = 1, clients: int = 2, db: str = "postgres") -> None:
        argv = self._pgbench(["-n", "-T", str(max(1, round(seconds))), "-c", str(clients)], db)
        done = subprocess.run(argv, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def pgbench(self, scale: int = 1, seconds: float = 1, clients: int = 2, db: str = "postgres") -> None:
        """Fill pgbench's tables, then run its default transactions for that long."""
        self.pgbench_init(scale, db)
        self.pgbench_run(seconds, clients, db)

    @contextlib.contextmanager
    def load(self, clients: int = 2, db: str = "postgres") -> Iterator[None]:
        """pgbench's transactions in the background (after pgbench_init), ended on leaving the block."""
        argv = ["setpriv", "--pdeathsig", "KILL", *self._pgbench(["-n", "-T", "600", "-c", str(clients)], db)]
        process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_until(
                lambda: (
                    self.value("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'") >= clients
                ),
                what="pgbench's connections",
            )
            yield
        finally:
            process.terminate()
            process.wait(30)


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _is_child_alive(pid: int) -> bool:
    """A process that still is one of the server's (a reused id would have another name)."""
    try:
        return (
            Path(f"/proc/{pid}/comm").read_text().startswith("postgres")
            and "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
        )
    except (FileNotFoundError, ProcessLookupError):
        return False


@dataclass(frozen=True, slots=True)
class Recovery:
    """How a started recovery went: it promoted, paused at its target, or the postmaster exited."""

    outcome: Outcome
    cluster: Cluster

    @property
    def log(self) -> str:
        return self.cluster.log


def recover_in(
    data_directory: Path,
    *,
    major: int = DEFAULT_MAJOR,
    settings: Mapping[str, str] | None = None,
    timeout: float = 120.0,
) -> Recovery:
    """Start a server on a restored data directory and wait for what becomes of its recovery.

    The server is left running unless it exited; the fixtures (or the end of the session) end it. A standby without a
    target neither promotes nor pauses: use ``Cluster.at(...).start()`` for one.
    """
    cluster = Cluster.at(data_directory, major, settings=settings)
    cluster.launch()
    try:
        outcome: Outcome = wait_until(lambda: _recovery_outcome(cluster), timeout, "the end of recovery")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{cluster.log[-4000:]}") from error
    return Recovery(outcome, cluster)


def _recovery_outcome(cluster: Cluster) -> Outcome | None:
    if not cluster.running:
        return "exited"
    if not cluster._ready():
        return None
    try:
        if not cluster.value("SELECT pg_is_in_recovery()"):
            return "promoted"
        paused = "pg_get_wal_replay_pause_state() = 'paused'" if cluster.major >= 14 else "pg_is_wal_replay_paused()"
        return "paused" if cluster.value(f"SELECT {paused}") else None
    except psycopg.OperationalError:
        return None


ClusterFactory = Callable[..., Cluster]


@pytest.fixture
def cluster_factory() -> Iterator[ClusterFactory]:
    """``Cluster.make`` whose clusters (and every other one made during the test) are gone after the test."""
    before = list(_live)
    yield Cluster.make
    for made in [cluster for cluster in _live if cluster not in before]:
        made.discard()


@pytest.fixture
def cluster(cluster_factory: ClusterFactory) -> Cluster:
    """A running cluster of the default major with data checksums."""
    return cluster_factory().start()


@pytest.fixture(scope="session")
def shared_cluster() -> Iterator[Cluster]:
    """A running cluster for tests that only read or make databases of their own; never stopped or reconfigured."""
    shared = Cluster.make().start()
    yield shared
    shared.discard()


@pytest.fixture(params=MAJORS)
def major(request: pytest.FixtureRequest) -> int:
    """Every installed major in turn; mark the test ``majors``."""
    value = request.param
    assert isinstance(value, int)
    return value
