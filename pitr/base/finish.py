"""The end of a backup: documents, proof that everything is there, and the commit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from pitr import __version__
from pitr.base.outcome import Outcome
from pitr.base.preflight import Server
from pitr.base.relations import RelationsTaken
from pitr.base.request import BaseBackupRequest
from pitr.codec import ObjectKind
from pitr.core.errors import IntegrityError, ObjectExists
from pitr.pg.backup import BackupLabel, BackupStopped
from pitr.pg.facts import Database, ServerFacts, Tablespace
from pitr.pg.lsn import Lsn
from pitr.pg.segments import SegmentName
from pitr.pg.timelines import History
from pitr.repo.manifest import (
    FORMAT,
    BackupManifest,
    DatabaseRecord,
    Parameters,
    ServerRecord,
    SwitchPoint,
    TablespaceRecord,
    WalRange,
    dump_manifest,
)
from pitr.repo.mapfile import encode_map
from pitr.repo.names import BackupNames
from pitr.repo.objects import ObjectRef, put_document, put_sealed, read_document
from pitr.repo.relations import FORMAT as RELATIONS_FORMAT
from pitr.repo.relations import RelationMaps, dump_relations
from pitr.repo.repository import Repository


@dataclass(frozen=True, slots=True)
class Moments:
    """By the server's clock; ``elapsed_s`` by ours."""

    started_at: datetime
    ended_at: datetime
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class Documents:
    map: ObjectRef
    relations: ObjectRef


def put_documents(
    repository: Repository, names: BackupNames, outcome: Outcome, at_start: RelationsTaken, at_stop: RelationsTaken
) -> Documents:
    """Map, relations, SHA256SUMS, in this order."""
    store, keyring = repository.store, repository.keyring
    stored = put_sealed(store, keyring, names.map, ObjectKind.MAP, encode_map(outcome.map), level=repository.level)
    maps = RelationMaps(
        RELATIONS_FORMAT, tuple(at_start.databases), tuple(at_stop.databases), {**at_start.unread, **at_stop.unread}
    )
    relations = put_sealed(
        store, keyring, names.relations, ObjectKind.RELATIONS, [dump_relations(maps)], level=repository.level
    )
    lines = [_sum_line(pack.name, pack.ref.size_bytes, pack.sha256) for pack in outcome.packs]
    lines += [_sum_line(one.ref.name, one.ref.size_bytes, one.ref.sha256) for one in (stored, relations)]
    store.put(names.sums, ["".join(sorted(lines, key=lambda line: line.split()[2])).encode()], if_absent=True)
    return Documents(stored.ref, relations.ref)


def _sum_line(name: str, size_bytes: int, sha256: bytes) -> str:
    return f"{sha256.hex()}  {size_bytes}  {name}\n"


def check_packs_listed(repository: Repository, names: BackupNames, outcome: Outcome) -> None:
    """Every pack that the map refers to is in the store with its size. Raises IntegrityError."""
    listed = {info.name: info.size_bytes for info in repository.store.list(names.pack_prefix)}
    wrong = [pack.name for pack in outcome.packs if listed.get(pack.name) != pack.ref.size_bytes]
    if wrong:
        raise IntegrityError(
            f"{wrong[0]} was stored and is not there any more, or has another size",
            detail=f"{len(wrong)} of {len(outcome.packs)} packs in {repository.store.url}",
            hint="did somebody else delete or overwrite objects? Run the backup again",
        )


@dataclass(frozen=True, slots=True)
class Finished:
    """Everything the manifest is made of."""

    server: Server
    label: BackupLabel
    stopped: BackupStopped
    history: History
    min_recovery_lsn: Lsn | None
    tablespaces: dict[int, str]
    tablespace_names: Sequence[Tablespace]
    databases: Sequence[Database]
    at_stop: RelationsTaken
    moments: Moments
    warnings: tuple[str, ...]


def make_manifest(
    request: BaseBackupRequest, backup_id: str, finished: Finished, outcome: Outcome, documents: Documents
) -> BackupManifest:
    facts, stopped = finished.server.facts, finished.stopped
    return BackupManifest(
        format=FORMAT,
        id=backup_id,
        kind="base",
        type="full",
        base_id=None,
        cluster=request.cluster,
        system_id=str(facts.system_identifier),
        label=request.label,
        annotations=dict(request.annotations),
        started_at=finished.moments.started_at,
        ended_at=finished.moments.ended_at,
        elapsed_s=finished.moments.elapsed_s,
        wal=_wal_range(finished, facts.segment_size_bytes),
        backup_label=stopped.label_file,
        tablespace_map=stopped.tablespace_map,
        server=_server_record(finished),
        map=documents.map,
        relations=documents.relations,
        packs=len(outcome.packs),
        sizes=outcome.sizes,
        bad_pages=outcome.bad_pages,
        warnings=finished.warnings,
        pitr_version=__version__,
    )


def _wal_range(finished: Finished, segment_size: int) -> WalRange:
    history, start, stop = finished.history, finished.label.start_lsn, finished.stopped.stop_lsn
    first = SegmentName.containing(1, start, segment_size)
    last = SegmentName.ending_at(1, stop, segment_size)
    return WalRange(
        timeline=history.timeline,
        start_lsn=start,
        stop_lsn=stop,
        history=tuple(SwitchPoint(entry.timeline, entry.switch_lsn) for entry in history.entries),
        first_segment=str(first.at_timeline(history.owner(first.number, segment_size))),
        last_segment=str(last.at_timeline(history.owner(last.number, segment_size))),
        min_recovery_lsn=finished.min_recovery_lsn,
    )


def _server_record(finished: Finished) -> ServerRecord:
    facts = finished.server.facts
    return ServerRecord(
        version_num=facts.version_num,
        major=facts.major,
        catalog_version=facts.catalog_version,
        block_size=facts.block_size_bytes,
        segment_size_bytes=facts.segment_size_bytes,
        data_checksums=facts.checksums,
        wal_log_hints=facts.wal_log_hints,
        full_page_writes=facts.full_page_writes,
        wal_level=facts.wal_level,
        from_standby=finished.label.from_standby,
        parameters=Parameters(**facts.recovery_parameters),
        shared_preload_libraries=", ".join(facts.shared_preload_libraries),
        data_directory=str(finished.server.data_directory),
        config_file=facts.config_file or "",
        hba_file=facts.hba_file or "",
        ident_file=facts.ident_file or "",
        databases=tuple(_database_records(finished.databases, finished.at_stop)),
        tablespaces=_tablespace_records(facts, finished),
    )


def _database_records(databases: Iterable[Database], relations: RelationsTaken) -> Iterable[DatabaseRecord]:
    for database in databases:
        yield DatabaseRecord(
            oid=database.oid,
            name=database.name,
            is_template=database.is_template,
            allow_connections=database.allows_connections,
            encoding=database.encoding,
            locale_provider=database.locale_provider,
            collate=database.collate,
            ctype=database.ctype,
            collation_version=database.collation_version,
            extensions=relations.extensions.get(database.oid, {}),
        )


def _tablespace_records(facts: ServerFacts, finished: Finished) -> tuple[TablespaceRecord, ...]:
    """Those whose files are in the backup, by the names they had at the end (or, dropped meanwhile, at the start)."""
    names = {one.oid: one.name for one in (*facts.tablespaces, *finished.tablespace_names)}
    return tuple(
        TablespaceRecord(oid, names.get(oid, ""), location) for oid, location in sorted(finished.tablespaces.items())
    )


def commit(repository: Repository, names: BackupNames, manifest: BackupManifest) -> None:
    """From now on the backup exists. A first answer that got lost is no failure: what is stored is read back."""
    store, keyring, data = repository.store, repository.keyring, dump_manifest(manifest)
    try:
        put_document(store, keyring, names.manifest, ObjectKind.MANIFEST, data)
    except ObjectExists:
        if read_document(store, keyring, names.manifest, ObjectKind.MANIFEST) != data:
            raise
