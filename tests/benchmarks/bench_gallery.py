"""Search of a 10^6-person gallery, exact and approximate: ``python tests/benchmarks/bench_gallery.py``."""

import resource
import time

import numpy as np

from ecgstudy.evaluate.identification import GallerySearch

N_PERSONS, DIM, N_QUERIES, K = 1_000_000, 128, 1_000, 5
NOISE = 0.7


def main() -> None:
    """Search 1,000 noisy copies of enrolled embeddings."""
    rng = np.random.default_rng(0)
    gallery = rng.standard_normal((N_PERSONS, DIM), dtype=np.float32)
    person = rng.choice(N_PERSONS, N_QUERIES, replace=False)
    queries = gallery[person] + NOISE * rng.standard_normal((N_QUERIES, DIM), dtype=np.float32)
    exact_first = None
    for approximate in (False, True):
        start = time.perf_counter()
        search = GallerySearch(gallery, np.arange(N_PERSONS), approximate)
        built = time.perf_counter()
        found = search.search(queries, K)[0]
        done = time.perf_counter()
        exact_first = found[:, 0] if exact_first is None else exact_first
        print(
            f"{'approximate' if approximate else 'exact'}: built in {built - start:.1f} s, "
            f"{N_QUERIES} queries in {done - built:.2f} s, rank-1 {np.mean(found[:, 0] == person):.3f}, "
            f"same first hit as exact {np.mean(found[:, 0] == exact_first):.3f}"
        )
        del search
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2:.2f} GiB")


if __name__ == "__main__":
    main()
