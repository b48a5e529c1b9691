"""Speed of the synthetic cohort: 12-lead 10-s records at 100 Hz a second (target: 1,000 on 2 cores).

Run as a script: ``python tests/benchmarks/bench_simulator.py``.
"""

import argparse
import time
from concurrent.futures import ProcessPoolExecutor

import numpy as np

from ecgstudy.data.synthetic import SyntheticCohort


def generate(seed: int, n_subjects: int) -> int:
    """Generate a cohort of four records a person and return their number."""
    cohort = SyntheticCohort(n_subjects=n_subjects, seed=seed)
    values = cohort.signals(cohort.records()["record_id"])
    assert np.isfinite(values[-1]).all()
    return len(values)


def main() -> None:
    """Print records a second with one process and with several."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subjects", type=int, default=500, help="persons a process, four records each")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    generate(0, 16)  # imports and caches are no part of the figure
    start = time.perf_counter()
    n = generate(1, arguments.subjects)
    print(f"1 process: {n / (time.perf_counter() - start):.0f} records/s")
    with ProcessPoolExecutor(arguments.processes) as pool:
        list(pool.map(generate, range(arguments.processes), [16] * arguments.processes))
        start = time.perf_counter()
        n = sum(pool.map(generate, range(arguments.processes), [arguments.subjects] * arguments.processes))
        print(f"{arguments.processes} processes: {n / (time.perf_counter() - start):.0f} records/s")


if __name__ == "__main__":
    main()
