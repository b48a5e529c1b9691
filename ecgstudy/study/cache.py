"""The one cache: files that are whole or absent, keys of what made something, and values that are made once.

Everything is written under a temporary name beside its target and renamed when it is complete, so a killed run leaves
nothing that looks finished.
"""

import ast
import errno
import glob
import hashlib
import inspect
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import joblib
import numpy as np
from filelock import FileLock, Timeout

from ecgstudy.errors import DiskError, StudyError
from ecgstudy.study.config import PROJECT_ROOT

T = TypeVar("T")
PARTIAL = ".partial"
"""Ending of a temporary name; what carries it may be deleted when nobody is writing it."""
METRICS = "metrics.json"
"""What a stage's folder holds when its results are complete."""
KEY_LENGTH = 12
"""Hex digits of a key that a file's or folder's name carries (48 bits)."""
LIBRARIES = ("captum", "neurokit2", "numpy", "opencv-python-headless", "scikit-learn", "scipy", "torch", "wfdb")
"""What computes: another version may give other numbers."""
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST)


def remember(
    folder: Path, name: str, made_from: dict[str, object], make: Callable[[], T], wait: bool = True
) -> tuple[T, str]:
    """Give the value that was made from the same things before, or make it and keep it; and the commit that made it.

    `made_from` holds, as JSON values, all that it depends on: inputs, parameters, code and library versions. One
    process makes it, others wait, or raise ``filelock.Timeout`` with `wait` off. Beside ``<name>-<key>.joblib`` a
    ``.json`` says what made it; a damaged file is made again.
    """
    key = cache_key(**made_from)
    file = folder / f"{name}-{key[:KEY_LENGTH]}.joblib"
    if found := _remembered(file, key):
        return found
    with naming_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{file.stem}.lock", timeout=-1 if wait else 0):
        if found := _remembered(file, key):  # another process may have made it meanwhile
            return found
        maker, value = commit(), make()
        for left in folder.glob(f".{glob.escape(file.stem)}.*{PARTIAL}*"):  # by a run that was killed
            left.unlink()
        with new_file(file) as partial:
            joblib.dump(value, partial, compress=3)
            about = {"commit": maker, "key": key, "sha256": file_digest(partial), "made_from": made_from}
            about["versions"] = library_versions()
            write_text(file.with_suffix(".json"), json.dumps(about, indent=1, sort_keys=True) + "\n")
    return value, maker


def _remembered(file: Path, key: str) -> tuple[T, str] | None:
    """Value in a file and the commit that made it; None where it is not there, not whole or of something else."""
    with suppress(Exception):  # whatever is wrong with a value, it is made again
        about = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
        if about["key"] == key and about["sha256"] == file_digest(file):
            return joblib.load(file), about["commit"]
    return None


def cache_key(**what_made_it: object) -> str:
    """SHA-256 (hex) over named JSON values in any order; what is not plain JSON, as NaN, is an error."""
    text = json.dumps(what_made_it, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def code_key(maker: Callable | type) -> str:
    """SHA-256 (hex) over the code that a function or class runs on: its module and all that it imports of this package.

    Imports count wherever they stand, also inside a function. A changed docstring, comment or format changes nothing.
    """
    file = getattr(inspect.getmodule(maker), "__file__", None)
    if file is None:
        raise StudyError(f"{maker.__qualname__} stands in no module, so that a change of it would go unnoticed.")
    return _closure_key(maker.__module__, Path(file))


@cache
def _closure_key(module: str, file: Path) -> str:
    """SHA-256 (hex) over the code of a module and of the modules of this package that it imports, however far."""
    packages = {__package__.partition(".")[0], module.partition(".")[0]}
    found, waiting = {}, {module: file}
    while waiting:
        name, path = waiting.popitem()
        found[name], imported = _code(path, name)
        own = [other for other in imported - found.keys() if other.partition(".")[0] in packages]
        waiting |= {other: source for other in own if (source := _source(other))}
    return cache_key(**found)


@cache
def _code(file: Path, name: str) -> tuple[str, frozenset[str]]:
    """Code of a module as text without docstrings, and the names of all that may be a module it imports."""
    tree = ast.parse(file.read_bytes())
    package = name.split(".") if file.name == "__init__.py" else name.split(".")[:-1]
    imported = {name}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            imported |= {f"{origin}.{alias.name}" for alias in node.names}
    # the packages' __init__ files run before their modules
    parts = [module.split(".") for module in imported]
    modules = frozenset(".".join(part[:depth]) for part in parts for depth in range(1, len(part) + 1))
    return ast.dump(_WithoutTexts().visit(tree)), modules


class _WithoutTexts(ast.NodeTransformer):
    """Drops bare strings: the docstrings of modules, classes, functions and attributes."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        """Keep what computes."""
        return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node


def _source(module: str) -> Path | None:
    """Source file of a module, found without importing it; None where there is no such module."""
    top, *below = module.split(".")
    stems = [Path(folder, *below) for folder in getattr(sys.modules[top], "__path__", ())]
    files = [file for stem in stems for file in (stem / "__init__.py", stem.with_suffix(".py")) if file.is_file()]
    return files[0] if files else None


@cache
def commit() -> str:
    """Commit of the checkout that this process runs, "-dirty" where code or notebooks differ; "unknown" without git."""
    asked = ("rev-parse HEAD", "status --porcelain --untracked-files=no -- ecgstudy notebooks")
    try:
        head, changed = (
            subprocess.check_output(["git", *words.split()], cwd=PROJECT_ROOT, stderr=subprocess.DEVNULL, text=True)
            for words in asked
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.strip() + ("-dirty" if changed else "")


def library_versions(libraries: tuple[str, ...] = LIBRARIES) -> dict[str, str]:
    """Installed versions of libraries."""
    return {library: version(library) for library in libraries}


def file_digest(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes, read in bounded memory."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def waveform_digest(values: np.ndarray) -> str:
    """SHA-256 (hex) of a record's samples (leads, samples): equal for equal numbers and shapes only.

    Negative zero and the many bit patterns of NaN are brought to one form first.
    """
    canonical = np.ascontiguousarray(values, dtype="<f4") + np.float32(0)
    canonical[np.isnan(canonical)] = np.nan
    digest = hashlib.sha256(repr(canonical.shape).encode())
    digest.update(canonical)
    return digest.hexdigest()


@contextmanager
def naming_disk_errors(folder: Path) -> Iterator[None]:
    """Turn a full disk, or a refusal to write in `folder`, into a sentence that names it; other failures pass."""
    try:
        yield
    except OSError as failed:
        file = Path(failed.filename or "")  # in the folder, or above it
        if failed.errno in _REFUSED and (file.is_relative_to(folder) or folder.is_relative_to(file)):
            trouble, cure = f"{file} cannot be written ({failed.strerror}); make it writable", "folders that are"
        elif failed.errno in _NO_SPACE:
            trouble, cure = f"No space is left on the disk that holds {folder}; free some", "folders on a larger disk"
        else:
            raise
        where = f"or set ECGSTUDY_CACHE and ECGSTUDY_RESULTS to {cure}, and run the same command again."
        raise DiskError(f"{trouble}, {where}") from failed


@contextmanager
def alone(folder: Path, work: str) -> Iterator[None]:
    """Let one process at a time fill a folder; a second one says who is at it, and waits.

    The lock lies beside the folder, and the system frees it when its process ends, however it ends.
    """
    lock = FileLock(folder.with_name(f".{folder.name}.lock"))
    holder = folder.with_name(f".{folder.name}.holder")
    with naming_disk_errors(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            held = lock.acquire(timeout=0)
        except Timeout:
            who = holder.read_text(encoding="utf-8") if holder.exists() else "another process"
            print(f"ecgstudy: {work} is being run by {who}; waiting until that ends.", file=sys.stderr, flush=True)
            held = lock.acquire()
    with held:
        write_text(holder, f"process {os.getpid()} on {platform.node()} since {datetime.now():%Y-%m-%d %H:%M:%S}")
        yield


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Write a file under a temporary name beside `path`; it takes that name when the block ends well."""
    # the process id keeps two runs that write the same file out of each other's way
    partial = path.with_name(f".{path.stem}.{os.getpid()}{PARTIAL}{path.suffix}")
    with naming_disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            _on_disk(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def _on_disk(file: Path) -> None:
    """Wait until a file's content is on the disk: a name that outlives a power cut must not be that of nothing."""
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all, see :func:`new_file`."""
    with new_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Fill a folder under a temporary name beside `path`; it takes that name when the block ends well.

    What was left under either name is deleted first, so callers hold a lock.
    """
    partial = path.with_name(path.name + PARTIAL)
    with naming_disk_errors(path.parent):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield partial
            for file in filter(Path.is_file, partial.rglob("*")):
                _on_disk(file)
            shutil.rmtree(path, ignore_errors=True)
            partial.replace(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def publish(draft: Path, folder: Path) -> None:
    """Let a finished stage's files take the place of an older run's; ``metrics.json`` is away meanwhile and comes last.

    Tables and figures that the run no longer makes go; a page and a notebook stay until there are new ones.
    """
    made = {path.relative_to(draft) for path in draft.rglob("*") if path.is_file()}
    kinds = {"tables", "figures"} | {part.parts[0] for part in made if len(part.parts) > 1}
    with naming_disk_errors(folder):
        (folder / METRICS).unlink(missing_ok=True)
        older = [path for kind in kinds for path in (folder / kind).rglob("*") if path.is_file()]
        for path in [*older, *folder.glob("*.csv"), *folder.glob("*.failed.ipynb")]:
            if path.relative_to(folder) not in made:
                path.unlink()
        for part in sorted(made, key=lambda part: part == Path(METRICS)):
            with new_file(folder / part) as partial:
                shutil.copyfile(draft / part, partial)
