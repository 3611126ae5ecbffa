"""``pitr wal receive``: the WAL of a running server, streamed through a physical slot into every repository.

What is reported to the server as flushed is durable in every required repository, nothing else: so the slot keeps what
is not stored yet, and a synchronous commit waits for the store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from pitr.archive.push import store_file
from pitr.archive.remote import Remote, on_each
from pitr.archive.resume import Resume, find_resume
from pitr.archive.source import WalFile
from pitr.archive.streaming import TimelineStream
from pitr.archive.uploader import Uploader, remove_leftovers
from pitr.core.clock import utc_now
from pitr.core.errors import (
    ConfigError,
    HistoryMismatch,
    IntegrityError,
    Interrupted,
    PitrError,
    ServerUnreachable,
    StoreError,
    WalGap,
)
from pitr.core.events import Report, info, silent, warn
from pitr.core.units import parse_size
from pitr.pg.lsn import Lsn
from pitr.pg.replication import (
    RECEIVER,
    NextTimeline,
    ReplicationConnection,
    SlotInUse,
    SystemIdentity,
    WalRemoved,
    read_slot,
)
from pitr.pg.segments import HistoryName, SegmentName
from pitr.pg.server import connect
from pitr.pg.timelines import History
from pitr.repo.identity import FORMAT, Identity, ensure_identity
from pitr.repo.leases import Lease, LeaseState, leased
from pitr.repo.repository import Repository

_FIRST_DELAY_S = 0.2
_MAX_DELAY_S = 10.0
_TELL_AGAIN_S = 60.0
_LAST_UPLOAD_S = 4.0
_TEMPORARY = (ServerUnreachable, SlotInUse, StoreError)


@dataclass(frozen=True, slots=True)
class ReceiveRequest:
    """``slot``: made when it is missing and ``create_slot``. ``interval_s``: least time between two partials of the
    unfinished segment; None chooses. ``synchronous``: none at all, whatever synchronous_standby_names says. ``until``:
    return when WAL up to there is durable. ``skip_gap``: begin where the slot does, though the archive ends before."""

    cluster: str
    conninfo: str
    slot: str = "pitr"
    create_slot: bool = False
    interval_s: float | None = None
    synchronous: bool = False
    until: Lsn | None = None
    skip_gap: bool = False


@dataclass(frozen=True, slots=True)
class ReceiveResult:
    """``segments`` and ``partials``: stored by this run."""

    slot: str
    system_id: str
    timeline: int
    received_lsn: Lsn
    durable_lsn: Lsn
    segments: int
    partials: int


def receive_wal(
    remotes: Sequence[Remote],
    request: ReceiveRequest,
    *,
    lock_wait_s: float = 0.0,
    report: Report = silent,
    clock: Callable[[], datetime] = utc_now,
) -> ReceiveResult:
    """Stream until ``request.until`` is durable, or for ever.

    Once it streams, a server or store that fails is tried again for ever, with warnings; what fails before is raised.
    Raises Locked (another receiver), ConfigError (no slot), WalGap (the server has removed WAL that the archive
    lacks), HistoryMismatch, OverwriteRefused, IntegrityError, and Interrupted after it stored what it had.
    """
    required = [remote for remote in remotes if remote.required]
    if not required:
        raise ConfigError(
            "no repository is required to have the WAL of this cluster",
            hint='set required = true for at least one ("pitr config show")',
        )
    repositories = [remote.open() for remote in required]

    def waiting(holder: LeaseState) -> None:
        info(report, f"waiting for the receiver that runs as process {holder.pid} on {holder.host}")

    with leased(repositories[0].store, request.cluster, "receive", wait_s=lock_wait_s, waiting=waiting) as lease:
        return _Receiver(remotes, repositories, request, lease, report, clock).run()


class _Reached(Exception):
    """request.until is durable."""


class _Session(NamedTuple):
    """One connection to the server. ``history``: of the timeline that it is on."""

    stream: ReplicationConnection
    history: History
    position: Lsn
    kept_from: Lsn
    behind: SegmentName | None


class _Receiver:
    def __init__(
        self,
        remotes: Sequence[Remote],
        repositories: Sequence[Repository],
        request: ReceiveRequest,
        lease: Lease,
        report: Report,
        clock: Callable[[], datetime],
    ) -> None:
        self._remotes = remotes
        self._repositories = repositories
        self._request = request
        self._lease = lease
        self._report = report
        self._clock = clock
        self._identity: Identity | None = None
        self._uploader: Uploader | None = None
        self._received = Lsn(0)
        self._timeline = 0
        self._streamed = False
        """By the current session: then it is worth to try again at once."""
        self._ever = False
        self._ending = False

    def run(self) -> ReceiveResult:
        delay, told_at, last = _FIRST_DELAY_S, 0.0, ""
        try:
            while True:
                self._streamed = False
                try:
                    self._session()
                    trouble = "the server ended the stream"
                except _TEMPORARY as error:
                    if not self._ever and not isinstance(error, SlotInUse):
                        raise
                    trouble = str(error)
                if self._streamed:
                    delay = _FIRST_DELAY_S
                if trouble != last or time.monotonic() - told_at > _TELL_AGAIN_S:
                    warn(self._report, f"{trouble}; trying again")
                    last, told_at = trouble, time.monotonic()
                self._rest(delay)
                delay = min(delay * 2, _MAX_DELAY_S)
        except _Reached:
            return self._result()
        except Interrupted:
            self._store_the_rest()
            raise
        finally:
            if self._uploader is not None:
                self._uploader.close(1.0)

    def _result(self) -> ReceiveResult:
        uploader, identity = self._uploader, self._identity
        assert uploader is not None
        assert identity is not None
        return ReceiveResult(
            slot=self._request.slot,
            system_id=identity.system_id,
            timeline=self._timeline,
            received_lsn=self._received,
            durable_lsn=uploader.durable,
            segments=uploader.segments,
            partials=uploader.partials,
        )

    def _rest(self, seconds: float) -> None:
        """Between two sessions; what was received is stored all the while, also when the server is gone for good."""
        self._check()
        if self._uploader is not None:
            self._uploader.hurry()
        time.sleep(seconds)

    def _store_the_rest(self) -> None:
        if self._uploader is not None and self._uploader.failure is None and not self._ending:
            self._ending = True
            self._uploader.hurry()
            self._uploader.wait_idle(_LAST_UPLOAD_S)

    def _check(self) -> None:
        self._lease.check()
        uploader = self._uploader
        if uploader is None:
            return
        if uploader.failure is not None:
            raise uploader.failure
        until = self._request.until
        if until is not None and uploader.durable >= until:
            raise _Reached

    # One session

    def _session(self) -> None:
        stream = ReplicationConnection.open(self._request.conninfo, RECEIVER)
        try:
            session = self._prepare(stream)
            uploader = self._uploader
            assert uploader is not None
            history, position, following = session.history, session.position, None
            timeline = history.owner(int(position) // self._segment_size, self._segment_size)
            while True:
                info(self._report, f"streaming from {position} on timeline {timeline}, slot {self._request.slot}")
                try:
                    stream.start(self._request.slot, position, timeline)
                    following = TimelineStream(
                        self, stream, uploader, history, timeline, position, self._segment_size
                    ).run()
                except WalRemoved as error:
                    raise self._gap(session, position, timeline, error) from error
                except (Interrupted, _Reached):
                    self._say_goodbye(stream, uploader)
                    raise
                if following is None:
                    return
                history = self._switch(stream, following, history)
                timeline = following.timeline
                position = SegmentName.containing(timeline, following.switch_lsn, self._segment_size).start
        finally:
            stream.close()

    def _say_goodbye(self, stream: ReplicationConnection, uploader: Uploader) -> None:
        """Store what has arrived and tell the server."""
        self._store_the_rest()
        if self._streamed:
            stream.send_status(self._received, uploader.durable)

    @property
    def _segment_size(self) -> int:
        assert self._identity is not None
        return self._identity.segment_size_bytes

    def _prepare(self, stream: ReplicationConnection) -> _Session:
        """Who is the server, from where on does the slot keep WAL, and what does the archive have?"""
        system = stream.identify()
        identity = self._identify(stream, system)
        uploader = self._uploader
        if uploader is None:
            uploader = self._uploader = Uploader(
                self._remotes, identity.names, interval_s=self._request.interval_s, report=self._report
            )
        self._await_stored(uploader)
        history = self._history(stream, system.timeline)
        self._timeline = system.timeline
        kept_from, in_recovery = self._slot(stream, system)
        resume = self._resume(history, kept_from)
        if resume.start > stream.identify().flush_lsn:
            raise self._ahead(resume.start, in_recovery)
        uploader.begin(resume.start)
        self._received = resume.start
        names = stream.setting("synchronous_standby_names")
        uploader.at_once = self._request.synchronous or is_named(RECEIVER, names)
        if uploader.at_once:
            info(self._report, "synchronous: what arrives is stored at once")
        return _Session(stream, history, resume.start, kept_from, resume.behind)

    def _identify(self, stream: ReplicationConnection, system: SystemIdentity) -> Identity:
        if self._identity is None:
            identity = Identity(
                FORMAT,
                self._request.cluster,
                str(system.system_id),
                stream.major,
                parse_size(stream.setting("wal_segment_size")),
                int(stream.setting("block_size")),
                self._clock(),
            )
            for repository in self._repositories:
                ensure_identity(repository, identity)
            self._identity = identity
        if self._identity.system_id != str(system.system_id):
            raise HistoryMismatch(
                "the server is another PostgreSQL cluster than before",
                detail=f"system identifier {system.system_id}, {self._identity.system_id} before",
                hint="check dsn in the configuration",
            )
        return self._identity

    def _await_stored(self, uploader: Uploader) -> None:
        """What the session before received."""
        uploader.hurry()
        while not uploader.wait_idle(1.0):
            self._check()
        self._check()

    def _history(self, stream: ReplicationConnection, timeline: int) -> History:
        """The history of a timeline, which is in every required repository when this returns."""
        if timeline == 1:
            return History.initial(1)
        data = stream.history_file(timeline)
        try:
            history = History.parse(timeline, data.decode("utf-8"))
        except ValueError as error:
            raise IntegrityError(
                f"the server's {HistoryName(timeline)} is not a timeline history file", detail=str(error)
            ) from error
        assert self._identity is not None
        file = WalFile(HistoryName(timeline), data, self._identity)
        for outcome in on_each(self._remotes, lambda repository: store_file(repository, file)):
            if outcome.error is not None:
                if outcome.remote.required:
                    raise outcome.error
                warn(self._report, f"repository {outcome.remote.name}: {outcome.error}")
        return history

    def _slot(self, stream: ReplicationConnection, system: SystemIdentity) -> tuple[Lsn, bool]:
        """From where on the server keeps WAL for us, and whether it is in recovery."""
        slot = self._request.slot
        with connect(self._request.conninfo, "wal-receive") as connection:
            state = read_slot(connection, slot)
            if state is None and self._request.create_slot:
                stream.create_slot(slot)
                info(self._report, f'replication slot "{slot}" created')
                state = read_slot(connection, slot)
            row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
        if state is None:
            raise ConfigError(f'replication slot "{slot}" does not exist', hint="--create-slot makes it")
        if state.lost:
            raise WalGap(
                f'the server has removed WAL that replication slot "{slot}" needed',
                detail="max_slot_wal_keep_size was exceeded while nothing was received",
                hint=f"SELECT pg_drop_replication_slot('{slot}'), then --create-slot; what the archive lacks is named",
            )
        assert row is not None
        return state.restart_lsn or system.flush_lsn, bool(row[0])

    def _resume(self, history: History, kept_from: Lsn) -> Resume:
        assert self._identity is not None
        names, size = self._identity.names, self._segment_size
        resume = find_resume(
            self._repositories, names, history, kept_from, size, skip_gap=self._request.skip_gap and not self._ever
        )
        first, end = max(0, int(kept_from) // size - 1), int(resume.start) // size
        for number in {*range(first, min(first + 3, end)), *range(max(first, end - 1), end)}:
            for repository in self._repositories:
                remove_leftovers(repository, names, SegmentName(history.owner(number, size), number, size))
        return resume

    def _ahead(self, start: Lsn, in_recovery: bool) -> PitrError:
        if in_recovery:
            return ServerUnreachable(f"the archive reaches {start}, and the standby has not replayed that far yet")
        return HistoryMismatch(
            f"the archive reaches {start}, which this server has not written yet",
            detail=f"timeline {self._timeline}",
            hint="two servers archive under one name: a copy that was promoted without leaving its timeline, or a "
            'wrong --cluster ("pitr wal status")',
        )

    def _switch(self, stream: ReplicationConnection, following: NextTimeline, before: History) -> History:
        info(self._report, f"timeline {following.timeline} begins at {following.switch_lsn}")
        history = self._history(stream, following.timeline)
        if before.timeline not in history.timelines and before.timeline != following.timeline:
            return before  # on the way to the timeline of the server, whose history names all of them
        self._timeline = history.timeline
        return history

    def _gap(self, session: _Session, position: Lsn, timeline: int, error: PitrError) -> PitrError:
        """The server does not have the WAL at ``position`` or behind it any more."""
        wanted = SegmentName.containing(timeline, max(position, self._received), self._segment_size)
        last = SegmentName.containing(timeline, max(int(session.kept_from) - 1, 0), self._segment_size)
        missing = f"WAL segment {wanted}"
        if session.behind is not None and last.number > wanted.number:
            missing = f"WAL from segment {wanted} to {last}"
        verb = "are" if session.behind is not None and last.number > wanted.number else "is"
        detail = f"slot {self._request.slot} keeps WAL from {session.kept_from} on"
        if session.behind is not None:
            detail = f"the archive ends with {session.behind}; {detail}"
        return WalGap(
            f"{missing} {verb} neither in the archive nor on the server any more",
            detail=f"{detail}; {error.detail}",
            hint='start with --skip-gap to go on behind the gap, and take a new backup: "pitr backup base"',
        )

    # For TimelineStream

    def received(self, position: Lsn) -> None:
        self._received = position
        self._streamed = self._ever = True

    def check(self) -> None:
        self._check()

    @property
    def until(self) -> Lsn | None:
        return self._request.until


def is_named(application: str, synchronous_standby_names: str) -> bool:
    """Whether commits wait for ``application``: by name, or by ``*`` (syncrep_scanner.l)."""
    text = synchronous_standby_names
    if "(" in text:
        text = text.partition("(")[2].rpartition(")")[0]
    words = [word.strip() for word in text.split(",")]
    plain = [word[1:-1].replace('""', '"') if word.startswith('"') else word for word in words]
    return any(word == "*" or word.lower() == application.lower() for word in plain)
