"""What a live server says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pitr.pg.control import RECOVERY_PARAMETERS
from pitr.pg.server import server_errors

if TYPE_CHECKING:
    from pitr.pg.server import Connection


_INVALID_DATABASE = -2  # DATCONNLIMIT_INVALID_DB: a DROP DATABASE that was cut short


@dataclass(frozen=True, slots=True)
class Setting:
    """A row of pg_settings: ``value`` in the unit that the server counts in (``unit``: 8kB, s, ms, B, ...)."""

    value: str
    unit: str | None
    source: str
    source_file: str | None
    pending_restart: bool


@dataclass(frozen=True, slots=True)
class Database:
    oid: int
    name: str
    encoding: str
    locale_provider: str
    """c (libc), i (ICU) or b (builtin)."""
    collate: str
    ctype: str
    locale: str | None
    collation_version: str | None
    tablespace: int
    is_template: bool
    allows_connections: bool
    is_valid: bool


@dataclass(frozen=True, slots=True)
class Tablespace:
    """``location`` is empty for pg_default and pg_global, relative for one made in place."""

    oid: int
    name: str
    location: str


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """``None`` where this role may not see a value, or this version does not have it."""

    version_num: int
    version: str
    system_identifier: int
    catalog_version: int
    user: str
    is_superuser: bool
    is_standby: bool
    timeline: int
    segment_size_bytes: int
    block_size_bytes: int
    data_directory: str | None
    config_file: str | None
    hba_file: str | None
    ident_file: str | None
    checksums: bool
    wal_log_hints: bool
    full_page_writes: bool
    wal_level: str
    summarize_wal: bool
    archive_mode: str
    archive_command: str
    archive_library: str | None
    archive_timeout_s: int
    recovery_parameters: Mapping[str, int]
    shared_preload_libraries: tuple[str, ...]
    databases: tuple[Database, ...]
    tablespaces: tuple[Tablespace, ...]
    settings: Mapping[str, Setting]

    @property
    def major(self) -> int:
        return self.version_num // 10000

    def database(self, name: str) -> Database | None:
        return next((database for database in self.databases if database.name == name), None)


def read_facts(connection: Connection) -> ServerFacts:
    """Ask a server for its ServerFacts. Raises PrivilegeMissing, ServerUnreachable."""
    with server_errors("cannot read the server's settings"):
        settings = _settings(connection)
        version_num = connection.info.server_version
        identifier, catalog_version, user, is_superuser, is_standby = _row(
            connection,
            "SELECT system_identifier, catalog_version_no, current_user::text,"
            " (SELECT rolsuper FROM pg_roles WHERE rolname = current_user), pg_is_in_recovery()"
            " FROM pg_control_system()",
        )
        return ServerFacts(
            version_num=version_num,
            version=settings["server_version"].value,
            system_identifier=_unsigned64(int(str(identifier))),
            catalog_version=int(str(catalog_version)),
            user=str(user),
            is_superuser=bool(is_superuser),
            is_standby=bool(is_standby),
            timeline=read_timeline(connection),
            segment_size_bytes=int(settings["wal_segment_size"].value),
            block_size_bytes=int(settings["block_size"].value),
            data_directory=_value(settings, "data_directory"),
            config_file=_value(settings, "config_file"),
            hba_file=_value(settings, "hba_file"),
            ident_file=_value(settings, "ident_file"),
            checksums=_is_on(settings, "data_checksums"),
            wal_log_hints=_is_on(settings, "wal_log_hints"),
            full_page_writes=_is_on(settings, "full_page_writes"),
            wal_level=settings["wal_level"].value,
            summarize_wal=_is_on(settings, "summarize_wal"),
            archive_mode=settings["archive_mode"].value,
            archive_command=settings["archive_command"].value,
            archive_library=_value(settings, "archive_library"),
            archive_timeout_s=int(settings["archive_timeout"].value),
            recovery_parameters={name: int(settings[name].value) for name in RECOVERY_PARAMETERS},
            shared_preload_libraries=_list(_value(settings, "shared_preload_libraries")),
            databases=read_databases(connection),
            tablespaces=read_tablespaces(connection),
            settings=settings,
        )


def read_timeline(connection: Connection) -> int:
    """The timeline being written; on a standby the newest one that replay is known to have reached."""
    (in_recovery,) = _row(connection, "SELECT pg_is_in_recovery()")
    if not in_recovery:
        # pg_control names the old timeline until the first checkpoint after a promotion; the file name does not.
        (name,) = _row(connection, "SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
        return int(str(name)[:8], 16)
    (timeline,) = _row(
        connection,
        "SELECT greatest(c.timeline_id, r.min_recovery_end_timeline)"
        " FROM pg_control_checkpoint() AS c, pg_control_recovery() AS r",
    )
    return int(str(timeline))


def read_databases(connection: Connection) -> tuple[Database, ...]:
    """All databases, template0 and invalid ones included, by OID."""
    version_num = connection.info.server_version
    provider = "datlocprovider::text" if version_num >= 150000 else "'c'"
    locale = "datlocale" if version_num >= 170000 else "daticulocale" if version_num >= 150000 else "NULL::text"
    collation_version = "datcollversion" if version_num >= 150000 else "NULL::text"
    rows = connection.execute(
        "SELECT oid::bigint, datname::text, pg_encoding_to_char(encoding)::text, "
        f"{provider}, datcollate::text, datctype::text, {locale}, {collation_version}, dattablespace::bigint,"
        f" datistemplate, datallowconn, datconnlimit <> {_INVALID_DATABASE} FROM pg_database ORDER BY oid".encode()
    )
    return tuple(Database(*row) for row in rows)


def read_tablespaces(connection: Connection) -> tuple[Tablespace, ...]:
    rows = connection.execute(
        "SELECT oid::bigint, spcname::text, pg_tablespace_location(oid) FROM pg_tablespace ORDER BY oid"
    )
    return tuple(Tablespace(*row) for row in rows)


def read_extensions(connection: Connection) -> tuple[tuple[str, str], ...]:
    """Name and version of the extensions of the connected database."""
    with server_errors("cannot read the catalog"):
        rows = connection.execute("SELECT extname::text, extversion FROM pg_extension ORDER BY extname")
        return tuple((name, version) for name, version in rows)


def _settings(connection: Connection) -> dict[str, Setting]:
    # While archiving is off, setting shows "(disabled)" in place of archive_command; reset_val has it.
    rows = connection.execute(
        "SELECT name, CASE name WHEN 'archive_command' THEN reset_val ELSE setting END, unit, source, sourcefile,"
        " pending_restart FROM pg_settings"
    )
    return {name: Setting(value or "", *rest) for name, value, *rest in rows}


def _row(connection: Connection, query: str) -> tuple[object, ...]:
    row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row


def _value(settings: Mapping[str, Setting], name: str) -> str | None:
    return settings[name].value if name in settings else None


def _is_on(settings: Mapping[str, Setting], name: str) -> bool:
    return name in settings and settings[name].value == "on"


def _list(value: str | None) -> tuple[str, ...]:
    return tuple(part.strip().strip('"') for part in (value or "").split(",") if part.strip())


def _unsigned64(value: int) -> int:
    """pg_control_system() returns the identifier as a signed bigint."""
    return value & 0xFFFFFFFFFFFFFFFF
