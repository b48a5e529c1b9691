"""Progress bars that a batch run does not see.

A bar floods the message channel of a notebook kernel and can end a papermill
run with a time-out, so bars are drawn only where somebody watches.
"""

import os
from collections.abc import Iterable
from typing import TypeVar

from tqdm.auto import tqdm

T = TypeVar("T")


def in_batch() -> bool:
    """Whether nobody watches: the notebook wrapper sets ``ECGSTUDY_BATCH=1``."""
    return os.environ.get("ECGSTUDY_BATCH") == "1"


def progress(iterable: Iterable[T], total: int | None = None, desc: str = "") -> Iterable[T]:
    """Iterate with a progress bar, silently in batch runs."""
    return tqdm(iterable, total=total, desc=desc, disable=in_batch(), mininterval=0.5)
