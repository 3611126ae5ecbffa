"""Secret values: from a file, an environment variable or a command; never in output, logs or process lists."""

from __future__ import annotations

import re

_URI_PASSWORD = r"(?P<head>\w+://[^:@/\s]*:)\S*(?=@)"  # to the last @: the password may hold one, though it should not
_KEYWORD_PASSWORD = r"(?i)(?P<head>\b(?:\w*(?:password|passphrase)|secret\w*)\s*=\s*)('(?:[^'\\]|\\.)*'|\S+)"


class Secret:
    """A string or bytes that does not show itself. ``reveal()`` is the only way to the value."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


def redact(text: str) -> str:
    """Mask passwords in conninfo strings and URIs before they reach a message."""
    text = re.sub(_URI_PASSWORD, lambda match: match["head"] + "***", text)
    return re.sub(_KEYWORD_PASSWORD, lambda match: match["head"] + "***", text)
