"""Speed of drawing records on paper (target: 20 pages a second on 2 cores at 200 dpi), and of the defects of scans.

Run as a script: ``python tests/benchmarks/bench_printout.py``.
"""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.layouts.layout import LAYOUTS
from ecgstudy.layouts.printout import draw
from ecgstudy.layouts.scan import SEVERITIES, scan

TARGET = 20
FS = 500


def pages(seed: int, n_pages: int, severity: str) -> int:
    """Draw pages in every layout in turn; return their number."""
    cohort = SyntheticCohort(4, 1, 1, fs=FS, seed=1)
    samples, layouts = cohort.signals(cohort.records()["record_id"]), [*LAYOUTS.values()]
    for at in range(n_pages):
        page = draw(samples[at % len(samples)], STANDARD_LEADS, FS, layouts[at % len(layouts)])
        if severity != "clean":
            scan(page, severity, seed + at)
    return n_pages


def main() -> None:
    """Print pages a second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=60, help="pages a process")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    with ProcessPoolExecutor(arguments.processes) as pool:
        list(pool.map(pages, range(arguments.processes), [6] * arguments.processes, ["mild"] * arguments.processes))
        for severity in SEVERITIES:
            asked = ([n] * arguments.processes for n in (arguments.pages, severity))
            start = time.perf_counter()
            n = sum(pool.map(pages, np.arange(arguments.processes), *asked))
            print(f"{severity}: {n / (time.perf_counter() - start):.1f} pages/s", flush=True)
    print(f"target: {TARGET} clean pages/s on 2 cores")


if __name__ == "__main__":
    main()
