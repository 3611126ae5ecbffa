"""Picking one of many by a short name: the ID words of the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pitr.core.errors import AmbiguousName, NoSuitableBackup, UsageError

MAX_CANDIDATES = 20


class UnknownName(UsageError):
    code = "unknown-name"


def match_id(text: str, ids: Sequence[str], *, labels: Mapping[str, str] | None = None, what: str = "backup") -> str:
    """The one id that ``text`` means: full, ``latest`` or ``oldest``, a label, a unique prefix or suffix.

    ``ids`` are in order of time, ``labels`` maps label to id. Raises NoSuitableBackup for latest and oldest of nothing,
    UnknownName, and AmbiguousName with the candidates.
    """
    if text in ids:
        return text
    if text in ("latest", "oldest"):
        if not ids:
            raise NoSuitableBackup(f"there is no {what} yet")
        return ids[-1] if text == "latest" else ids[0]
    if labels and text in labels:
        return labels[text]
    found = [one for one in ids if text and (one.startswith(text) or one.endswith(text))]
    if len(found) == 1:
        return found[0]
    if not found:
        known = f"the newest is {ids[-1]}" if ids else f"there is no {what} yet"
        raise UnknownName(f"no {what} is named {text!r}", detail=known, hint='"pitr list" shows all')
    shown = ", ".join(found[:MAX_CANDIDATES])
    more = f" and {len(found) - MAX_CANDIDATES} more" if len(found) > MAX_CANDIDATES else ""
    raise AmbiguousName(f"{text!r} could be any of {len(found)} {what}s", detail=shown + more, hint="give more of it")
