"""Files and folders that are either whole or absent.

Everything is written under a temporary name beside its final one and renamed
when complete, so a killed run never leaves a file that looks finished.
"""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ecgstudy.errors import StudyError

PARTIAL = ".partial"


@contextmanager
def no_space_as_sentence(path: Path) -> Iterator[None]:
    """Turn "no space left on device" into a :class:`StudyError` that names the place."""
    try:
        yield
    except OSError as failed:
        if failed.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StudyError(f"No space is left to write {path}; free some or move the folder.") from failed


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path; rename it to `path` when the block ends well, delete it when not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.{os.getpid()}{PARTIAL}{path.suffix}")
    try:
        with no_space_as_sentence(path):
            yield partial
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary folder; it becomes `path` (replacing an older one) when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        with no_space_as_sentence(path):
            partial.mkdir()
            yield partial
            if path.exists():
                shutil.rmtree(path)
            os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all."""
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8")
