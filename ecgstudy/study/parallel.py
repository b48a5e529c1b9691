"""Work on all processor cores in processes that end with their parents, and progress on it.

Progress is one bar where somebody watches and one line a job elsewhere.

A bar floods the message channel of a notebook kernel and can end a papermill run with a time-out, so bars are drawn
only where somebody watches, and never by the worker processes.
"""

import os
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

from joblib import Parallel, cpu_count, delayed
from joblib.externals.loky import process_executor
from tqdm.auto import tqdm

from ecgstudy.errors import StudyError

T = TypeVar("T")
BATCH = "ECGSTUDY_BATCH"
"""Environment variable: "1" where nobody watches, "worker" where another process tells of the progress."""
PARENT = "ECGSTUDY_PARENT"
"""Environment variable: id of the parent that a process of the study must not outlive."""
_HANGUP_AND_TERM = 1 << 0 | 1 << 14
_SECONDS_BETWEEN_LOOKS = 0.2
_SECONDS_TO_TIDY_UP = 3.0
_SECONDS_BETWEEN_LINES = 2.0
_WORKER_GROWTH = 4_000_000_000
"""Bytes by which a worker may grow before another takes its place."""
_held_at_most: dict[int, int] = {}


def in_batch() -> bool:
    """Whether nobody watches, so that nothing is drawn."""
    return bool(os.environ.get(BATCH))


def progress(iterable: Iterable[T], total: int | None = None, desc: str = "") -> Iterable[T]:
    """Iterate with a progress bar, silently in batch runs."""
    return tqdm(iterable, total=total, desc=desc, disable=in_batch(), mininterval=0.5)


def in_parallel(
    function: Callable[..., Any], items: Sequence[tuple[Any, ...]], device: str, desc: str, workers: int | None = None
) -> Iterator[Any]:
    """Call a module's function once an item, in processes beside each other; give the results in order.

    There are as many processes as cores unless `workers` says otherwise, and one where `device` is a GPU, which they
    would only share. They end with this process, however it ends. In a batch run a finished item is one line at most.
    """
    if resolve_device(device) == "cuda":
        workers = 1
    workers = min(workers or cpu_count(), max(1, len(items)))
    calls = (delayed(_call)(os.getpid(), function, item) for item in items)
    results = Parallel(n_jobs=workers, return_as="generator")(calls)
    return iter(progress(_told(results, len(items), desc), total=len(items), desc=desc))


def peak_memory() -> int:
    """Bytes that this process and all that worked for it held at most, files that several of them map counted again."""
    return sum((_held_at_most | {os.getpid(): _held()}).values())


def _held() -> int:
    """Bytes that this process held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _told(results: Iterable[tuple[T, int, int]], total: int, desc: str) -> Iterator[T]:
    """Pass the results on, with a line for each in a batch run, but for those that come in quick succession."""
    began = told = time.monotonic()
    for at, (result, worker, held) in enumerate(results, start=1):
        _held_at_most[worker] = held
        now = time.monotonic()
        if os.environ.get(BATCH) == "1" and (at == total or now - told > _SECONDS_BETWEEN_LINES):
            print(f"{desc} {at}/{total}, {now - began:.0f} s", file=sys.stderr, flush=True)
            told = now
        yield result


def _call(parent: int, function: Callable[..., T], item: tuple[Any, ...]) -> tuple[T, int, int]:
    """Call a function silently, in a process that ends with its parent; give who that was and what it held too."""
    if os.getpid() != parent:
        _become_worker(parent)
    with patch.dict(os.environ, {BATCH: "worker"}):
        return function(*item), os.getpid(), _held()


def end_with_parent() -> None:
    """Stay no longer than the parent, where it asks for that by :data:`PARENT`."""
    if parent := os.environ.pop(PARENT, None):  # asked of this process, not of those that it starts
        _stay_no_longer_than(int(parent))


def _stay_no_longer_than(parent: int) -> None:
    """Watch the parent and stop once it has ended, however that ends; in order, where that does not take long."""

    def watch() -> None:
        while os.getppid() == parent and not _is_ended_make(parent):
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_SECONDS_TO_TIDY_UP)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _is_ended_make(process: int) -> bool:
    """Whether a process is make and got SIGHUP: it then blocks that signal and waits for its children, untold."""
    with suppress(OSError):  # Linux tells
        status = Path(f"/proc/{process}/status").read_text(encoding="ascii", errors="replace")
        blocked = re.match(r"Name:\tg?make\n(?:.*\n)*SigBlk:\t(\w+)\n", status)
        return blocked is not None and int(blocked[1], 16) & _HANGUP_AND_TERM == 1  # both while it starts a child
    return False


@cache
def _become_worker(parent: int) -> None:
    """Stay no longer than the parent; keep what takes long to make."""
    _stay_no_longer_than(parent)
    # the signals and networks that a worker keeps are no leak, and a new worker takes seconds to get them again
    process_executor._MAX_MEMORY_LEAK_SIZE = _WORKER_GROWTH


def resolve_device(device: str) -> str:
    """Turn "auto" into "cuda" where there is one and "cpu" elsewhere; keep "cpu", and "cuda" where there is one."""
    if device not in ("auto", "cpu", "cuda"):
        raise StudyError(f"There is no device {device!r}; choose auto, cpu or cuda.")
    if device == "cpu":
        return "cpu"
    import torch  # costs seconds, and not every stage computes on a device

    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise StudyError("device is 'cuda' but no GPU can be used here; choose auto or cpu.")
    return "cpu"
