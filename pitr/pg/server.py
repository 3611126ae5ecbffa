"""Sessions on a live server: how they are opened, what is refused, and how their errors are told.

psycopg is imported when the first session is opened, never with this module.
"""

from __future__ import annotations

import contextlib
import re
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pitr.core.errors import PitrError, PrivilegeMissing, ServerUnreachable, VersionUnsupported
from pitr.core.secrets import redact

if TYPE_CHECKING:
    import psycopg

    Connection = psycopg.Connection[tuple[Any, ...]]

OLDEST_VERSION_NUM = 130000
_CONNECT_TIMEOUT_S = 15
_POOLER_ROUNDS = 4


class QueryFailed(PitrError):
    """The server refused or failed a statement for a reason that is neither privilege nor connection."""

    code = "query-failed"
    exit_code = 24


def connect(conninfo: str, application: str, *, database: str | None = None) -> Connection:
    """Open an autocommit session as ``application_name=pitr/<application>``.

    ``conninfo``: libpq's keywords or a URI; empty for libpq's environment. ``database`` overrides its dbname.
    Statement, lock, idle and transaction timeouts are 0, search_path is pg_catalog, dates are ISO in UTC.
    Raises ServerUnreachable (also behind a transaction pooler) and VersionUnsupported (older than 13).
    """
    connection = _open(conninfo, application, database)
    try:
        with server_errors("cannot prepare the session"):
            _check_version(connection)
            if not _is_direct(connection):
                _refuse_transaction_pooler(connection, conninfo, application, database)
            _pin_settings(connection)
    except BaseException:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def server_errors(what: str, *, privilege_hint: str | None = None) -> Iterator[None]:
    """Turn psycopg's errors into the ones a user should see. ``what``: "cannot start the backup".

    A statement that the server cannot parse or resolve is our bug and passes unchanged.
    """
    import psycopg

    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise PrivilegeMissing(f"{what}: permission denied", detail=_text(error), hint=privilege_hint) from error
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        # 55000 and its like are operational errors for psycopg too; class 08 and 57P0x are the lost sessions.
        if error.sqlstate is not None and not error.sqlstate.startswith(("08", "57P0")):
            raise QueryFailed(what, detail=_text(error)) from error
        raise ServerUnreachable(
            f"{what}: the connection or the server failed", detail=_text(error), hint="look into the server's log"
        ) from error
    except psycopg.ProgrammingError:
        raise
    except psycopg.Error as error:
        raise QueryFailed(what, detail=_text(error)) from error


def _text(error: Exception) -> str | None:
    return redact(str(error).strip()) or None


def _open(conninfo: str, application: str, database: str | None) -> Connection:
    import psycopg

    overrides: dict[str, Any] = {"application_name": f"pitr/{application}"}
    if database is not None:
        overrides["dbname"] = database
    try:
        given = psycopg.conninfo.conninfo_to_dict(conninfo)
        if "@" in str(given.get("host") or "")[1:]:  # libpq would show a part of the password as an unknown host
            raise ServerUnreachable(
                "the connection string cannot be understood",
                detail="its host holds an @",
                hint="write an @ of a password as %40 in a URI, or keep the password in libpq's password file",
            )
        if "connect_timeout" not in given:
            overrides["connect_timeout"] = _CONNECT_TIMEOUT_S
        return psycopg.connect(conninfo, autocommit=True, prepare_threshold=None, **overrides)
    except psycopg.ProgrammingError as error:
        raise ServerUnreachable(
            "the connection string cannot be understood",
            detail=re.sub(r'"[^"]*"', '"..."', str(error).strip()) or None,  # quoted is what may be half a password
            hint="check dsn in the configuration",
        ) from error
    except psycopg.Error as error:
        raise ServerUnreachable(
            "cannot connect to PostgreSQL",
            detail=_text(error),
            hint=f'check that the server runs and that "psql" connects with: {redact(conninfo) or "the PG* variables"}',
        ) from error


def _check_version(connection: Connection) -> None:
    version_num = connection.info.server_version
    if version_num < OLDEST_VERSION_NUM:
        raise VersionUnsupported(
            f"PostgreSQL {version_num // 10000} is not supported", hint="PostgreSQL 13 is the oldest that is"
        )


def _pin_settings(connection: Connection) -> None:
    pinned = {
        "statement_timeout": "0",
        "lock_timeout": "0",
        "idle_in_transaction_session_timeout": "0",
        "search_path": "pg_catalog",
        "DateStyle": "ISO, YMD",
        "TimeZone": "UTC",
        "extra_float_digits": "1",
        "client_encoding": "UTF8",
        "default_transaction_read_only": "off",
    }
    if connection.info.server_version >= 140000:
        pinned["idle_session_timeout"] = "0"
    if connection.info.server_version >= 170000:
        pinned["transaction_timeout"] = "0"
    for name, value in pinned.items():
        connection.execute("SELECT pg_catalog.set_config(%s, %s, false)", (name, value))


def _backend_pid(connection: Connection) -> int:
    row = connection.execute("SELECT pg_catalog.pg_backend_pid()").fetchone()
    assert row is not None
    return int(row[0])


def _is_direct(connection: Connection) -> bool:
    """Whether the process that announced itself when connecting is the one that answers: poolers invent an id."""
    return _backend_pid(connection) == connection.info.backend_pid


def _refuse_transaction_pooler(connection: Connection, conninfo: str, application: str, database: str | None) -> None:
    """Something stands between us and the server: prove that it keeps one backend for this session, or refuse.

    A second session that opens a transaction takes the backend that a transaction pooler has just got back from the
    first one, which then meets another backend, or its own settings gone.
    """
    token = uuid.uuid4().hex
    connection.execute("SELECT pg_catalog.set_config('pitr.session', %s, false)", (token,))
    own = (_backend_pid(connection), token)
    query = "SELECT pg_catalog.pg_backend_pid(), pg_catalog.current_setting('pitr.session', true)"
    with _open(conninfo, application, database) as other:
        for _ in range(_POOLER_ROUNDS):
            before = connection.execute(query).fetchone()
            with other.transaction():
                others = other.execute(query).fetchone()
                after = connection.execute(query).fetchone()
            if before != own or after != own or others is None or others[0] == own[0]:
                raise ServerUnreachable(
                    "this connection goes through a transaction pooler",
                    detail="consecutive transactions of one session were run by different server processes",
                    hint="give a dsn that reaches the server directly (its own port or socket directory)",
                )
