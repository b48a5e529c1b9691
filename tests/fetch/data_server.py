"""A loopback server with PhysioNet's layout that can misbehave on purpose.

Every fault is planned by path, so a test knows which request fails and how.
"""

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import unquote

Fault = Literal["truncate", "drop", "corrupt", "stall", "shift"] | int
"""truncate: the first half, announced as the whole. drop: the first half, then the connection closes.
corrupt: one bit is wrong. stall: the first half, then silence. shift: a 206 that starts elsewhere.
A number: that status and an error page."""


@dataclass(frozen=True)
class Request:
    """One request as the server saw it.

    Attributes
    ----------
    path : str
        Path below the server's root, without the leading slash.
    range : str or None
        The request's Range header.
    sent : int
        Bytes of the body that were sent.
    """

    path: str
    range: str | None
    sent: int


class DataServer(ThreadingHTTPServer):
    """Serves files from memory on 127.0.0.1; use it in a ``with`` block.

    Attributes
    ----------
    files : dict of str to bytes
        Content by path.
    faults : dict of str to iterator of Fault
        Faults of a path, one a request; a path whose faults are used up is served properly.
    ranges : bool
        Whether Range headers are honoured.
    requests : list of Request
        What was asked for, in the order of their arrival.
    stalled : threading.Event
        Set when an answer has stalled.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, Iterator[Fault]] = {}
        self.ranges = True
        self.requests: list[Request] = []
        self.stalled = threading.Event()
        self.released = threading.Event()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        """Address that stands for https://physionet.org/files."""
        return f"http://127.0.0.1:{self.server_port}"

    def publish(self, folder: str, files: Mapping[str, bytes]) -> bytes:
        """Serve files below a folder with their SHA256SUMS.txt, which is returned."""
        index = b"".join(b"%s %s\n" % (sha256(content), path.encode()) for path, content in files.items())
        self.files |= {f"{folder}/{path}": content for path, content in files.items()}
        self.files[f"{folder}/SHA256SUMS.txt"] = index
        return index

    def asked(self, path: str) -> list[Request]:
        """List the requests for one path."""
        return [request for request in self.requests if request.path == path]

    def __enter__(self) -> "DataServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self.shutdown()
        self._thread.join()
        self.server_close()


def sha256(content: bytes) -> bytes:
    """SHA-256 in hexadecimal, as SHA256SUMS.txt writes it."""
    return hashlib.sha256(content).hexdigest().encode()


class _Handler(BaseHTTPRequestHandler):
    """Answers GET from the server's table of files and faults."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each small file waits 40 ms for an acknowledgement
    server: DataServer

    def do_GET(self) -> None:
        """Answer one request, recorded before its first byte leaves so that no client is ahead of the record."""
        path = unquote(self.path).removeprefix("/")
        asked_range = self.headers.get("Range")
        fault = next(self.server.faults.get(path, iter(())), None)
        status, headers, body = self._plan(path, asked_range, fault)
        self.server.requests.append(Request(path, asked_range, len(body)))
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body))} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)
        if fault == "stall":
            self.server.stalled.set()
            self.server.released.wait(10)
        if fault in ("drop", "stall"):
            self.close_connection = True

    def _plan(self, path: str, asked_range: str | None, fault: Fault | None) -> tuple[int, dict[str, str], bytes]:
        """Choose status, headers and body; a Content-Length header may promise more than the body."""
        content = self.server.files.get(path)
        if isinstance(fault, int):
            return fault, {}, b"<html>trouble</html>"
        if content is None:
            return 404, {}, b"<html>not here</html>"
        start = int(asked_range.removeprefix("bytes=").removesuffix("-")) if asked_range and self.server.ranges else 0
        if start and start >= len(content):
            return 416, {}, b""
        if fault == "shift":
            start -= 1
        status, headers, body = 200, {}, content[start:]
        if start:
            status, headers = 206, {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
        if fault == "corrupt":
            body = body[:-1] + bytes([body[-1] ^ 1])
        if fault in ("drop", "stall"):
            headers["Content-Length"] = str(len(body))
        if fault in ("drop", "stall", "truncate"):
            body = body[: len(body) // 2]
        return status, headers, body

    def handle(self) -> None:
        """Serve until the client leaves, which it may do in the middle of an answer."""
        with suppress(ConnectionError):
            super().handle()

    def log_message(self, *_: object) -> None:
        """Keep the test's output quiet."""
