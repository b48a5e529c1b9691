"""Files and folders that are there whole or not at all, and a disk that cannot be written in one sentence.

Everything is written under a temporary name beside its target and renamed when
it is complete, so a killed run leaves nothing that looks finished.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ecgstudy.errors import StudyError

PARTIAL = ".partial"
"""Ending of a temporary name; what carries it may be deleted when nobody is writing it."""
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


@contextmanager
def naming_disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full disk, or a refusal to write in `folder`, inside the block into a sentence that names `folder`.

    Other failures pass, such as a file elsewhere that may not be read.

    Raises
    ------
    StudyError
        The disk that holds `folder` is full, or `folder` cannot be written.
    """
    try:
        yield
    except OSError as failed:
        if failed.errno in _REFUSED and _is_about(failed, folder):
            raise StudyError(
                f"{failed.filename} cannot be written ({failed.strerror}); make it writable, or set ECGSTUDY_CACHE and "
                "ECGSTUDY_RESULTS to folders that are, and run the same command again."
            ) from failed
        if failed.errno not in _NO_SPACE:
            raise
        raise StudyError(
            f"No space is left on the disk that holds {folder}; free some, or set ECGSTUDY_CACHE and "
            "ECGSTUDY_RESULTS to folders on a larger disk, and run the same command again."
        ) from failed


def _is_about(failed: OSError, folder: Path) -> bool:
    """Whether the file that the system complains of is `folder`, in it or above it."""
    file = Path(failed.filename or "")
    return file.is_relative_to(folder) or folder.is_relative_to(file)


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Write a file under a temporary name; it takes the name `path` when the block ends well.

    Its folder is made where it is missing.

    Yields
    ------
    pathlib.Path
        The file to write: beside `path`, with its suffix.

    Raises
    ------
    StudyError
        No space is left, or the folder cannot be written.
    """
    # the process id keeps two runs that write the same file out of each other's way
    partial = path.with_name(f".{path.stem}.{os.getpid()}{PARTIAL}{path.suffix}")
    with naming_disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all, see :func:`new_file`."""
    with new_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Fill a folder under a temporary name; it takes the name `path` when the block ends well.

    Whatever was left under either name is deleted first, so only one process
    may do this at a time (callers hold a lock).

    Yields
    ------
    pathlib.Path
        The folder to write in: ``<path>.partial``.

    Raises
    ------
    StudyError
        No space is left, or the folder cannot be written; nothing remains of it then.
    """
    partial = path.with_name(path.name + PARTIAL)
    with naming_disk_errors(path.parent):
        _remove(partial)
        partial.mkdir(parents=True)
        try:
            yield partial
            _remove(path)
            partial.replace(path)
        finally:
            _remove(partial)


def _remove(folder: Path) -> None:
    """Delete a folder and everything below it, if it is there."""
    if folder.exists():
        shutil.rmtree(folder)
