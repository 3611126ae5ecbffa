"""Results as JSON and as text."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from pitr.core.documents import to_json as leaf_to_json
from pitr.core.secrets import Secret


def result_json(value: object) -> Any:  # noqa: ANN401 - JSON is what it is
    """A result as plain JSON types: RFC 3339 UTC, Lsn as text, enums by value, paths as text, null rather than absent.

    A timedelta becomes seconds, and its field's name ends with ``_s``. Sizes are ints named ``_bytes`` by their field.
    What JSON lacks does not get in: NaN is null, a Secret is masked, lone surrogates of file names are escapes.
    """
    names = _fields_of(value)
    if names is not None:
        return {_field_name(name, getattr(value, name)): result_json(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {_text(str(key)): result_json(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(map(result_json, value))
    if isinstance(value, (list, tuple)):
        return [result_json(item) for item in value]
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Secret):
        return "***"
    plain = leaf_to_json(value)
    return _text(plain) if isinstance(plain, str) else plain


def _fields_of(value: object) -> Sequence[str] | None:
    """The names of a record's fields, be it a dataclass or a named tuple; None for anything else."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [field.name for field in dataclasses.fields(value)]
    return getattr(value, "_fields", None) if isinstance(value, tuple) else None


def _field_name(name: str, value: object) -> str:
    return f"{name}_s" if isinstance(value, timedelta) and not name.endswith("_s") else name


def _text(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[int] = ()) -> list[str]:
    """Lines of an aligned table; None is shown as ``-``. ``right``: columns aligned to the right."""
    cells = [list(headers), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    flush_right = set(right)
    return [
        "  ".join(
            text.rjust(width) if column in flush_right else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    ]


def fields(pairs: Iterable[tuple[str, object]]) -> list[str]:
    """Lines ``name   value``, aligned; those without a value are left out."""
    shown = [(name, _cell(value)) for name, value in pairs if value is not None]
    width = max((len(name) for name, _ in shown), default=0)
    return [f"{name.ljust(width)}  {text}" for name, text in shown]


def moment(value: datetime, *, local: bool = False) -> str:
    """``2026-11-23 04:02:30+00:00``; with ``local`` (a terminal) the machine's time as well, unless that is UTC."""
    from datetime import UTC

    text = value.astimezone(UTC).isoformat(" ", "seconds")
    here = value.astimezone()
    if local and here.utcoffset():
        return f"{text} ({here.isoformat(' ', 'seconds')} here)"
    return text


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return moment(value) if isinstance(value, datetime) else str(value)
