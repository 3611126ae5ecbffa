"""Targets and moments in words."""

from __future__ import annotations

from datetime import UTC, datetime

from pitr.restore.request import (
    Boundary,
    Immediate,
    Latest,
    RecoveryTarget,
    TargetLsn,
    TargetName,
    TargetTime,
    TargetXid,
)
from pitr.wal.xact import TransactionEnd


def describe(target: RecoveryTarget) -> str:
    match target:
        case Latest():
            return "the end of the archive"
        case Immediate():
            return "the end of the backup"
        case TargetTime(moment, inclusive):
            return show(moment) if inclusive else f"before {show(moment)}"
        case TargetLsn(lsn, inclusive):
            return str(lsn) if inclusive else f"before {lsn}"
        case TargetXid(xid, inclusive):
            return f"transaction {xid}" if inclusive else f"before transaction {xid}"
        case TargetName(name):
            return f'restore point "{name}"'


def show(moment: datetime) -> str:
    return str(moment.astimezone(UTC))


def no_later(asked: TargetTime) -> str:
    return f"the archive has no transaction later than {show(asked.moment)}, so it may not reach that far"


def boundary(end: TransactionEnd | None) -> Boundary | None:
    if end is None:
        return None
    return Boundary("commit" if end.committed else "abort", end.lsn, end.xid, end.time)
