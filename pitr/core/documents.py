"""Frozen dataclasses to JSON and back, by their annotations: the documents of a repository and of the JSON interface.

Supported: str, int, float, bool, None, datetime (aware), bytes (hex), Enum by value, Optional, tuple[X, ...],
dict[str, X], nested dataclasses, and str/int subclasses with a ``parse`` class method (Lsn). Unknown fields are
ignored on reading.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Hashable, Mapping
from datetime import datetime
from enum import Enum
from functools import cache
from pathlib import PurePath
from typing import Any, TypeVar, Union, cast

from pitr.core.clock import format_utc, parse_utc

T = TypeVar("T")


class DocumentError(ValueError):
    """The JSON does not fit the dataclass. The message names the field."""


def to_json(value: object) -> Any:  # noqa: ANN401 - JSON is what it is
    """Plain JSON types. Fields in order of declaration, None kept (null rather than absent)."""
    if value is None or isinstance(value, (bool, float)) or type(value) in (str, int):
        return value
    if dataclasses.is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, datetime):
        return format_utc(value)
    if isinstance(value, (bytes, bytearray)):
        return bytes(value).hex()
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_json(item) for item in value]
    if isinstance(value, (PurePath, str)) or hasattr(type(value), "parse"):
        return str(value)
    if isinstance(value, int):
        return int(value)
    raise TypeError(f"cannot be written as JSON: {type(value).__name__}")


def from_json(cls: type[T], data: object, where: str = "") -> T:
    """The inverse of to_json for a dataclass. Raises DocumentError."""
    return cast(T, _decode(cls, data, where or cls.__name__))


@cache
def _hints(cls: Hashable) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _decode_dataclass(cls: type[Any], data: object, where: str) -> object:
    if not isinstance(data, dict):
        raise DocumentError(f"{where}: an object is expected")
    arguments: dict[str, Any] = {}
    for field in dataclasses.fields(cls):
        if field.name in data:
            arguments[field.name] = _decode(
                _hints(cast(Hashable, cls))[field.name], data[field.name], f"{where}.{field.name}"
            )
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise DocumentError(f"{where}.{field.name}: missing")
    return cls(**arguments)


def _decode(hint: Any, data: Any, where: str) -> Any:  # noqa: ANN401
    origin = typing.get_origin(hint)
    if origin is not None:
        return _decode_generic(origin, typing.get_args(hint), data, where)
    if hint is Any or hint is object:
        return data
    if dataclasses.is_dataclass(hint):
        return _decode_dataclass(cast("type[Any]", hint), data, where)
    return _decode_scalar(hint, data, where)


def _decode_generic(origin: Any, arguments: tuple[Any, ...], data: Any, where: str) -> Any:  # noqa: ANN401
    if origin in (Union, types.UnionType):
        if data is None and type(None) in arguments:
            return None
        rest = [argument for argument in arguments if argument is not type(None)]
        return _decode(rest[0], data, where)
    if origin is tuple and isinstance(data, list):
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_decode(arguments[0], item, f"{where}[]") for item in data)
        if len(arguments) == len(data):
            return tuple(_decode(hint, item, f"{where}[]") for hint, item in zip(arguments, data, strict=True))
    if origin is dict and isinstance(data, dict):
        return {key: _decode(arguments[1], item, f"{where}.{key}") for key, item in data.items()}
    if origin is typing.Literal and data in arguments:
        return data
    raise DocumentError(f"{where}: unexpected value")


def _decode_scalar(hint: Any, data: Any, where: str) -> Any:  # noqa: ANN401
    try:
        if hint is datetime:
            return parse_utc(data)
        if hint is bytes:
            return bytes.fromhex(data)
        if isinstance(hint, type) and issubclass(hint, Enum):
            return hint(data)
        parse = getattr(hint, "parse", None)
        if parse is not None:
            return parse(data)
    except (ValueError, TypeError, AttributeError) as error:
        raise DocumentError(f"{where}: {error}") from error
    if hint is float and isinstance(data, int) and not isinstance(data, bool):
        return float(data)
    if isinstance(hint, type) and isinstance(data, hint) and not (hint is int and isinstance(data, bool)):
        return data
    raise DocumentError(f"{where}: unexpected value")
