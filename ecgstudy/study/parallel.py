"""Independent pieces of work on all processor cores: trainings of one thread each share a machine best."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from joblib import Parallel, cpu_count, delayed

from ecgstudy.study.progress import progress
from ecgstudy.study.provenance import resolve_device


def in_parallel(
    function: Callable[..., Any], items: Sequence[tuple[Any, ...]], device: str, desc: str
) -> Iterator[Any]:
    """Call a function once an item, in processes beside each other, and give the results in order.

    Parameters
    ----------
    function : callable
        A function of a module (it travels to the processes by name).
    items : sequence of tuple
        Arguments of each call; they are copied to the processes, so keep them small.
    device : {"auto", "cpu", "cuda"}
        On a GPU the calls follow each other: they would only share it.
    desc : str
        Name of the progress bar.

    Raises
    ------
    Exception
        The first error of a call, as it was raised.
    """
    workers = 1 if resolve_device(device) == "cuda" else min(cpu_count(), max(1, len(items)))
    results = Parallel(n_jobs=workers, return_as="generator")(delayed(function)(*item) for item in items)
    return iter(progress(results, total=len(items), desc=desc))
