"""Download the public cohorts from PhysioNet: a pinned version, every file checked against its published SHA-256.

A file is written under a temporary name and renamed once its checksum is right,
and a cohort's folder appears under its own name only when it is complete. An
interrupted download continues where it stopped.
"""

import errno
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from ecgstudy.data.fetch.checksums import INDEX, parse_index, wanted
from ecgstudy.data.fetch.connection import KEPT, BadFileError, Download, Patience
from ecgstudy.data.fetch.sources import MIRROR_VARIABLE, PHYSIONET, SOURCES, Source
from ecgstudy.errors import StudyError
from ecgstudy.study.cache import PARTIAL
from ecgstudy.study.config import data_root
from ecgstudy.study.parallel import progress

__all__ = ["MIRROR_VARIABLE", "SOURCES", "Patience", "fetch", "fetch_and_report"]
_PATIENCE = Patience()
_GIVE_UP_AFTER = 10  # bad files: a mirror this wrong will not get better


def fetch(
    name: str,
    destination: Path | None = None,
    base_url: str | None = None,
    full: bool = False,
    patience: Patience = _PATIENCE,
) -> Path:
    """Download a cohort, or complete or repair the copy that is there.

    Files that already have the published checksum are not downloaded again.

    Parameters
    ----------
    name : str
        Key of :data:`SOURCES`.
    destination : Path, optional
        Folder that holds the cohorts; :func:`ecgstudy.study.config.data_root` by default.
    base_url : str, optional
        Address that stands for https://physionet.org/files; by default that of the environment variable
        ``ECGSTUDY_MIRROR``, else PhysioNet's own.
    full : bool
        Bring the optional files too (ptbxl: the 500 Hz records).
    patience : Patience
        Time-outs and retries.

    Returns
    -------
    Path
        The cohort's folder, in which every file of the study is verified.

    Raises
    ------
    StudyError
        Unknown name; another download of the same cohort is running; the server cannot be reached or its list
        of checksums cannot be trusted; files are absent or wrong on the server; the disk is full or read-only.
        What is downloaded by then is kept for the next call.
    """
    if name not in SOURCES:
        raise StudyError(f"There is no download for a cohort named {name!r}; choose one of {', '.join(SOURCES)}.")
    source = SOURCES[name]
    base = (base_url or os.environ.get(MIRROR_VARIABLE) or PHYSIONET).rstrip("/")
    if not base.startswith(("https://", "http://")):
        raise StudyError(f"{base} is no address to download from; set {MIRROR_VARIABLE} to one that starts with https.")
    root = data_root() if destination is None else destination
    folder = root / source.folder
    address = f"{base}/{source.project}/{source.version}"
    with _naming_disk_errors(folder), _sole_fetch(folder), Download(address, patience) as download:
        # a new cohort takes its name when it is whole, so that half of one is never taken for the cohort
        is_new = not folder.is_dir() or not any(folder.iterdir())
        target = folder.with_name(folder.name + PARTIAL) if is_new else folder
        checksums = wanted(source, _index(source, download, target), full)
        _fetch_files(name, checksums, download, target)
        if is_new:
            target.replace(folder)
    return folder


def fetch_and_report(name: str, full: bool = False) -> Path:
    """Run the command ``python -m ecgstudy fetch NAME``: download, then print where the files are.

    Returns
    -------
    Path
        The cohort's folder.

    Raises
    ------
    StudyError
        As :func:`fetch`; also when the user stops the download.
    """
    try:
        folder = fetch(name, full=full)
    except KeyboardInterrupt:
        raise StudyError(f"The download of {name} was stopped; run the same command to continue it, {KEPT}.") from None
    print(f"{name} {SOURCES[name].version}: every file matches the publisher's checksum; the files are in {folder}")
    return folder


def _index(source: Source, download: Download, folder: Path) -> dict[str, str]:
    """Bring the publisher's list of checksums into `folder` and read it."""
    url, target = download.url(INDEX), folder / INDEX
    try:
        if source.index_sha256 is not None:
            download.file(INDEX, target, source.index_sha256)
            return parse_index(target.read_bytes(), url)
        fresh = download.fresh(INDEX, target)
        checksums = parse_index(fresh.read_bytes(), url)
        fresh.replace(target)
        return checksums
    except BadFileError as bad:
        raise StudyError(
            f"{url} {bad}, so no file of {source.project} {source.version} can be checked; "
            f"check the address, which {MIRROR_VARIABLE} sets, or update ecgstudy if the publisher changed the list."
        ) from bad


def _fetch_files(name: str, checksums: dict[str, str], download: Download, folder: Path) -> None:
    """Download files side by side; a bad file does not keep the others from coming."""
    pool = ThreadPoolExecutor(download.patience.threads)
    bad: dict[str, str] = {}
    try:
        futures = {pool.submit(download.file, path, folder / path, sha256): path for path, sha256 in checksums.items()}
        for future in progress(as_completed(futures), total=len(futures), desc=name):
            try:
                future.result()
            except BadFileError as failed:
                bad[futures[future]] = str(failed)
            if len(bad) == _GIVE_UP_AFTER:
                break
    finally:
        # also on Ctrl-C and on a full disk: the threads end at their next chunk
        download.stop.set()
        pool.shutdown(cancel_futures=True)
    if bad:
        first = min(bad)
        others = f" ({len(bad)} bad files in all)" if len(bad) > 1 else ""
        raise StudyError(
            f"{download.url(first)} {bad[first]}{others}; run the same command again or set {MIRROR_VARIABLE} "
            f"to another copy of PhysioNet's files, {KEPT}."
        )


@contextmanager
def _sole_fetch(folder: Path) -> Iterator[None]:
    """Hold the cohort's lock; the system frees it when the process dies, however it dies."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise StudyError(f"{folder} is being downloaded by another process; wait until it ends.") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _naming_disk_errors(folder: Path) -> Iterator[None]:
    """Turn a failure to read or write files inside the block into a sentence."""
    try:
        yield
    except OSError as failed:
        if failed.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StudyError(
                f"No space is left on the disk that holds {folder}; free some and run the same command again "
                f"({KEPT}), or set ECGSTUDY_DATA to a folder on a larger disk."
            ) from failed
        raise StudyError(
            f"{failed.filename or folder} cannot be used ({failed.strerror or failed}); make it writable, "
            "or set ECGSTUDY_DATA to another folder."
        ) from failed
