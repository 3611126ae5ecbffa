"""One timeline of the server's WAL, as far as it is sent: taken apart into segments and handed to the uploader."""

from __future__ import annotations

import time
from typing import Protocol

from pitr.archive.uploader import Uploader
from pitr.core.errors import IntegrityError, ServerUnreachable
from pitr.pg.lsn import Lsn
from pitr.pg.replication import Keepalive, NextTimeline, ReplicationConnection, StreamEnded, WalData
from pitr.pg.segments import SegmentName
from pitr.pg.timelines import History

_STATUS_S = 10.0
_STALLED_STATUS_S = 1.0
_PING_S = 20.0
_SILENCE_S = 60.0
_BATCH = 64


class Owner(Protocol):
    """Who streams: told what has arrived, and asked whether to go on (``check`` raises when not)."""

    def received(self, position: Lsn) -> None: ...
    def check(self) -> None: ...
    @property
    def until(self) -> Lsn | None: ...


class TimelineStream:
    """One timeline, as far as the server sends it."""

    def __init__(
        self,
        owner: Owner,
        stream: ReplicationConnection,
        uploader: Uploader,
        history: History,
        timeline: int,
        position: Lsn,
        segment_size: int,
    ) -> None:
        self._owner = owner
        self._stream = stream
        self._uploader = uploader
        self._history = history
        self._position = position
        self._segment = SegmentName.containing(timeline, position, segment_size)
        self._data = memoryview(bytearray(self._segment.size_bytes))
        self._any = False
        self._reported = Lsn(0)
        self._status_at = time.monotonic()
        self._heard_at = self._status_at

    def run(self) -> NextTimeline | None:
        """The timeline that follows; None when the server ended the stream for good."""
        while True:
            self._owner.check()
            room = self._uploader.has_room
            self._stream.wait(self._uploader.wake_fd, 0.5 if room else 0.2, read=room)
            self._uploader.drain_wake()
            if room and self._take():
                break
            self._tell(room)
        if self._position > self._segment.start:
            self._uploader.finish(self._segment, self._data, self._position, self._history)
        return self._stream.end_stream()

    def _take(self) -> bool:
        """What has arrived, a bounded share of it. Whether the stream ended."""
        before, asked = self._position, False
        try:
            for _ in range(_BATCH):
                message = self._stream.receive()
                if message is None:
                    break
                self._heard_at = time.monotonic()
                if isinstance(message, StreamEnded):
                    return True
                if isinstance(message, Keepalive):
                    # A server that shuts down asks so, and waits until all is flushed (WalSndDone).
                    asked = asked or message.reply_requested
                else:
                    self._add(message)
        finally:  # a server that is lost right behind this WAL may never send it again
            self._hand_over(before, asked)
        if asked:
            self._send()
        return False

    def _hand_over(self, before: Lsn, asked: bool) -> None:
        if self._position > before:
            self._owner.received(self._position)
        if self._position > self._segment.start and (self._position > before or asked):
            until = self._owner.until
            urgent = asked or (until is not None and self._position >= until)
            self._uploader.offer(self._segment, self._data, self._position, self._history, urgent=urgent)

    def _add(self, message: WalData) -> None:
        if message.start != self._position:
            raise IntegrityError(
                "the server sent WAL from another position than asked for",
                detail=f"{message.start}, expected {self._position}",
            )
        data, self._any = message.data, True
        while data:
            offset = self._position - self._segment.start
            piece = data[: self._segment.size_bytes - offset]
            self._data[offset : offset + len(piece)] = piece
            self._position += len(piece)
            data = data[len(piece) :]
            if self._position == self._segment.end:
                self._uploader.finish(self._segment, self._data, self._position, self._history)
                self._segment = self._segment.next()
                self._data = memoryview(bytearray(self._segment.size_bytes))

    def _tell(self, room: bool) -> None:
        now = time.monotonic()
        if now - self._heard_at > _SILENCE_S and room:
            raise ServerUnreachable("the server has been silent for a minute", detail="the connection is given up")
        if self._uploader.durable > self._reported and self._any:
            self._send()
        elif now - self._status_at >= (_STATUS_S if room else _STALLED_STATUS_S):
            self._send(ping=now - self._heard_at > _PING_S)

    def _send(self, *, ping: bool = False) -> None:
        """Before WAL has arrived nothing is said of what is flushed: the slot would move back to where we asked from,
        and the server may not have that any more."""
        durable = self._uploader.durable if self._any else Lsn(0)
        self._stream.send_status(self._position, durable, ping=ping)
        self._reported, self._status_at = durable, time.monotonic()
