"""What reading showed that the plan did not know; each worker keeps its own and they are joined at the end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from pitr.pg.lsn import Lsn


@dataclass(frozen=True, slots=True)
class FailedPage:
    """A page whose checksum fails however often it is read. ``block`` counts from the beginning of the file."""

    file: int
    block: int
    lsn: Lsn


@dataclass(slots=True)
class Notes:
    """By index of the file in the plan.

    vanished   dropped since the plan was made
    ends       bytes at which a file ended before its planned size
    sizes      bytes that were read of a small file that is not a relation's, whatever the plan said
    changed    other files that changed while or since
    partial    relation files that end within a page
    """

    vanished: set[int] = field(default_factory=set)
    ends: dict[int, int] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    changed: set[int] = field(default_factory=set)
    partial: set[int] = field(default_factory=set)
    failed_pages: list[FailedPage] = field(default_factory=list)

    def ended(self, file: int, at_bytes: int) -> None:
        self.ends[file] = min(at_bytes, self.ends.get(file, at_bytes))

    @classmethod
    def joined(cls, notes: Iterable[Notes]) -> Notes:
        whole = cls()
        for one in notes:
            whole.vanished |= one.vanished
            whole.changed |= one.changed
            whole.partial |= one.partial
            whole.sizes |= one.sizes
            whole.failed_pages += one.failed_pages
            for file, end in one.ends.items():
                whole.ended(file, end)
        return whole
