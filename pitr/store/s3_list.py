"""Listing a prefix in byte order of the names, also from servers that list in another order.

Servers built on directories (SeaweedFS) list ``a/x`` before ``a-b``, S3 the other way round. The first page shows most
of these; then the whole prefix is gathered and sorted. A later surprise does the same and proves that what was
yielded already is the beginning of the right order, else it is an error: a listing never silently leaves a name out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import islice

from pitr.core.errors import StoreError
from pitr.store.base import ObjectInfo

Page = list[ObjectInfo]
Pages = Callable[[str], Iterator[Page]]
"""Pages of the objects with the prefix that the server lists behind the given name."""

_BEFORE_SLASH = re.compile(r"[+.-]")


class OutOfOrder(Exception):
    """The server's order is not that of S3."""


def listed(pages: Pages, prefix: str, after: str) -> Iterator[ObjectInfo]:
    if after > prefix and not after.startswith(prefix):
        return
    yielded = 0
    try:
        for info in _in_order(pages(start_before(prefix, after)), after):
            yield info
            yielded += 1
            last = info
    except OutOfOrder:
        ordered = sorted((info for page in pages("") for info in page), key=lambda info: info.name)
        wanted = (info for info in ordered if info.name > after)
        if yielded:
            passed = list(islice(wanted, yielded))
            if passed[-1].name != last.name:
                raise StoreError(
                    f"the server lists objects out of order: {prefix}", detail=f"met behind {last.name}"
                ) from None
        yield from wanted


def _in_order(pages: Iterator[Page], after: str) -> Iterator[ObjectInfo]:
    last = ""
    for page in pages:
        previous = last
        for info in page:
            if info.name <= previous:
                raise OutOfOrder
            previous = info.name
        yield from (info for info in page if info.name > after)
        last = previous


def start_before(prefix: str, after: str) -> str:
    """Where to let the server start so that nothing behind ``after`` is missed in either order.

    The orders differ for names that go on with ``/`` where ``after`` goes on with a character below it, so the
    start is cut before the first of those behind the prefix. SeaweedFS leaves out what is in a directory when the
    start is its name, so it is put a little before. What comes back too much is passed over.
    """
    if not after.startswith(prefix):
        return ""
    cut = _BEFORE_SLASH.search(after, len(prefix))
    start = (after if cut is None else after[: cut.start()]).rstrip("/")
    if len(start) <= len(prefix):
        return ""
    return start[:-1] + chr(ord(start[-1]) - 1) + "~"
