"""DROP DATABASE and DROP TABLESPACE remove files before their commit: a target between the two must move."""

from __future__ import annotations

from dataclasses import dataclass

from pitr.core.errors import TargetUnreachable
from pitr.pg.lsn import Lsn
from pitr.restore.describe import describe, show
from pitr.restore.request import RecoveryTarget
from pitr.wal.facts import Facts
from pitr.wal.targets import Resolved
from pitr.wal.xlog import DatabaseDropped, TablespaceDropped


@dataclass(frozen=True, slots=True)
class ExcludedDrop:
    """A drop whose files go at ``lsn`` while its commit lies behind the target."""

    lsn: Lsn
    what: str


def excluded_drop(resolved: Resolved, asked: RecoveryTarget) -> ExcludedDrop | None:
    """The first such drop; recovery must stop before it, as its files would be gone all the same.

    Raises TargetUnreachable when that would lose a commit that was asked for.
    """
    dropped = [
        half
        for half in resolved.facts.half_done
        # ALTER DATABASE SET TABLESPACE drops the old directory without an xid, behind its commit
        if half.xid and any(isinstance(event, DatabaseDropped | TablespaceDropped) for event in half.events)
    ]
    if not dropped:
        return None
    first = min(dropped, key=lambda half: half.lsn)
    is_database = any(isinstance(event, DatabaseDropped) for event in first.events)
    kind = "DROP DATABASE" if is_database else "DROP TABLESPACE"
    what = f"the {kind} of transaction {first.xid}, which began to remove files at {first.lsn}"
    lost = resolved.last_included
    if lost is not None and lost.lsn > first.lsn:
        raise TargetUnreachable(
            f"{describe(asked)} cannot be restored exactly: it lies behind {what}, and before its commit",
            detail=f"transaction {lost.xid} committed in between, at {show(lost.time)} ({lost.lsn})",
            hint=f"--lsn {first.lsn} --exclusive keeps what was dropped and loses what was committed after it; "
            f"--xid {first.xid} includes the drop",
        )
    return ExcludedDrop(first.lsn, what)


def notes_on_drops(facts: Facts) -> list[str]:
    """Databases that a DROP DATABASE had marked and not yet removed where recovery stops."""
    return [
        f"database {oid} was being dropped at {lsn}: it will refuse connections; --lsn {lsn} --exclusive stops before"
        for oid, lsn in facts.invalidated
    ]
