"""Bring one file whole or not at all, over connections that may break.

Checksums are pooch's. Its downloader, the usual choice, starts a broken file
again from its first byte, opens a new connection for each of PTB-XL's 43,600
files, and leaves randomly named files behind when it is killed. So the transfer
is a thin layer over requests, which keeps connections open and takes proxies
and certificates from the environment.
"""

import threading
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pooch
import requests

from ecgstudy.errors import StudyError
from ecgstudy.study.cache import PARTIAL

KEPT = "what is downloaded is kept"
_CHUNK_BYTES = 1 << 14  # what is lost of a file when its connection breaks off


@dataclass(frozen=True)
class Patience:
    """How long a download waits and how hard it tries.

    Attributes
    ----------
    timeout_s : float
        Seconds of silence after which a connection counts as lost.
    attempts : int
        Connections tried for one file.
    backoff_s : float
        Pause in seconds before the second attempt; it doubles before each further one.
    threads : int
        Files downloaded side by side. PhysioNet slows down or drops clients that open many more than eight.
    """

    timeout_s: float = 30.0
    attempts: int = 5
    backoff_s: float = 1.0
    threads: int = 8


class BadFileError(Exception):
    """The server does not have this file, or not the right one; the text completes "<address> ..."."""


class _LostConnectionError(Exception):
    """One attempt failed; another may succeed."""


class _StoppedError(Exception):
    """The download was stopped from outside this thread."""


class Download:
    """The connections to one version of one cohort; safe to use from several threads.

    Parameters
    ----------
    base : str
        Address of the version's folder.
    patience : Patience
        Time-outs and retries.
    """

    def __init__(self, base: str, patience: Patience) -> None:
        self._base = base
        self.patience = patience
        self.stop = threading.Event()
        self._local = threading.local()
        self._sessions: list[requests.Session] = []

    def __enter__(self) -> "Download":
        return self

    def __exit__(self, *_: object) -> None:
        for session in self._sessions:
            session.close()

    def url(self, path: str) -> str:
        """Address of a file."""
        return f"{self._base}/{quote(path)}"

    def file(self, path: str, target: Path, sha256: str) -> None:
        """Bring one file: verified under its final name, or not there at all."""
        if _matches(target, sha256):
            return
        partial = target.with_name(target.name + PARTIAL)
        # twice, because the first time may have continued a file that was broken before
        for _ in range(2):
            if not _matches(partial, sha256):
                self._complete(path, partial)
            if _matches(partial, sha256):
                partial.replace(target)
                return
            partial.unlink()
        raise BadFileError("does not match the publisher's checksum, also when downloaded again")

    def fresh(self, path: str, target: Path) -> Path:
        """Bring one file whose checksum is unknown; returns its temporary name."""
        partial = target.with_name(target.name + PARTIAL)
        partial.unlink(missing_ok=True)  # nothing could tell whether an old beginning fits
        self._complete(path, partial)
        return partial

    def _complete(self, path: str, partial: Path) -> None:
        """Download to the end, in as many attempts as patience allows."""
        partial.parent.mkdir(parents=True, exist_ok=True)
        reason = ""
        for attempt in range(self.patience.attempts):
            if attempt and self.stop.wait(self.patience.backoff_s * 2 ** (attempt - 1)):
                raise _StoppedError
            try:
                return self._transfer(path, partial)
            except (_LostConnectionError, requests.RequestException) as lost:
                reason = _reason(lost)
        raise StudyError(
            f"{self.url(path)} could not be downloaded in {self.patience.attempts} attempts ({reason}); "
            f"check the connection and run the same command again, {KEPT}."
        )

    def _transfer(self, path: str, partial: Path) -> None:
        """One attempt: continue the temporary file, or start it again where the server cannot continue."""
        have = partial.stat().st_size if partial.is_file() else 0
        headers = {"Range": f"bytes={have}-"} if have else {}
        with self._session().get(
            self.url(path), headers=headers, stream=True, timeout=self.patience.timeout_s
        ) as reply:
            status = reply.status_code
            continues = status == 206 and reply.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            if have and (status == 416 or (status == 206 and not continues)):
                partial.unlink()
                return self._transfer(path, partial)
            if status >= 500 or status in (408, 429):
                raise _LostConnectionError(f"the server answers {status}")
            if status not in (200, 206):
                raise BadFileError(f"is refused by the server (status {status})")
            self._write(reply, partial, append=have > 0 and continues)

    def _write(self, reply: requests.Response, partial: Path, append: bool) -> None:
        """Write an answer's body; what arrived before a failure stays for the next attempt."""
        with partial.open("ab" if append else "wb") as file:
            for chunk in reply.iter_content(_CHUNK_BYTES):
                if self.stop.is_set():
                    raise _StoppedError
                file.write(chunk)

    def _session(self) -> requests.Session:
        """Give each thread connections of its own: requests does not promise that threads may share them."""
        if not hasattr(self._local, "session"):
            self._local.session = requests.Session()
            # a compressed answer could not be continued: byte ranges count the compressed bytes
            self._local.session.headers["Accept-Encoding"] = "identity"
            self._sessions.append(self._local.session)
        return self._local.session


def _matches(path: Path, sha256: str) -> bool:
    """Whether the file is there with this checksum."""
    return path.is_file() and pooch.file_hash(path, alg="sha256") == sha256


def _reason(lost: Exception) -> str:
    """Say in a few words what went wrong with a connection."""
    if isinstance(lost, _LostConnectionError):
        return str(lost)
    if isinstance(lost, requests.exceptions.SSLError):
        return "the server's certificate is not accepted"
    if isinstance(lost, requests.Timeout):
        return "the server does not answer"
    return "the connection failed or broke off"
