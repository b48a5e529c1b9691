"""Download the public cohorts from PhysioNet: a pinned version, every file checked against its published SHA-256.

A file takes its name once its checksum is right (pooch), and a cohort's folder takes its own when it is complete. An
interrupted download goes on with the files that are still missing.
"""

import errno
import logging
import os
import re
import shutil
import sys
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from urllib.parse import quote, urljoin, urlsplit

import pooch
import requests
import urllib3
from filelock import FileLock, Timeout

from ecgstudy.errors import StudyError
from ecgstudy.study.cache import PARTIAL, file_digest
from ecgstudy.study.config import data_root
from ecgstudy.study.parallel import progress

PHYSIONET = "https://physionet.org/files"
PUBLISHER = (PHYSIONET, "https://physionet-open.s3.amazonaws.com")
"""Addresses that are the publisher's own."""
HOSTS = tuple(urlsplit(address).hostname for address in PUBLISHER)
"""A server may send on to no other."""
MIRROR_VARIABLE = "ECGSTUDY_MIRROR"
"""Environment variable: address of a copy of PhysioNet's ``files`` folder, such as a hospital's mirror
or the publisher's own bucket, https://physionet-open.s3.amazonaws.com, which is faster for PTB-XL."""
INDEX = "SHA256SUMS.txt"
TIMEOUT_S = 30.0
"""Seconds of silence after which a connection counts as lost, and after which it is held to its speed."""
LEAST_SPEED = 1_000
"""Bytes per second of a connection that is worth waiting for."""
MOST_BYTES = 50_000_000
"""More than any file of the study has: PTB-XL's list of checksums has 8 MB."""
ATTEMPTS = 5
"""Connections tried for one file, after pauses of 1, 2, 4... times `BACKOFF_S` seconds."""
BACKOFF_S = 1.0
THREADS = 8
"""Files downloaded side by side; PhysioNet slows down or drops clients that open many more."""
GIVE_UP_AFTER = 10
"""Bad files: a mirror this wrong will not get better."""
KEPT = "what is downloaded is kept"
_INDEX_LINE = re.compile(r"([0-9a-fA-F]{64}) [ *]?(\S.*)")
_WRONG = "does not match the publisher's checksum, also when downloaded again"
_TROUBLES = {
    requests.exceptions.SSLError: "the server's certificate is not accepted",
    (requests.Timeout, urllib3.exceptions.TimeoutError): "the server does not answer, or too slowly",
    (requests.RequestException, urllib3.exceptions.HTTPError): "the connection failed or broke off",
    ValueError: _WRONG,  # pooch's
}


@dataclass(frozen=True)
class Source:
    """Where a cohort is published and which of its files the study reads."""

    folder: str  # name below the data folder
    project: str  # PhysioNet's name, part of the address as the version is
    version: str
    index_sha256: str | None  # of the publisher's SHA256SUMS.txt; None is believed from the PUBLISHER itself alone
    min_files: int  # needed files that the version is known to have, so that a list cut short is noticed
    # Web pages, pictures and LICENSE.txt are left out (LUDB's licence file does not match LUDB's own SHA256SUMS.txt).
    needed: str  # patterns, as the next
    optional: str = ""  # files that only a full download brings


_ECGID = "c73c46a718cd3741f96b085fcfe2d123a16817dc5d73b72d27daa4c1505b8602"
_LUDB = "cccef1f3529519db8f26a333c97a6872a7d0e3e5c64a1448b76b161fd87fb75f"
_MITDB = "b61158a96d5f2ca80edfb354a9a66a6324836c390a84e1966dcee2b907d6be43"
_PTBXL = "b7224b92b341511ec3ceb13dc6652079b2c36a06504bcb49506f157f51dc695d"
_PTBXL_100 = "ptbxl_database.csv scp_statements.csv RECORDS records100/*"
_NSRDB_RECORD = "1[6-9]???.hea 1[6-9]???.dat 1[6-9]???.atr"  # not the older copies that the list names (.hea-)
_PTB_RECORD = "patient???/*.hea patient???/*.dat patient???/*.xyz"
SOURCES = {
    "ecgid": Source("ecgiddb", "ecgiddb", "1.0.0", _ECGID, 933, "Person_*/* RECORDS README ANNOTATORS"),
    "ludb": Source("ludb", "ludb", "1.0.1", _LUDB, 2804, "data/* ludb.csv RECORDS README ANNOTATORS"),
    "mitdb": Source("mitdb", "mitdb", "1.0.0", _MITDB, 146, "[12]??.hea [12]??.dat [12]??.atr RECORDS ANNOTATORS"),
    # three files a record; nobody could yet read the lists of these two to pin them
    "nsrdb": Source("nsrdb", "nsrdb", "1.0.0", None, 3 * 18 + 1, f"{_NSRDB_RECORD} RECORDS ANNOTATORS"),
    "ptb": Source("ptbdb", "ptbdb", "1.0.0", None, 3 * 549 + 1, f"{_PTB_RECORD} RECORDS"),
    # two tables, header and samples of each record
    "ptbxl": Source("ptbxl", "ptb-xl", "1.0.3", _PTBXL, 2 + 2 * 21_799, _PTBXL_100, optional="records500/*"),
}


class _BadFileError(Exception):
    """The server does not have this file, or not the right one; the text completes "<address> ..."."""


def fetch(name: str, full: bool = False) -> Path:
    """Download a cohort into the data folder, or complete or repair the copy that is there; say where it is.

    Parameters
    ----------
    name : str
        Key of :data:`SOURCES`.
    full : bool
        Bring the optional files too (ptbxl: the 500 Hz records).

    Returns
    -------
    Path
        The cohort's folder, in which every file of the study is verified; a :class:`StudyError` says why it is not,
        and what is downloaded by then is kept for the next call.
    """
    if name not in SOURCES:
        raise StudyError(f"There is no download for a cohort named {name!r}; choose one of {', '.join(SOURCES)}.")
    source = SOURCES[name]
    base = (os.environ.get(MIRROR_VARIABLE) or PHYSIONET).rstrip("/")
    if not base.startswith(("https://", "http://")):
        raise StudyError(f"{base} is no address to download from; set {MIRROR_VARIABLE} to one that starts with https.")
    if source.index_sha256 is None and base not in PUBLISHER:
        raise StudyError(
            f"The publisher's list of checksums of {name} is not pinned in this version of ecgstudy, so no mirror can "
            f"be checked; unset {MIRROR_VARIABLE}, or set it to {PUBLISHER[1]}."
        )
    folder = data_root() / source.folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # the system frees the lock when the process dies, however it dies
        with FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0):
            _Download(name, base).bring_cohort(full)
    except Timeout:
        raise StudyError(f"{folder} is being downloaded by another process; wait until it ends.") from None
    except KeyboardInterrupt:
        raise StudyError(f"The download of {name} was stopped; run the same command to continue it, {KEPT}.") from None
    except OSError as failed:
        what = f"{failed.filename or folder} cannot be used ({failed.strerror or failed}); make it writable,"
        where = "another folder"
        if failed.errno in (errno.ENOSPC, errno.EDQUOT):
            what = (
                f"No space is left on the disk that holds {folder}; free some and run the same command again ({KEPT}),"
            )
            where = "a folder on a larger disk"
        raise StudyError(f"{what} or set ECGSTUDY_DATA to {where}.") from failed
    believed = "" if source.index_sha256 else f" (its list, from {base}, is not pinned: {file_digest(folder / INDEX)})"
    print(f"{name} {source.version}: every file matches the publisher's checksum{believed}; the files are in {folder}")
    return folder


def parse_index(text: bytes, origin: str) -> dict[str, str]:
    """Read a publisher's list of checksums: path (relative, with ``/``) to lower-case SHA-256.

    A :class:`StudyError` names `origin`, its address, where it is something else (an error page) or names a path
    that leads out of its folder.
    """
    checksums: dict[str, str] = {}
    # a byte that is not UTF-8 becomes a character that no path or checksum may hold, and is refused below
    for number, line in enumerate(text.decode(errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        match = _INDEX_LINE.fullmatch(line)
        if match is None:
            raise StudyError(
                f"{origin} is not a list of SHA-256 checksums (line {number}); check the address, "
                f"which {MIRROR_VARIABLE} sets, and whether a proxy answers in its place."
            )
        sha256, path = match[1].lower(), match[2]
        # plain and relative on every system: no drive, no backslash, no ".."
        plain = path.isprintable() and not set(path) & set("\\:\N{REPLACEMENT CHARACTER}")
        if not plain or any(part in ("", ".", "..") for part in path.split("/")):
            raise StudyError(
                f"{origin} names a file outside the cohort's folder ({path!r}); "
                "nothing was downloaded, do not trust this server."
            )
        if checksums.setdefault(path, sha256) != sha256:
            raise StudyError(f"{origin} gives two checksums for {path}; download from another mirror.")
    return checksums


class _Download:
    """What brings one version of one cohort: connections that stay open and end when `stop` is set."""

    def __init__(self, name: str, base: str) -> None:
        source = SOURCES[name]
        self._name, self._source, self._address = name, source, f"{base}/{source.project}/{source.version}"
        self.folder = data_root() / source.folder
        self.staging = self.folder.with_name(source.folder + PARTIAL)
        self.stop = threading.Event()
        self._replies: set[requests.Response] = set()  # that are being read
        self._session = _Session()
        self._session.mount(base, requests.adapters.HTTPAdapter(pool_maxsize=THREADS))
        pooch.get_logger().setLevel(logging.WARNING)  # no line a file

    def bring_cohort(self, full: bool) -> None:
        """Collect what is missing beside the cohort's folder, then put it in place."""
        for left in self.staging.rglob("tmp*"):  # pooch's, of a run that was killed
            left.unlink()
        checksums = self.checksums(full)
        bad: dict[str, str] = {}
        pool = ThreadPoolExecutor(THREADS)
        try:
            futures = {pool.submit(self.bring, path, sha256): path for path, sha256 in checksums.items()}
            for future in progress(as_completed(futures), total=len(futures), desc=self._name):
                try:
                    future.result()
                except _BadFileError as failed:  # does not keep the other files from coming
                    bad[futures[future]] = str(failed)
                if len(bad) == GIVE_UP_AFTER:
                    break
        finally:
            # also on Ctrl-C and on a full disk: nobody waits for what is still to come
            self.stop.set()
            for reply in list(self._replies):
                with suppress(ValueError, RuntimeError):  # which has ended meanwhile
                    reply.raw.shutdown()
            pool.shutdown(wait=not isinstance(sys.exception(), KeyboardInterrupt), cancel_futures=True)
        if bad:
            others = f" ({len(bad)} bad files in all)" if len(bad) > 1 else ""
            raise StudyError(
                f"{self._url(min(bad))} {bad[min(bad)]}{others}; run the same command again or set {MIRROR_VARIABLE} "
                f"to another copy of PhysioNet's files, {KEPT}."
            )
        # a new cohort takes its name when it is whole, so that half of one is never taken for the cohort
        if not self.folder.is_dir() or not any(self.folder.iterdir()):
            self.staging.replace(self.folder)
            return
        for path in (INDEX, *checksums):
            if (self.staging / path).is_file():
                (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
                (self.staging / path).replace(self.folder / path)
        shutil.rmtree(self.staging, ignore_errors=True)

    def checksums(self, full: bool) -> dict[str, str]:
        """Bring the publisher's list; path and SHA-256 of the files that the study reads, if the list can be whole."""
        source, fresh = self._source, self.staging / INDEX
        version = f"{source.project} {source.version}"
        try:
            self.bring(INDEX, source.index_sha256)
        except _BadFileError as bad:
            raise StudyError(
                f"{self._url(INDEX)} {bad}, so no file of {version} can be checked; check the address, which "
                f"{MIRROR_VARIABLE} sets, or update ecgstudy if the publisher changed the list."
            ) from bad
        index = fresh if fresh.is_file() else self.folder / INDEX
        listed = parse_index(index.read_bytes(), self._url(INDEX))
        needed, optional = (
            {path: sha256 for path, sha256 in listed.items() if any(fnmatchcase(path, kind) for kind in kinds.split())}
            for kinds in (source.needed, source.optional)
        )
        if len(needed) < source.min_files:
            raise StudyError(
                f"{INDEX} of {version} lists {len(needed)} of at least {source.min_files} needed files, so it is not "
                f"whole; check the address, which {MIRROR_VARIABLE} sets."
            )
        return needed | optional if full else needed

    def bring(self, path: str, sha256: str | None) -> None:
        """Bring one file into `staging`, verified (unless its checksum is None), unless it is right in `folder`."""
        if (self.folder / path).is_file() and file_digest(self.folder / path) == sha256:
            return
        target, reasons = self.staging / path, []
        target.parent.mkdir(parents=True, exist_ok=True)
        if sha256 is None:
            target.unlink(missing_ok=True)  # who knows from where an earlier run had it
        for attempt in range(ATTEMPTS):
            if attempt and self.stop.wait(BACKOFF_S * 2 ** (attempt - 1)):
                raise CancelledError
            try:
                pooch.retrieve(self._url(path), sha256, target.name, target.parent, downloader=self._transfer)
                return
            except requests.HTTPError as refused:
                status = refused.response.status_code
                if status < 500 and status not in (408, 429):
                    raise _BadFileError(f"is refused by the server (status {status})") from None
                reasons.append(f"the server answers {status}")
            except (requests.RequestException, urllib3.exceptions.HTTPError, ValueError) as failed:
                reasons.append(next(text for kind, text in _TROUBLES.items() if isinstance(failed, kind)))
                if reasons.count(_WRONG) > 1:
                    raise _BadFileError(_WRONG) from None
        raise StudyError(
            f"{self._url(path)} could not be downloaded in {ATTEMPTS} attempts ({reasons[-1]}); "
            f"check the connection and run the same command again, {KEPT}."
        )

    def _url(self, path: str) -> str:
        """Address of a file."""
        return f"{self._address}/{quote(path)}"

    def _transfer(self, url: str, output_file: str, _: object) -> None:
        """Write one file, as pooch asks for it, as it comes, unless it comes too slowly or is too large."""
        reply = self._session.get(url, stream=True, timeout=TIMEOUT_S, headers={"Accept-Encoding": "identity"})
        began, size = time.monotonic(), 0
        self._replies.add(reply)
        try:
            with reply, Path(output_file).open("wb") as file:
                reply.raise_for_status()
                while chunk := reply.raw.read1(1 << 16, decode_content=False):
                    size, seconds = size + file.write(chunk), time.monotonic() - began
                    if self.stop.is_set():
                        raise CancelledError
                    if size > MOST_BYTES:
                        raise _BadFileError("is larger than any file of the study")
                    if seconds > TIMEOUT_S and size < seconds * LEAST_SPEED:
                        raise requests.Timeout
        finally:
            self._replies.discard(reply)


class _Session(requests.Session):
    """Connections that are sent on to the publisher's hosts only, and never from https to http."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """Address that a reply sends on to, refused where it is none of the publisher's."""
        target = super().get_redirect_target(resp)
        if target is not None:
            here, there = urlsplit(resp.url), urlsplit(urljoin(resp.url, target))
            if there.hostname not in (here.hostname, *HOSTS) or there.scheme not in ("https", here.scheme):
                raise _BadFileError(f"is sent on to {there.scheme}://{there.hostname}, which is not to be trusted")
        return target
