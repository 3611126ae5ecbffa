"""From a wish ("before xid 739") to a backup and an exact record, proven before anything is written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from pitr.core.errors import (
    AmbiguousName,
    HistoryMismatch,
    NoSuitableBackup,
    PitrError,
    TargetUnreachable,
    UsageError,
    WalGap,
)
from pitr.core.events import PhaseEnded, PhaseStarted, Report
from pitr.pg.lsn import Lsn
from pitr.pg.segments import SegmentName
from pitr.repo.manifest import BackupManifest
from pitr.restore.archive import SCAN_PHASE, Archive, reading
from pitr.restore.describe import boundary, describe, no_later, show
from pitr.restore.dropped import excluded_drop, notes_on_drops
from pitr.restore.elsewhere import timelines_with
from pitr.restore.request import (
    Immediate,
    Latest,
    ProvenSegments,
    RecoveryTarget,
    ResolvedTarget,
    TargetLsn,
    TargetName,
    TargetTime,
    TargetXid,
)
from pitr.wal.facts import Facts
from pitr.wal.targets import (
    ImmediateTarget,
    LatestTarget,
    LsnTarget,
    NameTarget,
    Resolved,
    ScanResult,
    Target,
    TimeTarget,
    WalRange,
    XidTarget,
    resolve,
)

_STATUS_HINT = '"pitr status" shows what can be reached'


@dataclass(frozen=True, slots=True)
class Resolution:
    """The backup to start from, where recovery ends, and what the WAL between them does."""

    manifest: BackupManifest
    target: ResolvedTarget
    segments: ProvenSegments
    facts: Facts
    warnings: tuple[str, ...] = ()


@dataclass(slots=True)
class _Window:
    """What is known of the archive from one backup on: ``last`` ends the unbroken run, ``behind`` comes after a gap."""

    manifest: BackupManifest
    last: SegmentName
    behind: SegmentName | None
    scans: dict[tuple[Target, Lsn | None], ScanResult] = field(default_factory=dict)

    @property
    def stop(self) -> Lsn:
        return self.manifest.wal.stop_lsn


class Resolver:
    """Resolves one target over the backups of one history (newest first)."""

    def __init__(
        self, archive: Archive, backups: Sequence[BackupManifest], report: Report, *, one_only: bool = False
    ) -> None:
        """``one_only``: the user named the backup."""
        self._archive = archive
        self._one_only = one_only
        self._backups = backups
        self._report = report
        self._windows: dict[str, _Window] = {}

    def resolve(self, target: RecoveryTarget) -> Resolution:
        """Raises TargetUnreachable, NoSuitableBackup, WalGap, HistoryMismatch, AmbiguousName; IntegrityError for WAL
        that is damaged."""
        match target:
            case Latest():
                return self._finish(self._window(self._backups[0]), LatestTarget(), target)
            case Immediate():
                window = self._window(self._backups[0])
                return self._finish(window, ImmediateTarget(window.stop), target)
            case TargetLsn(lsn, inclusive):
                return self._lsn(LsnTarget(lsn, inclusive), target)
            case TargetTime():
                return self._time(target)
            case TargetXid(xid, inclusive):
                return self._xid(XidTarget(xid, inclusive), target)
            case TargetName(name):
                return self._name(NameTarget(name), target)

    # One kind of target each

    def _lsn(self, wanted: LsnTarget, target: TargetLsn) -> Resolution:
        """Before a record that is not there, but would begin where the archive ends, is after the last record."""
        window = self._window(self._newest_stopped_by(wanted.lsn, target))
        found = self._scan(window, wanted)
        if found.resolved is None and not wanted.inclusive and found.end is not None and wanted.lsn <= found.end.lsn:
            return self._finish(window, LatestTarget(), target)
        return self._finish(window, wanted, target)

    def _time(self, target: TargetTime) -> Resolution:
        if target.moment.tzinfo is None:
            raise UsageError("a time target needs a time zone", hint="add Z, an offset such as +02:00, or a zone name")
        wanted = TimeTarget(target.moment, target.inclusive)
        early = [manifest for manifest in self._backups if manifest.ended_at <= target.moment]
        if not early:
            raise self._too_early(target)
        for manifest in early:
            window = self._window(manifest)
            resolved = self._scan(window, wanted).resolved
            if resolved is None or reaches(resolved, window.stop):
                return self._finish(window, wanted, target)
        raise self._too_early(target)  # commit times are not strictly ordered: all of them stop within their backup

    def _xid(self, wanted: XidTarget, target: TargetXid) -> Resolution:
        top_xid = None
        newer: Lsn | None = None
        for manifest in self._backups:
            window = self._window(manifest)
            found = self._scan(window, wanted, until=newer)
            top_xid = top_xid or found.top_xid
            if found.resolved is not None:
                return self._finish(self._reaching(found.resolved, manifest, target), wanted, target)
            newer = manifest.wal.start_lsn
        if top_xid is not None:
            raise TargetUnreachable(
                f"xid {wanted.xid} is a subtransaction",
                detail=f"it ended with transaction {top_xid}",
                hint=f"--xid {top_xid}, with --exclusive to stop before it",
            )
        raise self._not_found(f"transaction {wanted.xid}", wanted)

    def _name(self, wanted: NameTarget, target: TargetName) -> Resolution:
        """All backups' WAL is read: a name that exists twice is refused rather than guessed."""
        points = {}
        newer: Lsn | None = None
        for manifest in self._backups:
            for point in self._scan(self._window(manifest), wanted, until=newer).restore_points:
                points[point.lsn] = point
            newer = manifest.wal.start_lsn
        if not points:
            raise self._not_found(f'restore point "{wanted.name}"', wanted)
        if len(points) > 1:
            listed = ", ".join(f"{point.lsn} ({show(point.time)})" for point in points.values())
            latest = max(points)
            raise AmbiguousName(
                f'{len(points)} restore points are named "{wanted.name}"', detail=listed, hint=f"--lsn {latest}"
            )
        (point,) = points.values()
        window = self._window(self._newest_stopped_by(point.end_lsn, target))
        return self._finish(window, wanted, target)

    # Backups

    def _newest_stopped_by(self, lsn: Lsn, target: RecoveryTarget) -> BackupManifest:
        for manifest in self._backups:
            if manifest.wal.stop_lsn <= lsn:
                return manifest
        raise self._too_early(target)

    def _reaching(self, resolved: Resolved, scanned: BackupManifest, target: RecoveryTarget) -> _Window:
        """The newest backup that is consistent where recovery would stop, from the one whose WAL holds it on."""
        for manifest in self._backups[self._backups.index(scanned) :]:
            if reaches(resolved, manifest.wal.stop_lsn):
                return self._window(manifest)
        raise self._too_early(target)

    def _too_early(self, target: RecoveryTarget) -> PitrError:
        oldest = self._backups[-1]
        since, at = show(oldest.ended_at), oldest.wal.stop_lsn
        earliest = f"the earliest reachable time is {since}, the earliest LSN {at}"
        whole = f"is consistent from {since} ({at}) on, timeline {oldest.wal.timeline}"
        if self._one_only:
            return TargetUnreachable(
                f"backup {oldest.id} cannot reach {describe(target)}",
                detail=f"it {whole}",
                hint=f"without an id the right backup is chosen; with this one {earliest}",
            )
        return NoSuitableBackup(
            f"no backup can reach {describe(target)}",
            detail=f"the oldest backup {oldest.id} {whole}",
            hint=f"{_STATUS_HINT}; {earliest}",
        )

    # The archive

    def _window(self, manifest: BackupManifest) -> _Window:
        """Raises WalGap when not even the backup's own WAL is there."""
        known = self._windows.get(manifest.id)
        if known is not None:
            return known
        archive, wal = self._archive, manifest.wal
        last = archive.unbroken_until(wal.start_lsn)
        if last is None or last.end < wal.stop_lsn:
            missing = archive.segment_at(wal.start_lsn) if last is None else archive.following(last)
            raise WalGap(
                f"backup {manifest.id} cannot be made consistent: WAL segment {missing} is not in the archive",
                detail=f"it needs everything from {wal.start_lsn} to {wal.stop_lsn}",
                hint='"pitr wal status" shows gaps; another backup may do: "pitr list"',
            )
        behind = archive.first_behind(last)
        if behind == archive.following(last):
            behind = None  # archived just now
        window = _Window(manifest, last, behind)
        self._windows[manifest.id] = window
        return window

    def _scan(self, window: _Window, target: Target, *, until: Lsn | None = None) -> ScanResult:
        for limit in (until, None):
            known = window.scans.get((target, limit))
            if known is not None:
                return known
        wal = window.manifest.wal
        last = window.last
        if until is not None and until < last.start:
            last = self._archive.segment_at(until)
        first = self._archive.segment_at(wal.start_lsn)
        begun = time.monotonic()
        self._report(PhaseStarted(SCAN_PHASE, (last.number - first.number + 1) * last.size_bytes))
        with reading(self._archive, last, self._report) as source:
            found = resolve(
                WalRange(
                    fetch=source.fetch,
                    start=wal.start_lsn,
                    history=self._archive.history,
                    segment_size=self._archive.segment_size,
                    until=until,
                    system_id=int(window.manifest.system_id),
                ),
                target,
            )
        self._report(PhaseEnded(SCAN_PHASE, time.monotonic() - begun))
        window.scans[target, until if found.resolved is None else None] = found
        return found

    # The answer

    def _finish(self, window: _Window, wanted: Target, asked: RecoveryTarget) -> Resolution:
        found = self._scan(window, wanted)
        if isinstance(asked, Latest):
            self._require_begun(window)
        if found.resolved is None or (isinstance(asked, Latest) and window.behind is not None):
            raise self._beyond(window, found, asked)
        resolved = found.resolved
        if not reaches(resolved, window.stop):
            raise self._too_early(asked)
        resolved, warnings = self._before_half_done(window, resolved, asked)
        self._require_replayable(resolved.facts, window)
        archive = self._archive
        first = archive.segment_at(window.manifest.wal.start_lsn)
        last = archive.segment_ending(resolved.end_lsn)
        return Resolution(
            manifest=window.manifest,
            target=ResolvedTarget(
                asked=describe(asked),
                lsn=resolved.lsn,
                inclusive=resolved.inclusive,
                timeline=archive.history.timeline,
                until=str(last),
                last_included=boundary(resolved.last_included),
                first_excluded=boundary(resolved.first_excluded),
            ),
            segments=ProvenSegments(str(first), str(last), last.number - first.number + 1),
            facts=resolved.facts,
            warnings=tuple(warnings),
        )

    def _require_begun(self, window: _Window) -> None:
        """The end of the archive lies on the history's own timeline, not where an older one was about to be left."""
        history = self._archive.history
        if window.last.timeline == history.timeline:
            return
        begin = history.begin_of(history.timeline)
        parent = history.timelines[-2]
        raise WalGap(
            f"WAL segment {self._archive.following(window.last)} is missing on the way to timeline {history.timeline}",
            detail=f"timeline {history.timeline} left timeline {parent} at {begin}; "
            f"what timeline {parent} wrote behind that is another history",
            hint=f'wait if it is being archived ("pitr wal status"); '
            f"--timeline {parent} --lsn {begin} --exclusive restores up to where timeline {history.timeline} began",
        )

    def _beyond(self, window: _Window, found: ScanResult, asked: RecoveryTarget) -> PitrError:
        missing = self._archive.following(window.last)
        end = found.end.lsn if found.end is not None else window.last.end
        last = found.last_commit
        reachable = f"the archive reaches {end}"
        if last is not None:
            reachable += f", last transaction {last.xid} at {show(last.time)}"
        if window.behind is not None:
            if window.behind.number == missing.number:
                switch = self._archive.history.begin_of(missing.timeline)
                hint = f"--timeline {window.behind.timeline} --lsn {switch} --exclusive restores up to the switch"
            else:
                hint = f"--lsn {end} --exclusive stops before the gap"
            return WalGap(
                f"WAL segment {missing} is missing on the way to {describe(asked)}",
                detail=f"{window.behind} behind it is there; {reachable}",
                hint=f'wait if it is being archived ("pitr wal status"); {hint}',
            )
        return TargetUnreachable(
            f"{describe(asked)} lies beyond the archive" if not isinstance(asked, TargetTime) else no_later(asked),
            detail=f"{reachable}, timeline {self._archive.history.timeline}; the next segment wanted is {missing}",
            hint="--latest restores all that is there; pg_switch_wal() on the live server brings the archive up to now",
        )

    def _before_half_done(
        self, window: _Window, resolved: Resolved, asked: RecoveryTarget
    ) -> tuple[Resolved, list[str]]:
        """Stop before a DROP DATABASE (or TABLESPACE) whose transaction is excluded: its files would be gone.

        Raises TargetUnreachable when that would lose a commit that was asked for.
        """
        drop = excluded_drop(resolved, asked)
        if drop is None:
            return resolved, notes_on_drops(resolved.facts)
        moved = self._scan(window, LsnTarget(drop.lsn, inclusive=False)).resolved
        if moved is None or not reaches(moved, window.stop):
            raise TargetUnreachable(
                f"{describe(asked)} cannot be restored: it lies behind {drop.what}, and before its commit",
                detail=f"backup {window.manifest.id} is consistent only behind it",
                hint="choose an older backup, or a target behind the drop",
            )
        return moved, [f"recovery stops at {drop.lsn}, before {drop.what}; no commit lies between there and the target"]

    def _require_replayable(self, facts: Facts, window: _Window) -> None:
        if facts.wal_level_minimal is not None:
            raise WalGap(
                f"the server ran with wal_level = minimal at {facts.wal_level_minimal}",
                detail=f"WAL from there on does not hold everything; backup {window.manifest.id} lies before it",
                hint=f'restore from a backup made later ("pitr list"), or stop before it: '
                f"--lsn {facts.wal_level_minimal} --exclusive",
            )

    def _not_found(self, what: str, wanted: XidTarget | NameTarget) -> PitrError:
        archive, oldest = self._archive, self._backups[-1]
        timeline = archive.history.timeline
        others = timelines_with(archive, wanted, self._report)
        if others:
            listed = ", ".join(map(str, others))
            return HistoryMismatch(
                f"{what} is not on timeline {timeline}",
                detail=f"timeline {listed} has it",
                hint=f"--timeline {others[-1]}",
            )
        for window in self._windows.values():
            if window.behind is not None:
                raise WalGap(
                    f"{what} was not found, and WAL segment {archive.following(window.last)} is missing",
                    detail=f"{window.behind} behind it is there",
                    hint='"pitr wal status" shows gaps',
                )
        last = self._window(self._backups[0]).last
        return TargetUnreachable(
            f"{what} is not in the archive",
            detail=f"looked through timeline {timeline} from {oldest.wal.start_lsn} (backup {oldest.id}) to {last.end}",
            hint=f"{_STATUS_HINT}; a running transaction has no end yet",
        )


def reaches(resolved: Resolved, stop: Lsn) -> bool:
    """Whether everything up to ``stop`` is replayed when recovery ends there: else the backup is not consistent."""
    return (resolved.end_lsn if resolved.inclusive else resolved.lsn) >= stop
