"""Preprocessed records of a cohort, read from disk as they are needed.

:func:`ecgstudy.signals.ingest.build_store` writes the folder that :class:`RecordStore` reads. Signals are
memory-mapped, so a store of any size opens at once and several processes share the same pages.
"""

import json
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from ecgstudy.errors import StudyError

SIGNALS = "signals.f32"
RECORDS = "records.parquet"
FLAWS = "flaws.parquet"
EXCLUSIONS = "exclusions.parquet"
BEATS = "beats.parquet"
MANIFEST = "store.json"

EXCLUSION_COLUMNS = ("record_id", "subject_id", "file", "reason", "sentence")
FLAW_COLUMNS = ("record_id", "lead", "start", "stop", "reason")


class RecordStore:
    """Signals, record table, flaws and beats of one cohort at one sampling rate, in the folder of a finished store."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        if not is_complete(self.folder):
            raise StudyError(f"{self.folder} holds no finished store; run notebook 01_ingestion again.")

    def __getstate__(self) -> dict[str, Path]:
        """Pickle the folder's name alone: a worker maps the same files again."""
        return {"folder": self.folder}

    @cached_property
    def manifest(self) -> dict:
        """What the store was made from: key, fs, cohort and code digests, versions."""
        return json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))

    @property
    def fs(self) -> float:
        """Sampling rate of every stored signal, in Hz."""
        return self.manifest["fs"]

    @cached_property
    def _records(self) -> pd.DataFrame:
        table = pd.read_parquet(self.folder / RECORDS)
        for column in table.select_dtypes(object).columns:
            # parquet gives lists back as arrays, which neither compare nor hash
            table[column] = [tuple(v) if isinstance(v, np.ndarray) else v for v in table[column]]
        return table

    @property
    def records(self) -> pd.DataFrame:
        """The cohort's record table without the excluded records, and what ingestion added.

        store_samples : int, samples per lead at the store's rate. offset : int, first value of the record's block in
        the signal file. usable_leads : tuple of str. reference_lead : str, the lead whose beats are kept.
        delineation_failure : str, why there are no boundaries, or None. sha256 : str, of the raw samples.
        """
        return self._records.copy()

    @property
    def exclusions(self) -> pd.DataFrame:
        """One row an excluded record: :data:`EXCLUSION_COLUMNS`."""
        return pd.read_parquet(self.folder / EXCLUSIONS)

    @property
    def flaws(self) -> pd.DataFrame:
        """Stretches of kept records' leads that nothing may be cut across: :data:`FLAW_COLUMNS`.

        start and stop (excluded) in samples at the store's rate; for the reasons see
        :func:`ecgstudy.signals.quality.flaws`. A lead that cannot be used at all is one flaw from end to end.
        """
        return pd.read_parquet(self.folder / FLAWS)

    @property
    def beats(self) -> pd.DataFrame:
        """One row a beat: record_id and the fiducials in seconds from the record's start (NaN where not found)."""
        return pd.read_parquet(self.folder / BEATS)

    @cached_property
    def _signals(self) -> dict[str, np.ndarray]:
        """View of each record's block in the mapped signal file."""
        values = np.memmap(self.folder / SIGNALS, dtype="<f4", mode="r")
        return {
            row.record_id: values[row.offset :][: len(row.leads) * row.store_samples].reshape(len(row.leads), -1)
            for row in self._records.itertuples()
        }

    def signal(self, record_id: str) -> np.ndarray:
        """Give the filtered, resampled samples of one record: read-only float32, (n_leads, n_samples)."""
        if record_id not in self._signals:
            raise KeyError(f"no record {record_id} in {self.folder.name}; its exclusions may hold the reason")
        return self._signals[record_id]


def is_complete(folder: Path) -> bool:
    """Whether a folder holds a store that was finished: its manifest is written last."""
    return (folder / MANIFEST).is_file()
