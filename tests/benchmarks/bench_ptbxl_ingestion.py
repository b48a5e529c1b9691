"""Speed and memory of ingesting PTB-XL (target: 800 records a second on 2 cores, under 1.5 GB at 21,799 records).

Writes a tree in PTB-XL's official layout into a temporary folder, then times
what notebook 01 does with it: read the tables and headers, hash every file,
read, check, filter and store every record with its R peaks (wave boundaries
off). Files were just written, so they come from the
system's cache and not from the disk.

Run as a script: ``python tests/benchmarks/bench_ptbxl_ingestion.py``.
"""

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

from ecgstudy.data.ptbxl import PtbxlCohort
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.signals.ingest import build_store

LEADS = ("I", "II", "III", "AVR", "AVL", "AVF", "V1", "V2", "V3", "V4", "V5", "V6")
STATEMENTS = """,description,diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass
NORM,normal ECG,1.0,,,NORM,NORM
SR,sinus rhythm,,,1.0,,
"""


def write_tree(root: Path, n_records: int, n_distinct: int) -> None:
    """Write `n_records` records in the official layout: `n_distinct` synthetic ones, each copy turned by its own time.

    Copies that were equal to the bit would be left out: the same waveform under two persons is an error.
    """
    cohort = SyntheticCohort(n_subjects=-(-n_distinct // 4), seed=1)
    ids = cohort.records()["record_id"].head(n_distinct)
    samples = [np.rint(1000 * cohort.signal(record_id).values.T).astype("<i2") for record_id in ids]
    stems = []
    for ecg_id in range(1, n_records + 1):
        folder = root / "records100" / f"{ecg_id // 1000 * 1000:05d}"
        if ecg_id == 1 or ecg_id % 1000 == 0:
            folder.mkdir(parents=True)
        digital = np.roll(samples[ecg_id % n_distinct], 7 * (ecg_id // n_distinct), axis=0)
        name = f"{ecg_id:05d}_lr"
        lines = [f"{name} 12 100 1000"]
        for lead, first, total in zip(LEADS, digital[0], digital.sum(axis=0, dtype=np.int64) % 65536, strict=True):
            lines.append(f"{name}.dat 16 1000.0(0)/mV 16 0 {first} {total} 0 {lead}")
        (folder / f"{name}.hea").write_text("\n".join(lines) + "\n")
        (folder / f"{name}.dat").write_bytes(digital.tobytes())
        stems.append((folder / name).relative_to(root).as_posix())
    ecg_id = np.arange(1, n_records + 1)
    table = {
        "ecg_id": ecg_id,
        "patient_id": 10_000.0 + ecg_id,
        "age": 20.0 + ecg_id % 70,
        "sex": ecg_id % 2,
        "recording_date": "1990-01-01 12:00:00",
        "scp_codes": "{'NORM': 100.0, 'SR': 0.0}",
        "strat_fold": ecg_id % 10 + 1,
        "filename_lr": stems,
        "filename_hr": [stem.replace("records100", "records500").replace("_lr", "_hr") for stem in stems],
    }
    pd.DataFrame(table).to_csv(root / "ptbxl_database.csv", index=False)
    (root / "scp_statements.csv").write_text(STATEMENTS)


@dataclass
class Usage:
    """What a process and all that it started took."""

    peak_bytes: int = 0
    cpu_seconds_of: dict[int, float] = field(default_factory=dict)


@contextmanager
def watched() -> Iterator[Usage]:
    """Sample resident memory and processor time of all processes of this script, ten times a second."""
    usage, stop, this = Usage(), threading.Event(), psutil.Process()
    before = sum(this.cpu_times()[:2])

    def sample() -> None:
        while not stop.wait(0.1):
            total = 0
            for process in [this, *this.children(recursive=True)]:
                try:
                    total += process.memory_info().rss
                    spent = sum(process.cpu_times()[:2])
                except psutil.NoSuchProcess:
                    continue
                usage.cpu_seconds_of[process.pid] = spent - before * (process.pid == this.pid)
            usage.peak_bytes = max(usage.peak_bytes, total)

    watcher = threading.Thread(target=sample)
    watcher.start()
    try:
        yield usage
    finally:
        stop.set()
        watcher.join()


def main() -> None:
    """Print records a second and peak memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=21_799)
    parser.add_argument("--distinct", type=int, default=256, help="different synthetic signals among them")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    os.environ["ECGSTUDY_BATCH"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "ptbxl"
        write_tree(root, arguments.records, arguments.distinct)
        with watched() as usage:
            start = time.perf_counter()
            store = build_store(PtbxlCohort(root), Path(folder) / "cache", delineate=False, workers=arguments.workers)
            seconds = time.perf_counter() - start
        assert len(store.records) == arguments.records
    print(
        f"{arguments.records} records: {arguments.records / seconds:.0f} records/s with {arguments.workers} workers; "
        f"processor time {sum(usage.cpu_seconds_of.values()):.0f} s; "
        f"peak memory of all processes {usage.peak_bytes / 1e9:.2f} GB"
    )


if __name__ == "__main__":
    main()
