"""An HTTP proxy in front of an S3 server that spoils chosen requests, as networks and servers do.

    with S3Proxy(endpoint) as proxy:
        proxy.spoil("PUT", "partNumber=2", Spoil("status", code="SlowDown", status=503))

The first Spoil whose method and part of the URL match acts once (``times`` more if given) and is gone.
"""

from __future__ import annotations

import http.client
import socket
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar, Literal, Self
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Spoil:
    """What to do with a request.

    status  answer with this status and S3 error code; the request is not handed on
    drop    close the connection; the request is not handed on
    lost    hand the request on and close the connection instead of answering
    cut     hand the request on, answer with its headers and the first ``keep`` bytes, close the connection
    """

    kind: Literal["status", "drop", "lost", "cut"]
    status: int = 503
    code: str = "SlowDown"
    keep: int = 0


class S3Proxy:
    """``endpoint`` of the proxy; ``seen`` holds (method, path with query) of all requests."""

    def __init__(self, upstream: str) -> None:
        self._rules: list[tuple[str, str, Spoil]] = []
        self._lock = threading.Lock()
        self.seen: list[tuple[str, str]] = []
        proxy = self

        class Handler(_Handler):
            owner = proxy
            upstream_address = urlsplit(upstream).netloc

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def spoil(self, method: str, part: str, spoil: Spoil, *, times: int = 1) -> None:
        self._rules.extend([(method, part, spoil)] * times)

    def unused(self) -> int:
        """How many Spoils still wait for their request."""
        return len(self._rules)

    def count(self, method: str, part: str) -> int:
        return sum(1 for seen_method, path in self.seen if seen_method == method and part in path)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def choose(self, method: str, path: str) -> Spoil | None:
        with self._lock:
            self.seen.append((method, path))
            for number, (rule_method, part, spoil) in enumerate(self._rules):
                if rule_method == method and part in path:
                    del self._rules[number]
                    return spoil
        return None


class _Handler(BaseHTTPRequestHandler):
    owner: ClassVar[S3Proxy]
    upstream_address: ClassVar[str]
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def handle_request(self) -> None:
        spoil = self.owner.choose(self.command, self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if spoil is not None and spoil.kind == "drop":
            return self._hang_up()
        if spoil is not None and spoil.kind == "status":
            return self._refuse(spoil)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in ("expect", "connection")}
        upstream = http.client.HTTPConnection(self.upstream_address, timeout=30)
        upstream.request(self.command, self.path, body=body, headers=headers)
        answer = upstream.getresponse()
        content = answer.read()
        upstream.close()
        if spoil is not None and spoil.kind == "lost":
            return self._hang_up()
        self.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        length = answer.getheader("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        if spoil is not None and spoil.kind == "cut":
            self.wfile.write(content[: spoil.keep])
            return self._hang_up()
        self.wfile.write(content)
        return None

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_request  # noqa: N815

    def _refuse(self, spoil: Spoil) -> None:
        content = f"<Error><Code>{spoil.code}</Code><Message>scripted</Message></Error>".encode()
        self.send_response(spoil.status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/xml")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)
