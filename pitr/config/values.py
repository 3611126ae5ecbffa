"""From what is written to what is meant. Text comes from the environment and options, TOML brings its own types."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from pitr.config.keys import Key
from pitr.config.secret_source import SecretSource
from pitr.core.secrets import Secret, redact
from pitr.core.units import format_size, parse_duration, parse_size

SCHEMES = ("file", "s3")
_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")


def convert(key: Key, spelling: str, raw: object, *, textual: bool, base: Path) -> object:
    """The typed value. ``textual``: raw is text whatever the type (environment). Raises ValueError with what was
    expected; a secret's value is never part of the message."""
    if key.kind == "secret":
        return _secret(key.name, spelling.removeprefix(key.name), raw, base)
    return _CONVERTERS[key.kind](key, raw, textual, base)


def looks_like_url(text: str) -> bool:
    """A URL or a path, as opposed to the name of a configured repository."""
    return "://" in text or "/" in text or text in (".", "..")


def repository_url(raw: object, base: Path) -> str:
    """Normalised URL; a path becomes file://PATH. Raises ValueError."""
    text = _text(raw)
    match = _SCHEME.match(text)
    if match is None:
        return f"file://{_path(text, base)}"
    scheme = match[1].lower()
    if scheme not in SCHEMES:
        raise ValueError(f"expected file:///directory or s3://bucket/prefix, got {redact(text)!r}")
    parts = urlsplit(text)
    if "@" in parts.netloc:
        raise ValueError("a URL must not hold credentials: use access_key and secret_key_file")
    if scheme == "file":
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise ValueError(f"expected file:///directory with three slashes, got {text!r}")
        return f"file://{_path(text[len('file://') + len(parts.netloc) :], base)}"
    if not parts.netloc:
        raise ValueError(f"expected s3://bucket/prefix, got {text!r}")
    return f"s3://{text[len('s3://') :].rstrip('/')}"


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        raise ValueError(f"expected text, got {_shown(raw)}")
    if not raw or raw != raw.strip() or "\x00" in raw or "\n" in raw:
        raise ValueError(f"expected text without surrounding space or line ends, got {raw!r}")
    return raw


def _path(raw: object, base: Path) -> Path:
    if isinstance(raw, Path):
        raw = str(raw)
    text = _text(raw)
    if text.startswith("~"):
        raise ValueError(f"expected an absolute path, got {text!r} (~ is not expanded here)")
    # Not resolved: a symbolic link may be re-pointed later on purpose.
    return Path(_normalised(base / text))


def _normalised(path: Path) -> str:
    parts: list[str] = []
    for part in path.parts[1:]:
        if part == ".":
            continue
        parts.append(part)
    return "/" + "/".join(parts)


def _flag(key: Key, raw: object, textual: bool, base: Path) -> bool:
    if isinstance(raw, bool):
        return raw
    if textual and isinstance(raw, str) and raw.lower() in _TRUE + _FALSE:
        return raw.lower() in _TRUE
    raise ValueError(f"expected true or false, got {_shown(raw)}")


def _count(key: Key, raw: object, textual: bool, base: Path) -> int:
    if textual and isinstance(raw, str) and re.fullmatch(r"\d+", raw):
        raw = int(raw)
    if isinstance(raw, bool) or not isinstance(raw, int):
        raise ValueError(f"expected a whole number, got {_shown(raw)}")
    return _within(key, raw, str)


def _size(key: Key, raw: object, textual: bool, base: Path) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int | str):
        raise ValueError(f'expected a size such as "64MiB", got {_shown(raw)}')
    return _within(key, raw if isinstance(raw, int) else parse_size(raw), format_size)


def _rate(key: Key, raw: object, textual: bool, base: Path) -> int:
    value = _size(key, raw.removesuffix("/s") if isinstance(raw, str) else raw, textual, base)
    if value <= 0:
        raise ValueError("expected a rate above zero (leave the key out for no limit)")
    return value


def _within(key: Key, value: int, shown: Callable[[int], str]) -> int:
    if key.minimum is not None and value < key.minimum:
        raise ValueError(f"expected at least {shown(key.minimum)}, got {shown(value)}")
    if key.maximum is not None and value > key.maximum:
        raise ValueError(f"expected at most {shown(key.maximum)}, got {shown(value)}")
    return value


def _duration(key: Key, raw: object, textual: bool, base: Path) -> timedelta:
    if isinstance(raw, timedelta):
        return raw
    if isinstance(raw, bool) or not isinstance(raw, int | str):
        raise ValueError(f'expected a duration such as "5min", got {_shown(raw)}')
    return timedelta(seconds=raw) if isinstance(raw, int) else parse_duration(raw)


def _words(key: Key, raw: object, textual: bool, base: Path) -> tuple[str, ...]:
    if not isinstance(raw, list | tuple) or not all(isinstance(item, str) and item for item in raw):
        raise ValueError(f'expected a list of texts such as ["main"], got {_shown(raw)}')
    if not raw or len(set(raw)) != len(raw):
        raise ValueError("expected at least one entry, and none twice")
    return tuple(raw)


def _command(raw: object) -> tuple[str, ...]:
    if isinstance(raw, str):
        import shlex

        words = shlex.split(raw)
    elif isinstance(raw, list | tuple) and all(isinstance(item, str) for item in raw):
        words = list(raw)
    else:
        raise ValueError(f"expected a command as text or a list of texts, got {_shown(raw)}")
    if not words or not words[0]:
        raise ValueError("expected a command, got nothing")
    return tuple(words)


def _choice(key: Key, raw: object, textual: bool, base: Path) -> str:
    if raw not in key.choices:
        raise ValueError(f"expected one of {', '.join(key.choices)}, got {_shown(raw)}")
    return str(raw)


def _secret(name: str, variant: str, raw: object, base: Path) -> SecretSource:
    if variant == "_file":
        return SecretSource(name, file=_path(raw, base))
    if variant == "_command":
        return SecretSource(name, command=_command(raw))
    if not isinstance(raw, str) or not raw:
        raise ValueError("expected text")
    if variant == "_env":
        return SecretSource(name, variable=raw)
    return SecretSource(name, value=Secret(raw))


def _shown(raw: object) -> str:
    if isinstance(raw, bool):
        return str(raw).lower()
    if isinstance(raw, str):
        return f'"{redact(raw)}"'
    return repr(raw) if isinstance(raw, int | float) else f"a {type(raw).__name__}"


_CONVERTERS: dict[str, Callable[[Key, object, bool, Path], object]] = {
    "text": lambda key, raw, textual, base: _text(raw),
    "url": lambda key, raw, textual, base: repository_url(raw, base),
    "path": lambda key, raw, textual, base: _path(raw, base),
    "flag": _flag,
    "count": _count,
    "size": _size,
    "rate": _rate,
    "duration": _duration,
    "words": _words,
    "command": lambda key, raw, textual, base: _command(raw),
    "choice": _choice,
}
