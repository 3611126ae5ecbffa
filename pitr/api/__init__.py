"""The operations of the command line as typed functions, for other programs.

Each takes ``Settings`` (``load_settings()`` reads the same files and variables as the program does), returns the frozen
result that ``--json`` shows, and raises a ``PitrError`` with message, detail, hint, stable ``code`` and ``exit_code``.
Nothing here prints or exits. Names are loaded when they are used: ``pitr wal push`` starts for every WAL segment.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pitr.api.archiving import Configured, configure_archiving
    from pitr.api.backups import RestoreOptions, backup_base, plan_base_restore, restore_base
    from pitr.api.init import InitResult, init_repositories
    from pitr.api.look import list_backups, show_backup, status, wal_status
    from pitr.api.receive import wal_receive
    from pitr.api.wal import wal_fetch, wal_push
    from pitr.config.load import load_settings
    from pitr.config.settings import Settings
    from pitr.core.errors import PitrError
    from pitr.restore.request import Immediate, Latest, TargetLsn, TargetName, TargetTime, TargetXid

_HOMES = {
    "pitr.api.archiving": ("Configured", "configure_archiving"),
    "pitr.api.backups": ("RestoreOptions", "backup_base", "plan_base_restore", "restore_base"),
    "pitr.api.init": ("InitResult", "init_repositories"),
    "pitr.api.look": ("list_backups", "show_backup", "status", "wal_status"),
    "pitr.api.receive": ("wal_receive",),
    "pitr.api.wal": ("wal_fetch", "wal_push"),
    "pitr.config.load": ("load_settings",),
    "pitr.config.settings": ("Settings",),
    "pitr.core.errors": ("PitrError",),
    "pitr.restore.request": ("Immediate", "Latest", "TargetLsn", "TargetName", "TargetTime", "TargetXid"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Configured",
    "Immediate",
    "InitResult",
    "Latest",
    "PitrError",
    "RestoreOptions",
    "Settings",
    "TargetLsn",
    "TargetName",
    "TargetTime",
    "TargetXid",
    "backup_base",
    "configure_archiving",
    "init_repositories",
    "list_backups",
    "load_settings",
    "plan_base_restore",
    "restore_base",
    "show_backup",
    "status",
    "wal_fetch",
    "wal_push",
    "wal_receive",
    "wal_status",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME_OF[name]), name)
