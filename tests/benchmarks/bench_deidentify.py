"""Speed of the command ``deidentify`` (target: 10,000 records of 10 s, 12 leads and 500 Hz in 10 minutes on 2 cores).

Writes a folder of records and releases it: names, hashes, ingestion, cycles, groups, rendering, writing. Methods that
learn take their training on top of that, which is bounded by the records that they learn from.

Run as a script: ``python tests/benchmarks/bench_deidentify.py``.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

from ecgstudy.data.base import STANDARD_LEADS, Signal
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.deidentification.held import write_record
from ecgstudy.deidentification.tool import deidentify, order_of

TARGET_RECORDS, TARGET_SECONDS = 10_000, 600


def write_folder(folder: Path, n_records: int, n_distinct: int) -> None:
    """Write records: `n_distinct` synthetic ones, each copy turned by its own time and so another waveform."""
    folder.mkdir()
    cohort = SyntheticCohort(n_distinct, 1, 1, fs=500, seed=1)
    samples = cohort.signals(cohort.records()["record_id"])
    for number in range(n_records):
        turned = np.roll(samples[number % n_distinct], 7 * (number // n_distinct), axis=1)
        write_record(folder, f"p{number:05d}", Signal(turned, 500.0, STANDARD_LEADS, "mV"), "synthetic")


def main() -> None:
    """Print seconds, and what they would be for the target's number of records."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--distinct", type=int, default=64, help="different synthetic signals among them")
    parser.add_argument("--method", default="k_same")
    arguments = parser.parse_args()
    os.environ["ECGSTUDY_BATCH"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ECGSTUDY_CACHE"] = str(Path(folder) / "cache")
        source, target = Path(folder) / "in", Path(folder) / "out"
        write_folder(source, arguments.records, arguments.distinct)
        start = time.perf_counter()
        lines = [*deidentify(order_of(str(source), str(target), arguments.method, None, None, 0, False))]
        seconds = time.perf_counter() - start
        released = len(list(target.glob("*.hea")))
    assert released == arguments.records, lines
    projected = seconds * TARGET_RECORDS / released
    print(f"{released} records by {arguments.method}: {seconds:.0f} s; {TARGET_RECORDS:,} would take {projected:.0f} s")
    print(f"target: {TARGET_SECONDS} s on 2 cores")


if __name__ == "__main__":
    main()
