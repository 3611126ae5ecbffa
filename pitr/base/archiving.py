"""Proof that the archive works before the copy, and that it holds every segment of the backup after it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pitr.core.errors import ConfigError, HistoryMismatch, ObjectNotFound, PitrError, WalGap
from pitr.pg.facts import ServerFacts
from pitr.pg.lsn import Lsn
from pitr.pg.replication import is_received
from pitr.pg.segments import HistoryName, SegmentName, parse_archive_name
from pitr.pg.server import server_errors
from pitr.pg.timelines import History
from pitr.repo.names import HistoryNames
from pitr.repo.repository import Repository
from pitr.repo.walobjects import get_history, missing_segments, put_wal

if TYPE_CHECKING:
    from pathlib import Path

    from pitr.pg.server import Connection

CHECK_S = 60.0
"""How long the first proof may take while the archiver neither fails nor makes progress."""
_FAILING_S = 5.0
"""pgarch.c tries a segment three times, a second apart, before it rests for a minute."""
_POLL_S = 0.1
_POLL_MAX_S = 2.0
_HINT = '"pitr wal configure" sets archiving up, "pitr wal status" shows what is wrong with it'


@dataclass(frozen=True, slots=True)
class ArchiverState:
    """pg_stat_archiver."""

    archived_count: int
    last_archived: str | None
    last_archived_at: datetime | None
    last_failed: str | None
    last_failed_at: datetime | None

    @property
    def failing(self) -> bool:
        """The newest attempt failed."""
        if self.last_failed_at is None:
            return False
        return self.last_archived_at is None or self.last_failed_at > self.last_archived_at

    def says(self) -> str:
        if self.failing:
            return (
                f"the server's archiver fails since {self.last_failed_at:%Y-%m-%d %H:%M:%S} UTC at {self.last_failed}"
            )
        if self.last_archived is None:
            return "the server has not archived anything yet"
        return f"the server's last archived file is {self.last_archived}"


def archiver_state(connection: Connection) -> ArchiverState:
    with server_errors("cannot read pg_stat_archiver"):
        row = connection.execute(
            "SELECT archived_count, last_archived_wal, last_archived_time, last_failed_wal, last_failed_time"
            " FROM pg_stat_archiver"
        ).fetchone()
    assert row is not None
    return ArchiverState(*row)


class WalArchive:
    """The archive of one server in one repository."""

    def __init__(self, repository: Repository, names: HistoryNames, connection: Connection, facts: ServerFacts) -> None:
        self._repository = repository
        self._names = names
        self._connection = connection
        self._facts = facts

    def prove(self, history: History, wait_s: float) -> None:
        """Return when the segment before the current position is in the archive, or one that was switched for this.

        Raises ConfigError (archiving is off), WalGap (it fails, or goes somewhere else).
        """
        self._check_settings()
        size = self._facts.segment_size_bytes
        current = SegmentName.containing(history.timeline, self._position(), size)
        if current.number > 0:
            before = current.number - 1
            works = self._facts.is_standby or not archiver_state(self._connection).failing
            if works and self._is_archived(SegmentName(history.owner(before, size), before, size)):
                return
        wanted = current.previous() if self._facts.is_standby and current.number > 0 else self._switch(history.timeline)
        wanted = wanted.at_timeline(history.owner(wanted.number, size))
        self._await_first(wanted, min(CHECK_S, wait_s))

    def _check_settings(self) -> None:
        facts = self._facts
        if facts.wal_level == "minimal":
            raise ConfigError("wal_level is minimal: this server cannot be backed up while it runs", hint=_HINT)
        if facts.is_standby:
            return  # its primary archives
        if facts.archive_mode == "off" and is_received(self._connection):
            return
        if facts.archive_mode not in ("on", "always"):
            raise ConfigError("archiving is off: a base backup without its WAL cannot be restored", hint=_HINT)
        if not facts.archive_command and not facts.archive_library:
            raise ConfigError("archive_command is empty: a base backup without its WAL cannot be restored", hint=_HINT)

    def _position(self) -> Lsn:
        function = "pg_last_wal_replay_lsn()" if self._facts.is_standby else "pg_current_wal_insert_lsn()"
        with server_errors("cannot read the WAL position"):
            row = self._connection.execute(f"SELECT {function}::text".encode()).fetchone()
        assert row is not None
        return Lsn.parse(row[0] or "0/0")

    def _switch(self, timeline: int) -> SegmentName:
        """End the current segment and return it. Something is written first: an idle server would not switch."""
        try:
            with server_errors(
                "cannot switch the WAL segment", privilege_hint="GRANT EXECUTE ON FUNCTION pg_switch_wal"
            ):
                row = self._connection.execute("SELECT pg_logical_emit_message(false, 'pitr', '')::text").fetchone()
                assert row is not None
                self._connection.execute("SELECT pg_switch_wal()")
        except PitrError as error:
            raise WalGap(
                "it cannot be proven that archiving works",
                detail=f"the last finished segment is not in the archive, and: {error}",
                hint='as superuser: "GRANT EXECUTE ON FUNCTION pg_switch_wal() TO <role>"',
            ) from error
        return SegmentName.ending_at(timeline, Lsn.parse(row[0]), self._facts.segment_size_bytes)

    def _is_archived(self, segment: SegmentName) -> bool:
        try:
            self._repository.store.stat(self._names.wal_file(segment))
        except ObjectNotFound:
            return False
        return True

    def _await_first(self, wanted: SegmentName, wait_s: float) -> None:
        began = time.monotonic()
        pause, progress = _POLL_S, None
        moved_at = began
        while not self._is_archived(wanted):
            state = archiver_state(self._connection)
            now = time.monotonic()
            if progress != state.archived_count:
                progress, moved_at = state.archived_count, now
            if not self._facts.is_standby and now - began > _FAILING_S:
                self._refuse_broken(state, wanted)
            if now - moved_at > wait_s:
                what = "its primary does not archive" if self._facts.is_standby else "archiving does not get on"
                raise WalGap(f"segment {wanted} has not reached the archive: {what}", detail=state.says(), hint=_HINT)
            time.sleep(pause)
            pause = min(pause * 1.3, _POLL_MAX_S)

    def _refuse_broken(self, state: ArchiverState, wanted: SegmentName) -> None:
        if state.failing:
            raise WalGap("archiving is broken: a backup would not be restorable", detail=state.says(), hint=_HINT)
        if _archived_until(state, wanted) and not self._is_archived(wanted):
            raise WalGap(
                "the server archives, but not into this repository",
                detail=f"{state.last_archived} was archived, {wanted} is not in {self._repository.store.url}",
                hint=_HINT,
            )

    def await_range(self, history: History, start: Lsn, stop: Lsn, wait_s: float) -> None:
        """Return when every segment of [start, stop) is in the archive. Raises WalGap naming the first missing one."""
        deadline = time.monotonic() + wait_s
        pause, size = _POLL_S, self._facts.segment_size_bytes
        while missing := missing_segments(self._repository, self._names, history, start, stop, size):
            if time.monotonic() > deadline:
                raise WalGap(
                    f"segment {missing[0]} has not reached the archive within {wait_s:g} s, "
                    "without it the backup cannot be restored",
                    detail=f"{len(missing)} of its segments are missing; {self._last_words()}",
                    hint=self._stop_hint(),
                )
            time.sleep(pause)
            pause = min(pause * 1.5, _POLL_MAX_S)

    def _last_words(self) -> str:
        try:
            return archiver_state(self._connection).says()
        except PitrError:
            return "the server cannot be asked any more"

    def _stop_hint(self) -> str:
        if self._facts.is_standby:
            return (
                'the segment ends only when its primary ends it: set archive_timeout, or "SELECT pg_switch_wal()" there'
            )
        return _HINT


def _archived_until(state: ArchiverState, wanted: SegmentName) -> bool:
    """Whether the server says that this segment, or a later one, was archived."""
    if state.last_archived is None:
        return False
    try:
        last = parse_archive_name(state.last_archived, wanted.size_bytes)
    except ValueError:
        return False
    return isinstance(last, SegmentName) and last.timeline == wanted.timeline and last.number >= wanted.number


def server_history(repository: Repository, names: HistoryNames, data_directory: Path, timeline: int) -> History:
    """The history of the server's timeline, from its own file; in the archive it must be the same, and is put there
    if it is missing (no recovery onto the timeline without it).

    Raises HistoryMismatch when the archive knows another past of that number (two promoted copies), WalGap when neither
    has the file.
    """
    if timeline == 1:
        return History.initial(1)
    archived: History | None
    try:
        archived = get_history(repository, names, timeline)
    except ObjectNotFound:
        archived = None
    path = data_directory / "pg_wal" / str(HistoryName(timeline))
    try:
        data = path.read_bytes()
        own = History.parse(timeline, data)
    except (FileNotFoundError, ValueError) as error:
        if archived is None:
            raise WalGap(
                f"the history file of timeline {timeline} is neither in the archive nor readable on the server",
                detail=str(error),
                hint=_HINT,
            ) from error
        return archived
    if archived is None:
        put_wal(repository, names, HistoryName(timeline), data)
    elif not (own.is_prefix_of(archived) and archived.is_prefix_of(own)):
        raise HistoryMismatch(
            f"timeline {timeline} of this server is another one than the archive's",
            detail=f"{own.render()!r} here, {archived.render()!r} there",
            hint="two copies were promoted: give one of them a cluster name of its own",
        )
    return own
