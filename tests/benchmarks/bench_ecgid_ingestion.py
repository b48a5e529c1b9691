"""Speed of ingesting all of ECG-ID with delineation of every record (target: under 40 s on 2 cores).

Run as a script: ``python tests/benchmarks/bench_ecgid_ingestion.py``.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from ecgstudy.data.public import EcgidCohort
from ecgstudy.errors import DataNotFoundError
from ecgstudy.signals.ingest import build_store


def main() -> None:
    """Print the seconds it takes, or say that the data are not there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    os.environ["ECGSTUDY_BATCH"] = "1"
    try:
        cohort = EcgidCohort()
    except DataNotFoundError as absent:
        print(f"skipped: {absent}")
        return
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        store = build_store(cohort, Path(folder), workers=arguments.workers)
        seconds = time.perf_counter() - start
        print(
            f"{len(store.records)} records, {len(store.beats)} beats with boundaries: {seconds:.1f} s "
            f"with {arguments.workers} workers"
        )


if __name__ == "__main__":
    main()
