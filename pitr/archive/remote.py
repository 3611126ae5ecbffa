"""The repositories of a cluster as push and fetch see them: each is opened on its own, so that one may be down."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from pitr.core.errors import ObjectNotFound, PitrError, StoreUnavailable
from pitr.repo.repository import Repository

Value = TypeVar("Value")


class Remote:
    """A repository that is opened when it is needed, once it succeeds.

    ``open`` may raise any PitrError. A ``required`` repository must have a segment before it is acknowledged.
    """

    def __init__(self, name: str, open_repository: Callable[[], Repository], *, required: bool = True) -> None:
        self.name = name
        self.required = required
        self._open = open_repository
        self._opened: Repository | None = None

    @classmethod
    def opened(cls, repository: Repository, *, required: bool = True) -> Remote:
        return cls(repository.name, lambda: repository, required=required)

    def open(self) -> Repository:
        if self._opened is None:
            try:
                self._opened = self._open()
            except ObjectNotFound as error:  # of a key slot or the like: says nothing about the object asked for
                raise StoreUnavailable(error.message, detail=error.detail, hint=error.hint) from error
        return self._opened


class Outcome(NamedTuple, Generic[Value]):
    """What became of one repository: a value or the error."""

    remote: Remote
    value: Value | None
    error: PitrError | None


def on_each(remotes: Sequence[Remote], work: Callable[[Repository], Value]) -> list[Outcome[Value]]:
    """Run work on every repository, several at the same time; a failing one does not stop the others.

    The threads are daemons: a process that is told to end does not wait for an upload (nothing was acknowledged).
    """
    outcomes: list[Outcome[Value] | None] = [None] * len(remotes)
    bugs: list[BaseException] = []

    def run(position: int, remote: Remote) -> None:
        try:
            outcomes[position] = Outcome(remote, work(remote.open()), None)
        except PitrError as error:
            outcomes[position] = Outcome(remote, None, error)
        except BaseException as error:  # noqa: BLE001 (raised again in the calling thread)
            bugs.append(error)

    threads = [
        threading.Thread(target=run, args=(position, remote), name=f"pitr-{remote.name}", daemon=True)
        for position, remote in enumerate(remotes[1:], 1)
    ]
    for thread in threads:
        thread.start()
    if remotes:
        run(0, remotes[0])
    if bugs:
        raise bugs[0]
    for thread in threads:
        thread.join()
    if bugs:
        raise bugs[0]
    return [outcome for outcome in outcomes if outcome is not None]
