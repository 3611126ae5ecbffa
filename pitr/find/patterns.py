"""TABLE words: ``[database.][schema.]table``, quoted and folded as in SQL, with psql's ``*`` and ``?``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pitr.core.errors import UsageError

_PART = re.compile(r'"((?:[^"]|"")*)"|([^".]+)')


@dataclass(frozen=True, slots=True)
class TablePattern:
    """Parts that were not given match everything."""

    text: str
    database: re.Pattern[str] | None
    schema: re.Pattern[str] | None
    name: re.Pattern[str]

    def matches(self, database: str | None, schema: str | None, name: str | None) -> bool:
        return (
            name is not None
            and self.name.fullmatch(name) is not None
            and (self.schema is None or schema is None or self.schema.fullmatch(schema) is not None)
            and (self.database is None or (database is not None and self.database.fullmatch(database) is not None))
        )


def parse_table(text: str) -> TablePattern:
    """Raises UsageError."""
    parts: list[re.Pattern[str]] = []
    at = 0
    while True:
        match = _PART.match(text, at)
        if match is None:
            break
        parts.append(_pattern(match))
        at = match.end()
        if at == len(text):
            break
        if text[at] != ".":
            raise _not_a_table(text)
        at += 1
    if at != len(text) or not 1 <= len(parts) <= 3 or text.endswith("."):
        raise _not_a_table(text)
    *before, name = parts
    schema = before[-1] if before else None
    return TablePattern(text, before[0] if len(before) == 2 else None, schema, name)


def _pattern(match: re.Match[str]) -> re.Pattern[str]:
    if match[1] is not None:
        return re.compile(re.escape(match[1].replace('""', '"')))
    folded = re.escape(match[2].lower())
    return re.compile(folded.replace(r"\*", ".*").replace(r"\?", "."))


def _not_a_table(text: str) -> UsageError:
    return UsageError(
        f"not a table: {text!r}",
        detail="[database.][schema.]table, quoted as in SQL; * and ? match as in psql",
        hint="examples: orders, shop.orders, app.*, 'public.\"OrderItem\"'",
    )
