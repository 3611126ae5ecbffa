"""``restore_command``: what may be answered, and when. A wrong "no such file" makes PostgreSQL open for writes.

Exit codes: 0 the file is there, verified; 1 there is no such file; 200 stop, do not end recovery here. PostgreSQL
takes 1 to 125 for "no such file" (RestoreArchivedFile in xlogarchive.c), ends recovery, and without a target promotes.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from pitr.archive.answers import Absent, Found, Place, Trouble, find_partial, find_segment, find_whole
from pitr.archive.chain import Evidence, evidence_behind
from pitr.archive.remote import Remote
from pitr.core.errors import (
    ConfigError,
    FormatTooNew,
    IntegrityError,
    ObjectNotFound,
    PitrError,
    UsageError,
    WalGap,
)
from pitr.core.events import Report, silent, warn
from pitr.core.files import Buffer, os_errors_as_pitr, write_all
from pitr.pg.control import CONTROL_FILE, read_control
from pitr.pg.segments import BackupHistoryName, HistoryName, PartialName, SegmentName, parse_archive_name
from pitr.pg.timelines import History
from pitr.repo.identity import list_identities, read_identity
from pitr.repo.names import HistoryNames
from pitr.repo.repository import Repository
from pitr.repo.walobjects import get_history

FOUND = 0
ABSENT = 1
STOP = 200

_FINAL = (ConfigError, UsageError, FormatTooNew)
"""Errors that another try cannot cure."""


class RetryPolicy(NamedTuple):
    """How long a hole, an outage or damage is looked at again before the answer is 200."""

    total_s: float = 120.0
    first_delay_s: float = 0.5
    max_delay_s: float = 15.0
    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic


class FetchOutcome(NamedTuple):
    """``why`` is one line for the server's log. ``error``: what stands behind a 200, or behind the 1 of a standby.

    ``expected``: a plain end or a file that should not be used: nothing to tell.
    """

    exit_code: int
    why: str
    error: PitrError | None = None
    expected: bool = False


class FetchRequest(NamedTuple):
    """One call of ``restore_command``.

    name            ``%f``
    dest            ``%p``; appears whole or not at all
    chain           the timeline to be reached; None: that of ``until``, or unknown in a command written by hand
    until           the segment that holds the target's LSN; None: there is no target
    data_directory  of the server that is being restored (its working directory): pg_control names the cluster, and
                    standby.signal tells a standby
    system_id       the cluster, when there is no pg_control
    """

    cluster: str
    name: str
    dest: Path
    chain: int | None = None
    until: str | None = None
    data_directory: Path | None = None
    system_id: int | None = None
    retry: RetryPolicy = RetryPolicy()

    @property
    def standby(self) -> bool:
        return self.data_directory is not None and (self.data_directory / "standby.signal").exists()


def fetch_file(remotes: Sequence[Remote], request: FetchRequest, *, report: Report = silent) -> FetchOutcome:
    """Answer one call. Never raises a PitrError: every failure is an answer that does not end a recovery.

    On a standby absence and outage are 1 at once (it asks again, and it can stream), damage is 1 with an error.
    """
    standby = request.standby
    deadline = request.retry.monotonic() + request.retry.total_s
    delay = request.retry.first_delay_s
    while True:
        try:
            outcome = _Fetch(remotes, request, standby, report).answer()
        except PitrError as error:
            outcome = FetchOutcome(STOP, str(error), error)
        if outcome.exit_code != STOP:
            return outcome
        if standby:
            return FetchOutcome(ABSENT, outcome.why, outcome.error)
        if isinstance(outcome.error, _FINAL) or request.retry.monotonic() + delay > deadline:
            return outcome
        warn(report, f"{outcome.why}; trying again")
        request.retry.sleep(delay)
        delay = min(delay * 2, request.retry.max_delay_s)


class _Fetch:
    """One attempt."""

    def __init__(self, remotes: Sequence[Remote], request: FetchRequest, standby: bool, report: Report) -> None:
        self._remotes = remotes
        self._request = request
        self._standby = standby
        self._report = report

    def answer(self) -> FetchOutcome:
        place = self._place()
        try:
            name = parse_archive_name(self._request.name, place.segment_size)
        except ValueError as error:
            raise UsageError(
                str(error), hint='restore_command must end with: wal fetch %f "%p" and its options'
            ) from error
        match name:
            case PartialName():
                return FetchOutcome(ABSENT, f"{name} is looked for under the name of its segment only", expected=True)
            case HistoryName() | BackupHistoryName():
                return self._deliver(find_whole(self._remotes, place, name), f"{name} is not in the archive")
        return self._segment(place, name)

    def _segment(self, place: Place, segment: SegmentName) -> FetchOutcome:
        until = self._until(place)
        if until is not None and segment.number > until.number:
            return FetchOutcome(ABSENT, f"{segment} lies behind the target's segment {until}", expected=True)
        chain = self._chain(place, until)
        if chain is not None:
            owner = chain.owner(segment.number, segment.size_bytes)
            if segment.timeline != owner:
                why = (
                    f"{segment} is not on the history of timeline {chain.timeline}: timeline {owner} owns that segment"
                )
                return FetchOutcome(ABSENT, why, expected=True)
        history = chain if chain is not None and segment.timeline in chain.timelines else None
        answer = find_segment(self._remotes, place, segment, history)
        if not isinstance(answer, Absent) or self._standby:
            return self._deliver(answer, f"{segment} is not in the archive")
        self._require_known_cluster(place)
        if until is not None:
            reach = segment.end if segment.number < until.number else segment.start
            partial = find_partial(self._remotes, place, segment, reach)
            return self._deliver(partial, "", hole=_missing(segment, chain, None))
        evidence = self._evidence(place, segment, chain)
        if isinstance(evidence, Trouble):
            return self._deliver(evidence, "")
        reach = segment.start if evidence is None else evidence.lsn
        partial = find_partial(self._remotes, place, segment, reach)
        hole = None if evidence is None else _missing(segment, chain, evidence)
        return self._deliver(partial, f"the archive ends before {segment}", hole=hole)

    def _deliver(self, answer: Found | Absent | Trouble, absent: str, *, hole: PitrError | None = None) -> FetchOutcome:
        """``hole``: what an absence means here; None: that there is no such file."""
        if isinstance(answer, Found):
            _put_in_place(self._request.dest, answer.data)
            for line in answer.notes:
                warn(self._report, line)
            return FetchOutcome(FOUND, answer.why, expected=True)
        if isinstance(answer, Trouble):
            for line in answer.notes:
                warn(self._report, line)
            return FetchOutcome(STOP, str(answer.error), answer.error)
        if hole is not None:
            return FetchOutcome(STOP, str(hole), hole)
        return FetchOutcome(ABSENT, absent, expected=True)

    def _place(self) -> Place:
        """Which cluster's archive, from pg_control; else as asked for; else the only one that the repository has."""
        directory, asked = self._request.data_directory, self._request.system_id
        if directory is not None and (directory / CONTROL_FILE).exists():
            control = read_control(directory / CONTROL_FILE)
            if asked is not None and asked != control.system_identifier:
                raise UsageError(
                    "--system-id names another cluster than the data directory",
                    detail=f"{asked} asked for, {control.system_identifier} in {CONTROL_FILE}",
                )
            names = HistoryNames(self._request.cluster, control.system_identifier)
            return Place(names, control.segment_size_bytes)
        return self._first(lambda repository: _place_in(repository, self._request.cluster, asked))

    def _first(self, ask: Callable[[Repository], Place]) -> Place:
        failure: PitrError | None = None
        for remote in self._remotes:
            try:
                return ask(remote.open())
            except PitrError as error:
                failure = failure or error
        raise failure or ConfigError("no repository is configured")

    def _until(self, place: Place) -> SegmentName | None:
        if self._request.until is None:
            return None
        try:
            return SegmentName.parse(self._request.until, place.segment_size)
        except ValueError as error:
            raise UsageError(f"--until: {error}") from error

    def _chain(self, place: Place, until: SegmentName | None) -> History | None:
        timeline = self._request.chain
        if timeline is None:
            timeline = None if until is None else until.timeline
        if timeline is None or timeline == 1:
            return None if timeline is None else History.initial(1)
        absent = 0
        failure: PitrError | None = None
        for remote in self._remotes:
            try:
                return get_history(remote.open(), place.names, timeline)
            except ObjectNotFound:
                absent += 1
            except PitrError as error:
                failure = failure or error
        if failure is not None:
            raise failure
        raise IntegrityError(
            f"the history file of timeline {timeline} is not in the archive",
            detail="without it nobody can tell which WAL belongs to that timeline",
            hint='check --chain; or recover to a timeline whose history is there ("pitr status")',
        )

    def _require_known_cluster(self, place: Place) -> None:
        """Nothing at all is there of a cluster that the archive does not know: that is a wrong address, not an end."""
        failure: PitrError | None = None
        for remote in self._remotes:
            try:
                read_identity(remote.open(), place.names)
                return
            except ObjectNotFound:
                continue
            except PitrError as error:
                failure = failure or error
        raise failure or _unknown_cluster(place.names.cluster, place.names.system_id)

    def _evidence(self, place: Place, segment: SegmentName, chain: History | None) -> Evidence | Trouble | None:
        found: list[Evidence] = []
        for remote in self._remotes:
            try:
                evidence = evidence_behind(remote.open(), place.names, segment, chain)
            except PitrError as error:
                return Trouble(error, ())
            found += [] if evidence is None else [evidence]
        return max(found, key=lambda evidence: evidence.lsn, default=None)


def _place_in(repository: Repository, cluster: str, system_id: int | None) -> Place:
    if system_id is not None:
        try:
            identity = read_identity(repository, HistoryNames(cluster, system_id))
        except ObjectNotFound as error:
            raise _unknown_cluster(cluster, system_id) from error
        return Place(identity.names, identity.segment_size_bytes)
    identities = list_identities(repository, cluster)
    if not identities:
        raise _unknown_cluster(cluster, None)
    if len(identities) > 1:
        raise UsageError(
            f'cluster "{cluster}" has several system identifiers in the archive',
            detail=", ".join(identity.system_id for identity in identities),
            hint="run it in the data directory as restore_command does, or add --system-id",
        )
    return Place(identities[0].names, identities[0].segment_size_bytes)


def _unknown_cluster(cluster: str, system_id: int | None) -> PitrError:
    which = "" if system_id is None else f" with system identifier {system_id}"
    return IntegrityError(
        f'the archive knows no cluster "{cluster}"{which}',
        hint="check --cluster and the repository in restore_command",
    )


def _missing(segment: SegmentName, chain: History | None, evidence: Evidence | None) -> PitrError:
    """The error of a hole, with the way out."""
    hint = None
    if evidence is not None and chain is None:
        hint = f"to end recovery on timeline {segment.timeline}, add --chain {segment.timeline} --until SEGMENT"
    if chain is not None and segment.timeline > 1:
        begin = chain.begin_of(segment.timeline)
        if segment.start <= begin < segment.end:
            parent = chain.timelines[chain.timelines.index(segment.timeline) - 1]
            hint = f"timeline {segment.timeline} begins in it; timeline {parent} can be recovered up to {begin}"
    return WalGap(
        f"WAL segment {segment} is missing from the archive",
        detail="the target lies behind it" if evidence is None else evidence.detail,
        hint=hint or '"pitr wal status" names the gaps',
    )


def _put_in_place(dest: Path, data: Buffer) -> None:
    """Whole or not at all. Not fsynced: after a crash the server asks for it again."""
    temporary = dest.with_name(f".{dest.name}.{os.urandom(4).hex()}.tmp")
    with os_errors_as_pitr(f"cannot write {dest}"):
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            try:
                write_all(fd, data)
            finally:
                os.close(fd)
            temporary.rename(dest)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            raise
