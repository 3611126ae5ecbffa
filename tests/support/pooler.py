"""A transaction pooler in miniature: clients share server connections, one transaction at a time (as PgBouncer does).

It speaks just enough of the protocol: start-up is answered from the first server connection's parameters with an
invented process id, messages are relayed, and a server connection is returned whenever ReadyForQuery says "idle".
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from pathlib import Path
from typing import Literal


def _read_exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        chunk = sock.recv(count - len(data))
        if not chunk:
            raise ConnectionError
        data += chunk
    return data


def _read_message(sock: socket.socket) -> tuple[bytes, bytes]:
    head = _read_exactly(sock, 5)
    return head[:1], head + _read_exactly(sock, struct.unpack("!I", head[1:])[0] - 4)


class Pooler:
    """Listens at ``directory/.s.PGSQL.5432`` for the server behind ``server_directory``."""

    def __init__(self, directory: Path, server_directory: Path, mode: Literal["transaction", "session"]) -> None:
        self.mode = mode
        self._server_path = str(server_directory / ".s.PGSQL.5432")
        self._idle: list[socket.socket] = []
        self._lock = threading.Lock()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(directory / ".s.PGSQL.5432"))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for server in self._idle:
            server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _server(self, startup: bytes) -> tuple[socket.socket, bytes]:
        """A server connection and the ParameterStatus messages of its start-up (none when it comes from the pool)."""
        with self._lock:
            if self._idle:
                return self._idle.pop(), b""
        server = socket.socket(socket.AF_UNIX)
        server.connect(self._server_path)
        server.sendall(startup)
        parameters = b""
        while True:
            kind, message = _read_message(server)
            if kind == b"S":
                parameters += message
            if kind == b"Z":
                return server, parameters

    def _serve(self, client: socket.socket) -> None:
        server: socket.socket | None = None
        with client, contextlib.suppress(OSError):
            while True:
                length = struct.unpack("!I", _read_exactly(client, 4))[0]
                body = _read_exactly(client, length - 4)
                if struct.unpack("!I", body[:4])[0] == 196608:
                    break
                client.sendall(b"N")  # no TLS, no GSSAPI
            startup = struct.pack("!I", length) + body
            with self._lock:
                pooled, self._idle = self._idle, []
            server, parameters = self._server(startup)  # a new one, for its parameters
            with self._lock:
                self._idle += pooled
            invented = b"K" + struct.pack("!III", 12, 999_999_999, 1)
            client.sendall(b"R" + struct.pack("!II", 8, 0) + parameters + invented + b"Z" + struct.pack("!I", 5) + b"I")
            while True:
                if self.mode == "transaction" and server is not None:
                    with self._lock:
                        self._idle.append(server)
                    server = None
                kind, message = _read_message(client)
                if kind == b"X":
                    break
                if server is None:
                    server, _ = self._server(startup)
                self._relay_transaction(client, server, message)
        if server is not None:
            server.close()

    def _relay_transaction(self, client: socket.socket, server: socket.socket, message: bytes) -> None:
        server.sendall(message)
        while True:
            while message[:1] not in (b"Q", b"S"):
                _, message = _read_message(client)
                server.sendall(message)
            while message[:1] != b"Z":
                _, message = _read_message(server)
                client.sendall(message)
            if message[5:6] == b"I":
                return
            _, message = _read_message(client)
            server.sendall(message)
