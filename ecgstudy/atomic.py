"""Files and folders that are there whole or not at all, and a full disk in one sentence.

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


@contextmanager
def naming_full_disk(folder: Path) -> Iterator[None]:
    """Turn "no space left" (or a used-up quota) inside the block into a sentence that names `folder`.

    Raises
    ------
    StudyError
        The disk that holds `folder` is full.
    """
    try:
        yield
    except OSError as failed:
        if failed.errno not in _NO_SPACE:
            raise
        raise StudyError(
            f"No space is left on the disk that holds {folder}; free some, or set ECGSTUDY_CACHE and "
            "ECGSTUDY_RESULTS to folders on a larger disk, and run the same command again."
        ) from failed


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
        No space is left.
    """
    # the process id keeps two runs that write the same file out of each other's way
    partial = path.with_name(f".{path.stem}.{os.getpid()}{PARTIAL}{path.suffix}")
    with naming_full_disk(path.parent):
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
        No space is left; nothing remains of the folder then.
    """
    partial = path.with_name(path.name + PARTIAL)
    with naming_full_disk(path.parent):
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
