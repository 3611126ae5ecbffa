"""Restoring a base backup to an exact moment: ``plan_restore`` and ``run_restore``."""

from pitr.restore.engine import plan_restore, run_restore
from pitr.restore.messages import explain_log
from pitr.restore.request import (
    Immediate,
    Latest,
    RecoveryTarget,
    ResolvedTarget,
    RestorePlan,
    RestoreRequest,
    RestoreResult,
    TargetLsn,
    TargetName,
    TargetTime,
    TargetXid,
)

__all__ = [
    "Immediate",
    "Latest",
    "RecoveryTarget",
    "ResolvedTarget",
    "RestorePlan",
    "RestoreRequest",
    "RestoreResult",
    "TargetLsn",
    "TargetName",
    "TargetTime",
    "TargetXid",
    "explain_log",
    "plan_restore",
    "run_restore",
]
