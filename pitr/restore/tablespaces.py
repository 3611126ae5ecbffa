"""Where the tablespaces of a backup go, and the refusal of every place that somebody else may be using."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pitr.core.errors import OverwriteRefused, TargetUnreachable, UsageError
from pitr.pg.lsn import Lsn
from pitr.repo.manifest import TablespaceRecord
from pitr.restore.request import Role, TablespacePlan


@dataclass(frozen=True, slots=True)
class CreatedTablespace:
    """A CREATE TABLESPACE that recovery will replay: it links the restored server to that very directory."""

    lsn: Lsn
    oid: int
    location: str


def plan_tablespaces(records: Iterable[TablespaceRecord], mapping: Mapping[str, Path]) -> tuple[TablespacePlan, ...]:
    """Tablespaces outside the data directory, with their new locations. Raises UsageError for an unknown name."""
    unused = set(mapping)
    plans: list[TablespacePlan] = []
    linked = [record for record in records if record.location.startswith("/")]  # others are in place, or pg_default
    for record in linked:
        keys = {record.name, str(record.oid), record.location, record.location.rstrip("/")} & set(mapping)
        if len({mapping[key] for key in keys}) > 1:
            raise UsageError(f'tablespace "{record.name}" is mapped twice', detail=", ".join(sorted(keys)))
        unused -= keys
        new = mapping[keys.pop()] if keys else Path(record.location)
        if not new.is_absolute():
            raise UsageError(f'the new location of tablespace "{record.name}" is not an absolute path: {new}')
        plans.append(TablespacePlan(record.oid, record.name, record.location, os.path.normpath(new)))
    if unused:
        have = ", ".join(f"{plan.name} ({plan.original})" for plan in plans) or "none"
        raise UsageError(
            f"the backup has no tablespace {', '.join(sorted(unused))}", detail=f"tablespaces of the backup: {have}"
        )
    return tuple(plans)


def check_locations(plans: Iterable[TablespacePlan], to: Path, role: Role, linked: Mapping[int, Path]) -> None:
    """Every location is free, or (``linked``: OID to target of the links that are there, for --delta) our own.

    Raises OverwriteRefused. A copy never gets the original location while anything is there: it is production's.
    """
    seen: list[tuple[Path, TablespacePlan]] = []
    for plan in plans:
        place = Path(os.path.realpath(plan.location))
        for other in (to, *(where for where, _ in seen)):
            if place == other or other in place.parents or place in other.parents:
                raise OverwriteRefused(
                    f'tablespace "{plan.name}" cannot go to {plan.location}',
                    detail=f"it lies in {other}, or the other way round",
                    hint=f"give it a directory of its own: --tablespace {plan.name}=/another/directory",
                )
        seen.append((place, plan))
        is_original = plan.location == os.path.normpath(plan.original)
        ours = plan.oid in linked and os.path.realpath(linked[plan.oid]) == str(place)
        if not is_occupied(plan.location) or (ours and not (is_original and role == "copy")):
            continue
        raise OverwriteRefused(
            f'tablespace "{plan.name}" cannot go to {plan.location}: it is not empty',
            detail="that is where the running cluster may keep it" if is_original else None,
            hint=f"map it to an empty directory: --tablespace {plan.name}=/another/directory",
        )


def check_created(created: Iterable[CreatedTablespace]) -> tuple[str, ...]:
    """Refuse a target behind a CREATE TABLESPACE whose directory is in use on this host; the others' directories.

    Raises TargetUnreachable: replay links the copy to the original location and writes there.
    """
    missing: list[str] = []
    for made in created:
        if not made.location.startswith("/"):
            continue
        if is_occupied(made.location):
            raise TargetUnreachable(
                f"recovery would write into {made.location}, which is in use on this host",
                detail=f"CREATE TABLESPACE at {made.lsn} (OID {made.oid}) lies before the target",
                hint=f"restore on another host, or stop before it: --lsn {made.lsn} --exclusive",
            )
        missing.append(made.location)
    return tuple(dict.fromkeys(missing))


def is_occupied(location: str) -> bool:
    """Whether anything is there: a non-empty directory, a file, or a directory that we may not look into."""
    try:
        return any(os.scandir(location))
    except FileNotFoundError:
        return False
    except OSError:
        return True
