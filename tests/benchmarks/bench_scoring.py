"""Exact EER and TAR over 10^8 trial pairs, and a bootstrap of EER: ``python tests/benchmarks/bench_scoring.py``."""

import resource
import time

import numpy as np

from ecgstudy.evaluate.bootstrap import Resamples, bootstrap
from ecgstudy.evaluate.streaming import cosine_rows, stream_verification
from ecgstudy.evaluate.levels import Trials
from ecgstudy.evaluate.levels import eer

N_ROWS, N_PERSONS, DIM = 10_000, 2_000, 128


def bench_streaming(rng: np.random.Generator) -> None:
    """Score 10,000 probes against 10,000 gallery entries of 2,000 persons."""
    centre, person = rng.normal(size=(N_PERSONS, DIM)), np.arange(N_ROWS) % N_PERSONS
    probe, gallery = ((centre[person] + 1.5 * rng.normal(size=(N_ROWS, DIM))).astype(np.float32) for _ in range(2))
    start = time.perf_counter()
    result = stream_verification(cosine_rows(probe, gallery), person, person)
    seconds = time.perf_counter() - start
    print(f"{result.n_genuine + result.n_impostor:,} trials in {seconds:.1f} s (target 60 s): {result}")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2:.2f} GiB")


def bench_bootstrap(rng: np.random.Generator) -> None:
    """Resample 90 persons with 300 records 1,000 times."""
    probe, gallery = np.arange(300) % 90, np.arange(90)
    own = probe[:, None] == gallery
    resamples = Resamples.draw(gallery, seed=0)
    start = time.perf_counter()
    trials = Trials(rng.normal(size=own.shape) + 3 * own, probe, gallery, resamples)
    estimate = bootstrap(trials.statistic(eer), resamples, 90, "")
    print(f"1,000 resamples of EER over {own.size:,} trials in {time.perf_counter() - start:.2f} s: {estimate}")


if __name__ == "__main__":
    bench_streaming(np.random.default_rng(0))
    bench_bootstrap(np.random.default_rng(0))
