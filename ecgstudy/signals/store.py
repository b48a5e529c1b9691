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
from ecgstudy.study.cache import cache_key

SIGNALS = "signals.f32"
RECORDS = "records.parquet"
FLAWS = "flaws.parquet"
EXCLUSIONS = "exclusions.parquet"
BEATS = "beats.parquet"
MANIFEST = "store.json"

EXCLUSION_COLUMNS = ("record_id", "subject_id", "file", "reason", "sentence")
FLAW_COLUMNS = ("record_id", "lead", "start", "stop", "reason")


class RecordStore:
    """Signals, record table, flaws and beats of one cohort at one sampling rate, in the folder of a finished store.

    Records `left_out` (:data:`EXCLUSION_COLUMNS`) are in the store and take no part: they join its exclusions.
    """

    def __init__(self, folder: Path, left_out: pd.DataFrame | None = None) -> None:
        self.folder, self.left_out = Path(folder), left_out
        if not is_complete(self.folder):
            raise StudyError(f"{self.folder} holds no finished store; run notebook 01_ingestion again.")

    def __eq__(self, other: object) -> bool:
        """Whether it is the same folder without the same records: workers then share what they have opened."""
        return isinstance(other, RecordStore) and self._identity == other._identity

    def __hash__(self) -> int:
        """As equality asks."""
        return hash(self._identity)

    @property
    def _identity(self) -> tuple[Path, tuple[str, ...]]:
        return self.folder, () if self.left_out is None else tuple(self.left_out["record_id"])

    def __getstate__(self) -> dict[str, object]:
        """Pickle no more than what the store is opened with: a worker maps the same files again."""
        return {"folder": self.folder, "left_out": self.left_out}

    @cached_property
    def manifest(self) -> dict:
        """What the store was made from: key, fs, cohort and code digests, versions."""
        about = json.loads((self.folder / MANIFEST).read_text(encoding="utf-8"))
        if self.left_out is not None:
            about["key"] = cache_key(store=about["key"], left_out=self.left_out["record_id"].tolist())
        return about

    def _table(self, name: str) -> pd.DataFrame:
        """Read a table without what is left out."""
        table = pd.read_parquet(self.folder / name)
        if self.left_out is None:
            return table
        return table[~table["record_id"].isin(self.left_out["record_id"])].reset_index(drop=True)

    @property
    def fs(self) -> float:
        """Sampling rate of every stored signal, in Hz."""
        return self.manifest["fs"]

    @cached_property
    def _records(self) -> pd.DataFrame:
        table = self._table(RECORDS)
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
        return pd.concat([pd.read_parquet(self.folder / EXCLUSIONS), self.left_out], ignore_index=True)

    @property
    def flaws(self) -> pd.DataFrame:
        """Stretches of kept records' leads that nothing may be cut across: :data:`FLAW_COLUMNS`.

        start and stop (excluded) in samples at the store's rate; for the reasons see
        :func:`ecgstudy.signals.quality.flaws`. A lead that cannot be used at all is one flaw from end to end.
        """
        return self._table(FLAWS)

    @property
    def beats(self) -> pd.DataFrame:
        """One row a beat: record_id and the fiducials in seconds from the record's start (NaN where not found)."""
        return self._table(BEATS)

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
