"""A loopback server with PhysioNet's layout that can misbehave on purpose: every fault is planned by path."""

import hashlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import unquote

Fault = Literal["truncate", "drop", "corrupt", "stall", "trickle"] | str | int
"""truncate: the first half, announced as the whole. drop: the first half, then the connection closes.
corrupt: one bit is wrong. stall: the first half, then silence. trickle: a byte now and then. An address: it is there.
A number: that status and an error page."""


class DataServer(ThreadingHTTPServer):
    """Serves files from memory on 127.0.0.1; use it in a ``with`` block."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, Iterator[Fault]] = {}  # by path, one a request; when used up it is served properly
        self.asked: list[str] = []  # path of each request, in the order of their arrival
        self.stalled, self.released = threading.Event(), threading.Event()
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
        fault = next(self.server.faults.get(path, iter(())), None)
        self.server.asked.append(path)
        status, body = 200, self.server.files.get(path)
        if body is None or isinstance(fault, int):
            status, body = fault or 404, b"<html>trouble</html>"
        elsewhere = str(fault).startswith("http")
        if elsewhere:
            status, body = 302, b""
        if fault == "corrupt":
            body = body[:-1] + bytes([body[-1] ^ 1])
        sent = body[: len(body) // 2] if fault in ("drop", "stall", "truncate") else body
        sent = b"" if fault == "trickle" else sent
        self.send_response(status)
        if elsewhere:
            self.send_header("Location", fault)
        self.send_header("Content-Length", str(len(sent if fault == "truncate" else body)))
        self.end_headers()
        self.wfile.write(sent)
        if fault == "stall":
            self.server.stalled.set()
            self.server.released.wait(10)
        if fault == "trickle":
            for at in range(len(body)):
                self.wfile.write(body[at : at + 1])
                if self.server.released.wait(0.02):
                    break
        self.close_connection = fault in ("drop", "stall", "trickle")

    def handle(self) -> None:
        """Serve until the client leaves, which it may do in the middle of an answer."""
        with suppress(ConnectionError):
            super().handle()

    def log_message(self, *_: object) -> None:
        """Keep the test's output quiet."""
