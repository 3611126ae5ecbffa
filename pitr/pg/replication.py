"""Physical streaming replication as a client (protocol-replication in the manual, receivelog.c): one connection.

Nothing here blocks without a deadline, so that a signal is answered at once. psycopg is imported with the first
connection.
"""

from __future__ import annotations

import select
import struct
import time
from typing import TYPE_CHECKING, NamedTuple

from pitr.core.errors import ConfigError, PitrError, PrivilegeMissing, ServerUnreachable, WalGap
from pitr.core.secrets import redact
from pitr.pg.lsn import Lsn
from pitr.pg.server import QueryFailed, server_errors

if TYPE_CHECKING:
    from psycopg import pq
    from psycopg.pq.abc import PGconn, PGresult

    from pitr.pg.server import Connection

_TIMEOUT_S = 15.0
"""For connecting, and for each command but the stream itself."""
_POSTGRES_EPOCH_S = 946684800
_WAL_DATA = struct.Struct("!cqqq")
_KEEPALIVE = struct.Struct("!cqqB")
_STATUS = struct.Struct("!cqqqqB")
_WORDS = {"read": select.POLLIN, "write": select.POLLOUT}


class SlotInUse(PitrError):
    """Another receiver uses the slot, or the server has not noticed yet that the one before is gone."""

    code = "slot-in-use"
    exit_code = 12


class WalRemoved(WalGap):
    """The server was asked for WAL that it does not have any more."""


class SystemIdentity(NamedTuple):
    """IDENTIFY_SYSTEM. ``flush_lsn``: up to where the server could send now."""

    system_id: int
    timeline: int
    flush_lsn: Lsn


class SlotState(NamedTuple):
    """``restart_lsn``: WAL from its segment on is kept; None when the slot keeps nothing yet.

    ``lost``: the server has removed WAL that the slot needed.
    """

    restart_lsn: Lsn | None
    lost: bool


class WalData(NamedTuple):
    """``data``: WAL from ``start`` on."""

    start: Lsn
    data: memoryview


class Keepalive(NamedTuple):
    reply_requested: bool


class NextTimeline(NamedTuple):
    """The streamed timeline ended at ``switch_lsn``, where ``timeline`` begins."""

    timeline: int
    switch_lsn: Lsn


class StreamEnded:
    """The server has no more to send: of this timeline, or because it shuts down. See end_stream()."""


Received = WalData | Keepalive | StreamEnded


def read_slot(connection: Connection, slot: str) -> SlotState | None:
    """None when there is no such slot. Raises ConfigError for a logical one."""
    with server_errors("cannot read pg_replication_slots"):
        row = connection.execute(
            "SELECT slot_type, restart_lsn::text, wal_status FROM pg_replication_slots WHERE slot_name = %s", (slot,)
        ).fetchone()
    if row is None:
        return None
    kind, restart, status = row
    if kind != "physical":
        raise ConfigError(f'replication slot "{slot}" is a {kind} one', hint="choose another name with --slot")
    return SlotState(None if restart is None else Lsn.parse(restart), status == "lost")


RECEIVER = "pitr_receive"
"""application_name of pitr wal receive, for synchronous_standby_names."""


def is_received(connection: Connection) -> bool:
    """Whether pitr wal receive streams from this server, as far as this role may see."""
    with server_errors("cannot read pg_stat_replication"):
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_replication WHERE application_name = %s AND state = 'streaming'", (RECEIVER,)
        ).fetchone()
    return row is not None and row[0] > 0


class ReplicationConnection:
    """An open walsender connection."""

    def __init__(self, connection: PGconn) -> None:
        self._pg = connection

    @classmethod
    def open(cls, conninfo: str, application: str) -> ReplicationConnection:
        """Raises ServerUnreachable, also when the server refuses (privilege, pg_hba.conf): libpq tells them in words
        only."""
        import psycopg
        from psycopg import pq

        try:
            full = psycopg.conninfo.make_conninfo(
                conninfo, dbname="replication", replication="true", application_name=application
            )
        except psycopg.ProgrammingError as error:
            raise ServerUnreachable(
                "the connection string cannot be understood",
                detail=redact(str(error).strip()),
                hint="check dsn in the configuration",
            ) from error
        connection = pq.PGconn.connect_start(full.encode())
        try:
            _finish_connecting(connection)
        except BaseException:
            connection.finish()
            raise
        connection.nonblocking = 1
        return cls(connection)

    @property
    def major(self) -> int:
        return self._pg.server_version // 10000

    def close(self) -> None:
        self._pg.finish()

    def identify(self) -> SystemIdentity:
        system_id, timeline, position, *_ = self._row("IDENTIFY_SYSTEM", "cannot identify the server")
        return SystemIdentity(int(system_id), int(timeline), Lsn.parse(position.decode()))

    def history_file(self, timeline: int) -> bytes:
        """The content of the timeline's history file, as it lies in pg_wal."""
        return self._row(f"TIMELINE_HISTORY {timeline}", f"cannot read the history of timeline {timeline}")[1]

    def setting(self, name: str) -> str:
        return self._row(f"SHOW {name}", f"cannot read {name}")[0].decode()

    def create_slot(self, slot: str) -> None:
        """A physical slot that keeps WAL from now on. Raises PrivilegeMissing, QueryFailed."""
        what = f'cannot create replication slot "{slot}"'
        self._row(f'CREATE_REPLICATION_SLOT "{slot}" PHYSICAL RESERVE_WAL', what)

    def start(self, slot: str, position: Lsn, timeline: int) -> None:
        """Begin to stream. Raises SlotInUse, ConfigError (no such slot), WalGap, ServerUnreachable."""
        from psycopg import pq

        what = f"cannot stream from {position} on timeline {timeline}"
        self._send(f'START_REPLICATION SLOT "{slot}" PHYSICAL {position} TIMELINE {timeline}', what)
        result = self._result(what)
        if result is None or result.status != pq.ExecStatus.COPY_BOTH:
            raise _failure(what, result)

    def receive(self) -> Received | None:
        """The next message of the stream; None when it has not arrived. Raises WalRemoved, ServerUnreachable."""
        import psycopg

        try:
            length, data = self._pg.get_copy_data(1)
            if length == 0:
                self._pg.consume_input()
                length, data = self._pg.get_copy_data(1)
        except psycopg.OperationalError as error:
            raise ServerUnreachable("the connection to the server was lost", detail=_text(error)) from error
        if length == 0:
            return None
        if length < 0:
            return StreamEnded()
        view = memoryview(data)
        kind = bytes(view[:1])
        if kind == b"w":
            _, start, _, _ = _WAL_DATA.unpack_from(view)
            return WalData(Lsn(start), view[_WAL_DATA.size :])
        if kind == b"k":
            return Keepalive(bool(_KEEPALIVE.unpack_from(view)[3]))
        raise ServerUnreachable("the server sent what is not of the replication protocol", detail=f"message {kind!r}")

    def send_status(self, received: Lsn, durable: Lsn, *, ping: bool = False) -> None:
        """Standby status update. ``durable`` is reported as flushed and applied; 0 tells nothing. ``ping``: ask for an
        answer."""
        now = int((time.time() - _POSTGRES_EPOCH_S) * 1_000_000)
        message = _STATUS.pack(b"r", int(received), int(durable), int(durable), now, ping)
        self._guarded(lambda: self._pg.put_copy_data(message))
        self._guarded(self._pg.flush)

    def wait(self, wake_fd: int, timeout_s: float, *, read: bool) -> None:
        """Until the server sent something (when ``read``), ``wake_fd`` is readable, or the time is over."""
        poller = select.poll()
        events = select.POLLOUT if self._guarded(self._pg.flush) else 0
        poller.register(self._pg.socket, events | (select.POLLIN if read else 0))
        poller.register(wake_fd, select.POLLIN)
        poller.poll(max(0, int(timeout_s * 1000)))

    def end_stream(self) -> NextTimeline | None:
        """After StreamEnded: how it goes on; None when the server shuts down. Raises WalRemoved and others."""
        from psycopg import pq

        what = "the stream was ended by the server"
        result = self._result(what)
        if result is not None and result.status == pq.ExecStatus.COPY_IN:
            self._guarded(self._pg.put_copy_end)
            self._flush(what)
            result = self._result(what)
        following = None
        while result is not None:
            if result.status == pq.ExecStatus.TUPLES_OK:
                timeline, position = result.get_value(0, 0), result.get_value(0, 1)
                assert timeline is not None
                assert position is not None
                following = NextTimeline(int(timeline), Lsn.parse(position.decode()))
            elif result.status != pq.ExecStatus.COMMAND_OK:
                raise _failure(what, result)
            result = self._result(what)
        return following

    def _row(self, command: str, what: str) -> list[bytes]:
        from psycopg import pq

        self._send(command, what)
        result = self._result(what)
        if result is None or result.status != pq.ExecStatus.TUPLES_OK or result.ntuples != 1:
            raise _failure(what, result)
        row = [result.get_value(0, column) or b"" for column in range(result.nfields)]
        while self._result(what) is not None:
            pass
        return row

    def _send(self, command: str, what: str) -> None:
        self._guarded(lambda: self._pg.send_query(command.encode()))
        self._flush(what)

    def _flush(self, what: str) -> None:
        deadline = time.monotonic() + _TIMEOUT_S
        while self._guarded(self._pg.flush):
            _await_socket(self._pg, "write", deadline, what)

    def _result(self, what: str) -> PGresult | None:
        deadline = time.monotonic() + _TIMEOUT_S
        while self._guarded(self._pg.is_busy):
            _await_socket(self._pg, "read", deadline, what)
            self._guarded(self._pg.consume_input)
        return self._pg.get_result()

    def _guarded(self, call: object) -> int:
        import psycopg

        assert callable(call)
        try:
            return int(call() or 0)
        except psycopg.Error as error:
            raise ServerUnreachable("the connection to the server was lost", detail=_text(error)) from error


def _finish_connecting(connection: PGconn) -> None:
    from psycopg import pq

    deadline = time.monotonic() + _TIMEOUT_S
    waits_for: dict[pq.PollingStatus, str] = {pq.PollingStatus.READING: "read", pq.PollingStatus.WRITING: "write"}
    state = pq.PollingStatus.WRITING
    while connection.status != pq.ConnStatus.BAD and state != pq.PollingStatus.OK:
        if state in waits_for:
            _await_socket(connection, waits_for[state], deadline, "cannot connect to PostgreSQL")
        state = pq.PollingStatus(connection.connect_poll())
        if state == pq.PollingStatus.FAILED:
            break
    if state != pq.PollingStatus.OK:
        raise ServerUnreachable(
            "cannot connect to PostgreSQL for replication",
            detail=redact(connection.error_message.decode("utf-8", "replace").strip()),
            hint="the role needs REPLICATION, and pg_hba.conf a line for the database replication",
        )


def _await_socket(connection: PGconn, what_for: str, deadline: float, what: str) -> None:
    poller = select.poll()
    poller.register(connection.socket, _WORDS[what_for])
    if not poller.poll(max(0, int((deadline - time.monotonic()) * 1000))):
        raise ServerUnreachable(what, detail=f"no answer within {_TIMEOUT_S:g} s")


def _failure(what: str, result: PGresult | None) -> PitrError:
    """The error that the server's answer means, by its SQLSTATE."""
    from psycopg.pq import DiagnosticField

    state = b"" if result is None else result.error_field(DiagnosticField.SQLSTATE) or b""
    message = b"" if result is None else result.error_message
    detail = redact(message.decode("utf-8", "replace").strip()) or "the server did not answer as expected"
    match state.decode("ascii", "replace"):
        case "58P01":
            return WalRemoved(what, detail=detail)
        case "55006":
            return SlotInUse(what, detail=detail)
        case "42704":
            return ConfigError(what, detail=detail, hint="--create-slot makes it")
        case "42501":
            return PrivilegeMissing(what, detail=detail, hint="ALTER ROLE ... REPLICATION")
        case code if not code or code.startswith(("08", "57P0")):
            return ServerUnreachable(what, detail=detail)
        case _:
            return QueryFailed(what, detail=detail)


def _text(error: Exception) -> str | None:
    return redact(str(error).strip()) or None
