"""Bootstrap of the EER: ``python tests/benchmarks/bench_scoring.py``."""

import time

import numpy as np

from ecgstudy.evaluate.bootstrap import Resamples, bootstrap
from ecgstudy.evaluate.trials import ScoreMatrix, Trials, eer


def bench_bootstrap(rng: np.random.Generator) -> None:
    """Resample 90 persons with 300 records 1,000 times."""
    probe, gallery = np.arange(300) % 90, np.arange(90)
    own = probe[:, None] == gallery
    resamples = Resamples.draw(gallery, seed=0)
    start = time.perf_counter()
    trials = Trials(ScoreMatrix(rng.normal(size=own.shape) + 3 * own, probe, gallery), resamples)
    estimate = bootstrap(lambda drawn: eer(trials.levels(trials.weights(drawn))), resamples, 90, "")
    print(f"1,000 resamples of EER over {own.size:,} trials in {time.perf_counter() - start:.2f} s: {estimate}")


if __name__ == "__main__":
    bench_bootstrap(np.random.default_rng(0))
