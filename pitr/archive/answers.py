"""Asking several repositories for one file: found and verified, absent in all of them, or in trouble."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from pitr.archive.remote import Remote
from pitr.core.errors import ObjectNotFound, PitrError
from pitr.core.files import Buffer
from pitr.pg.lsn import Lsn
from pitr.pg.segments import ArchiveName, SegmentName
from pitr.pg.timelines import History
from pitr.repo.names import HistoryNames, split_partial
from pitr.repo.repository import Repository
from pitr.repo.walobjects import get_wal, get_wal_object
from pitr.wal.segment import check_segment, valid_prefix


class Place(NamedTuple):
    """Where in a repository one cluster's archive lies, and how large its segments are."""

    names: HistoryNames
    segment_size: int


class Found(NamedTuple):
    """``notes``: what was wrong with the repositories asked before."""

    data: Buffer
    why: str
    notes: tuple[str, ...]


class Absent:
    """Every repository said so with authority."""


class Trouble(NamedTuple):
    """No repository had it in good order, and at least one could not be asked or has it damaged."""

    error: PitrError
    notes: tuple[str, ...]


Answer = Found | Absent | Trouble


def find_whole(remotes: Sequence[Remote], place: Place, name: ArchiveName) -> Answer:
    """A file as it was archived, from the first repository that has it undamaged."""
    return _first_good(remotes, lambda repository: get_wal(repository, place.names, name), str(name))


def find_segment(remotes: Sequence[Remote], place: Place, segment: SegmentName, history: History | None) -> Answer:
    """As find_whole, and the content is checked to be that segment of that cluster and history."""

    def read(repository: Repository) -> bytes:
        data = get_wal(repository, place.names, segment)
        check_segment(data, segment, system_id=place.names.system_id, history=history)
        return data

    return _first_good(remotes, read, str(segment))


def find_partial(remotes: Sequence[Remote], place: Place, segment: SegmentName, reach: Lsn) -> Answer:
    """The partial of a segment with the longest valid WAL, if that reaches ``reach``; filled up with zeros.

    A partial's name says how far it was flushed, which may lie inside a record; its content decides.
    """
    candidates: list[tuple[Lsn, str, Repository]] = []
    notes: list[str] = []
    failure: PitrError | None = None
    for remote in remotes:
        try:
            repository = remote.open()
            for info in repository.store.list(place.names.partial_prefix(segment)):
                split = split_partial(info.name, segment.size_bytes)
                if split is not None and split[1] >= reach and split[1] > segment.start:
                    candidates.append((split[1], info.name, repository))
        except PitrError as error:
            failure = failure or error
            notes.append(f"repository {remote.name}: {error}")
    best: tuple[Lsn, bytes] | None = None
    for named, object_name, repository in sorted(candidates, key=lambda candidate: candidate[:2], reverse=True):
        if best is not None and best[0] >= named:
            break
        try:
            data = get_wal_object(repository, object_name)
            end = valid_prefix(data, segment, system_id=place.names.system_id)
        except PitrError as error:
            failure = failure or error
            notes.append(f"repository {repository.name}: {error}")
            continue
        if end >= reach and end > segment.start and (best is None or end > best[0]):
            best = end, data
    if best is not None:
        data = best[1][: segment.size_bytes].ljust(segment.size_bytes, b"\0")
        return Found(data, f"{segment} up to {best[0]}, from a partial segment", tuple(notes))
    return Absent() if failure is None else Trouble(failure, tuple(notes))


def _first_good(remotes: Sequence[Remote], read: Callable[[Repository], bytes], what: str) -> Answer:
    notes: list[str] = []
    failure: PitrError | None = None
    for remote in remotes:
        try:
            repository = remote.open()
        except PitrError as error:
            failure = failure or error
            notes.append(f"repository {remote.name}: {error}")
            continue
        try:
            data = read(repository)
        except ObjectNotFound:
            continue
        except PitrError as error:
            failure = failure or error
            notes.append(f"repository {remote.name}: {what}: {error}")
            continue
        return Found(data, f"{what} from repository {remote.name}", tuple(notes))
    return Absent() if failure is None else Trouble(failure, tuple(notes))
