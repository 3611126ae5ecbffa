"""What all JSON documents of a repository have in common: an object with a format number."""

from __future__ import annotations

import json
from typing import Any, TypeVar, cast

from pitr.core.documents import DocumentError, from_json
from pitr.core.errors import FormatTooNew, ManifestInvalid

T = TypeVar("T")


def read_as(cls: type[T], data: bytes, name: str, newest: int) -> T:
    """The document as its dataclass. Raises FormatTooNew, or ManifestInvalid naming object and field."""
    document = load_document(data, name, newest)
    try:
        return from_json(cls, document)
    except (DocumentError, ValueError) as error:
        raise ManifestInvalid(f"{name} does not hold what it should", detail=str(error)) from error


def load_document(data: bytes, name: str, newest: int) -> dict[str, object]:
    """JSON object with a ``format`` field of at most ``newest``."""
    try:
        document: Any = json.loads(data)
    except ValueError as error:
        raise ManifestInvalid(f"{name} is not JSON", detail=str(error)) from error
    version = document.get("format") if isinstance(document, dict) else None
    if not isinstance(version, int):
        raise ManifestInvalid(f"{name} has no format number")
    if version > newest:
        raise FormatTooNew(
            f"{name} has format {version}, this pitr reads up to {newest}",
            hint="use the pitr that wrote it, or a newer one",
        )
    return cast(dict[str, object], document)
