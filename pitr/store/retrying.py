"""The one place that decides on retries. Drivers say which errors are transient."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from pitr.core.errors import ObjectExists, StoreError
from pitr.core.files import Buffer
from pitr.store.base import ObjectInfo, ObjectStore, StoreCaps


def _random_share() -> float:
    import random

    return random.random()


class RetryPolicy(NamedTuple):
    """Delays double from base_delay_s to max_delay_s, each cut by a random share of up to one half. A failure is final
    after ``attempts`` in a row, or when the next delay would go past deadline_s since the first of them.
    """

    deadline_s: float = 300.0
    attempts: int = 100
    base_delay_s: float = 0.25
    max_delay_s: float = 20.0
    sleep: Callable[[float], None] = time.sleep
    monotonic: Callable[[], float] = time.monotonic
    jitter: Callable[[], float] = _random_share


class _Streak:
    """Failures in a row of one operation."""

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        self.failures = 0
        self._since = 0.0

    def progress(self) -> None:
        self.failures = 0

    def failed(self, error: StoreError) -> None:
        """Wait for the next attempt, or raise the error when there is none."""
        policy = self._policy
        if not error.transient:
            raise error
        now = policy.monotonic()
        if self.failures == 0:
            self._since = now
        self.failures += 1
        delay = min(policy.base_delay_s * 2.0 ** min(self.failures - 1, 30), policy.max_delay_s)
        delay *= 1 - policy.jitter() / 2
        if self.failures >= policy.attempts or now - self._since + delay > policy.deadline_s:
            raise error
        policy.sleep(delay)


class _WatchedBody:
    """Hands on a body and notes whether any of it was taken, and whether it failed by itself."""

    def __init__(self, body: Iterable[Buffer]) -> None:
        self._body = body
        self.taken = False
        self.failed = False

    def __iter__(self) -> Iterator[Buffer]:
        self.taken = True
        try:
            yield from self._body
        except GeneratorExit:
            raise
        except BaseException:
            self.failed = True
            raise


class Retrying:
    """Repeats what failed transiently.

    put     when the body can be iterated again (a list), or nothing was taken of it yet; an error of the body itself
            passes at once. With if_absent, an attempt whose answer was lost meets its own object: a body that can be
            iterated again is compared with it, and equal content is success. Where it matters whose put won (leases),
            content names its writer.
    get     goes on at the byte reached, list behind the last name. Progress starts a new streak of attempts.
    """

    def __init__(self, store: ObjectStore, policy: RetryPolicy | None = None) -> None:
        self._store = store
        self._policy = policy or RetryPolicy()

    @property
    def caps(self) -> StoreCaps:
        return self._store.caps

    @property
    def url(self) -> str:
        return self._store.url

    def put(self, name: str, body: Iterable[Buffer], *, if_absent: bool = False) -> ObjectInfo:
        streak = _Streak(self._policy)
        again = iter(body) is not body
        while True:
            watched = _WatchedBody(body)
            try:
                # what comes once is handed on as such, so that a driver that holds on to it sends it again by itself
                return self._store.put(name, watched if again else iter(watched), if_absent=if_absent)
            except ObjectExists:
                if streak.failures and again and self._is_stored(name, body):
                    return self.stat(name)
                raise
            except StoreError as error:
                if watched.failed or (watched.taken and not again):
                    raise
                streak.failed(error)

    def get(self, name: str, *, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
        streak = _Streak(self._policy)
        done = 0
        while True:
            left = None if length is None else length - done
            chunks = self._store.get(name, offset=offset + done, length=left)
            try:
                for chunk in chunks:
                    streak.progress()
                    done += len(chunk)
                    yield chunk
            except StoreError as error:
                streak.failed(error)
                if done and done == length:
                    return
            else:
                return

    def stat(self, name: str) -> ObjectInfo:
        streak = _Streak(self._policy)
        while True:
            try:
                return self._store.stat(name)
            except StoreError as error:
                streak.failed(error)

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        """Begins again and passes over what was yielded. Asking for what is behind the last name would be cheaper, but
        hides from the driver that a server lists in another order (s3_list), and then names could be missed."""
        streak = _Streak(self._policy)
        last = after
        while True:
            try:
                for info in self._store.list(prefix, after=after):
                    if info.name > last:
                        streak.progress()
                        last = info.name
                        yield info
            except StoreError as error:
                streak.failed(error)
            else:
                return

    def delete(self, names: Iterable[str]) -> None:
        kept = [*names]
        streak = _Streak(self._policy)
        while True:
            try:
                return self._store.delete(kept)
            except StoreError as error:
                streak.failed(error)

    def close(self) -> None:
        self._store.close()

    def _is_stored(self, name: str, body: Iterable[Buffer]) -> bool:
        content = memoryview(b"".join(body))
        if self.stat(name).size_bytes != len(content):
            return False
        position = 0
        for chunk in self.get(name):
            if content[position : position + len(chunk)] != chunk:
                return False
            position += len(chunk)
        return position == len(content)
