"""Sizes and durations as people write them in options and configuration files."""

from __future__ import annotations

import re
from datetime import timedelta

_SIZE_FACTORS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40, "p": 1 << 50}
# Texts, here as elsewhere in what wal push imports: most runs need none of them, and compiling takes its time.
_SIZE = r"(?i)^\s*(\d+(?:\.\d+)?)\s*([kmgtp]?)(?:i?b)?\s*$"
_DURATION_PART = r"(\d+(?:\.\d+)?)\s*(ms|s|min|m|h|d|w)"
_DURATION_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}


def parse_size(text: str) -> int:
    """Bytes: ``64MiB``, ``64M``, ``64mb`` (all binary), ``1048576``. Raises ValueError."""
    match = re.match(_SIZE, text)
    if match is None:
        raise ValueError(f"not a size: {text!r} (examples: 64MiB, 1G, 500k)")
    return int(float(match[1]) * _SIZE_FACTORS[match[2].lower()])


def format_size(size_bytes: int) -> str:
    """Three significant figures with a binary unit: ``3.42 GiB``."""
    if abs(size_bytes) < 1024:
        return f"{size_bytes} B"
    value = float(size_bytes)
    for unit in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        value /= 1024
        if abs(value) < 999.5 or unit == "PiB":
            break
    digits = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{digits}f} {unit}"


def parse_duration(text: str) -> timedelta:
    """``90s``, ``5min``, ``26h``, ``35d``, ``1h30m``; a bare number is seconds. Raises ValueError."""
    compact = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", compact):
        return timedelta(seconds=float(compact))
    parts = re.findall(_DURATION_PART, compact)
    if not parts or "".join(number + unit for number, unit in parts) != compact.replace(" ", ""):
        raise ValueError(f"not a duration: {text!r} (examples: 90s, 5min, 26h, 35d)")
    return timedelta(seconds=sum(float(number) * _DURATION_SECONDS[unit] for number, unit in parts))


def format_duration(seconds: float) -> str:
    """``0.42 s``, ``12.3 s``, ``4 min 05 s``, ``2 h 10 min``, ``3 d 4 h``."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
