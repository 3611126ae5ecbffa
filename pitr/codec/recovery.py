"""A recovery key: 200 random bits to be printed on paper and typed again (FORMAT.md "recovery")."""

from __future__ import annotations

import os
from typing import Final

from pitr.core.errors import ConfigError

RECOVERY_BYTES: Final = 25
_GROUPS: Final = 10
_DATA: Final = 4
_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32
_SEPARATORS: Final = str.maketrans("OIL", "011", "- \t\r\n")


def new_recovery_key() -> str:
    """Ten groups of five characters, for a person to keep; holds a secret."""
    return format_recovery_key(os.urandom(RECOVERY_BYTES))


def format_recovery_key(secret: bytes) -> str:
    number = int.from_bytes(secret, "big")
    digits = [number >> (5 * shift) & 31 for shift in reversed(range(_GROUPS * _DATA))]
    groups = [digits[start : start + _DATA] for start in range(0, len(digits), _DATA)]
    return "-".join(
        "".join(_ALPHABET[digit] for digit in (*group, _check_digit(which, group)))
        for which, group in enumerate(groups)
    )


def parse_recovery_key(text: str) -> bytes:
    """The 25 bytes. Case, blanks and dashes do not matter, nor O for 0 and I or L for 1. Raises ConfigError, which says
    which group is mistyped and never shows the key."""
    typed = text.upper().translate(_SEPARATORS)
    if len(typed) != _GROUPS * (_DATA + 1):
        raise ConfigError(
            f"a recovery key has {_GROUPS} groups of {_DATA + 1} characters, not {len(typed)} characters in all",
            hint="type it exactly as `pitr init` printed it",
        )
    number = 0
    for which in range(_GROUPS):
        group = [_ALPHABET.find(letter) for letter in typed[which * (_DATA + 1) : (which + 1) * (_DATA + 1)]]
        if -1 in group or group[_DATA] != _check_digit(which, group[:_DATA]):
            raise ConfigError(
                f"group {which + 1} of the recovery key is mistyped", hint="compare this group with the printed key"
            )
        for digit in group[:_DATA]:
            number = number << 5 | digit
    return number.to_bytes(RECOVERY_BYTES, "big")


def _check_digit(which: int, group: list[int]) -> int:
    """Linear over GF(32), another power of 2 for each place: finds each wrong digit and each exchange of two."""
    check = which
    for place, digit in enumerate(group):
        for _ in range(place + 1):
            digit = digit << 1 ^ (0x25 if digit & 16 else 0)
        check ^= digit
    return check
