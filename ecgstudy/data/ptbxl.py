"""PTB-XL: 21,799 twelve-lead records with 71 statements, in the official layout, whole or in part."""

import ast
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from ecgstudy.data.base import DataCard, Signal
from ecgstudy.data.csv_files import numbers
from ecgstudy.data.wfdb_cohort import OVER_89_YEARS, WfdbCohort, failure_table, record_table, sessions
from ecgstudy.data.wfdb_files import STANDARD_LEADS, Header, existing, read_header, read_signal
from ecgstudy.errors import DataNotFoundError, RecordError, StudyError

DATABASE = "ptbxl_database.csv"
STATEMENTS = "scp_statements.csv"
SECONDS = 10
_PATH_COLUMN = {100: "filename_lr", 500: "filename_hr"}
_COLUMNS = ("ecg_id", "patient_id", "age", "sex", "scp_codes", "strat_fold")
_SEX = {0.0: "M", 1.0: "F"}
_AGE_OVER_89 = 300

LEVELS = ("statements", "diagnostic", "form", "rhythm", "superclasses", "subclasses")
"""Label columns that hold tuples of names from ``scp_statements.csv``."""


class PtbxlCohort(WfdbCohort):
    """PTB-XL in its official layout.

    Parameters
    ----------
    root : Path, optional
        Folder with ``ptbxl_database.csv``; by default the one in the data folder.
    resolution : int, optional
        100 (``records100``) or 500 Hz (``records500``); by default 100, or 500 where only
        that folder is there.

    Notes
    -----
    Rate, length and leads are fixed by the layout, so scanning opens the tables and
    one header only; each header is held against the table when its signal is read.
    """

    name = "ptbxl"
    folders = (
        "ptbxl",
        "ptb-xl",
        "ptb-xl-a-large-publicly-available-electrocardiography-dataset-1.0.3",
        "physionet.org/files/ptb-xl/1.0.3",
        "ptbxl-subset",
    )
    marker = DATABASE
    tables = (DATABASE, STATEMENTS)
    card = DataCard(
        title="PTB-XL, a large publicly available electrocardiography dataset",
        version="1.0.3",
        licence="CC BY 4.0",
        doi="10.13026/kfzx-aw45",
        how_to_get="Run `python -m ecgstudy fetch ptbxl` (https://physionet.org/content/ptb-xl/1.0.3/).",
        notes=(
            "The whole set: 21,799 records of 18,869 patients, 12 leads, 10 s, mV, at 100 Hz (records100) and 500 Hz "
            "(records500).",
            "A subset in the same layout is read too; where its headers state the unit zscore, the amplitude in mV is "
            "lost and its likelihoods may be placeholders (100 for every statement).",
            "Folds 1 to 8 are for training, 9 for validation, 10 for the test; no patient is in two folds.",
            "Superclasses and subclasses follow scp_statements.csv; every statement counts, whatever its likelihood.",
            "An age of 300 stands for over 89 and is read as 90.",
            "Records without a recording date (subsets) all count as session 1.",
        ),
    )

    def __init__(self, root: Path | None = None, resolution: int | None = None) -> None:
        super().__init__(root)
        if resolution is None:
            resolution = 500 if not self._folder(100).is_dir() and self._folder(500).is_dir() else 100
        if resolution not in _PATH_COLUMN:
            raise StudyError(f"PTB-XL comes at 100 and at 500 Hz; {resolution} is neither.")
        self.resolution = resolution

    def _folder(self, resolution: int) -> Path:
        return self._root / f"records{resolution}"

    @cached_property
    def statement_table(self) -> pd.DataFrame:
        """The publisher's statements: index code; columns diagnostic, form, rhythm (bool), superclass, subclass."""
        needed = ("diagnostic", "form", "rhythm", "diagnostic_class", "diagnostic_subclass")
        table = self._read_table(STATEMENTS, needed)
        table = table.set_index(table.columns[0])
        kinds = {kind: numbers(table[kind])[0] == 1 for kind in ("diagnostic", "form", "rhythm")}
        named = {"superclass": table["diagnostic_class"], "subclass": table["diagnostic_subclass"]}
        return pd.DataFrame(kinds | named)

    @cached_property
    def _mappings(self) -> dict[str, dict[str, str]]:
        """Level -> statement code -> name at that level."""
        table = self.statement_table
        codes = dict(zip(table.index, table.index, strict=True))
        levels = {"statements": codes}
        for kind in ("diagnostic", "form", "rhythm"):
            levels[kind] = {code: code for code in table.index[table[kind]]}
        diagnostic = table[table["diagnostic"]]
        levels["superclasses"] = {code: name for code, name in diagnostic["superclass"].items() if name}
        levels["subclasses"] = {code: name for code, name in diagnostic["subclass"].items() if name}
        return levels

    def vocabulary(self, level: str) -> tuple[str, ...]:
        """All names of one of :data:`LEVELS`, sorted; ``KeyError`` for another level."""
        return tuple(sorted(set(self._mappings[level].values())))

    @cached_property
    def _database(self) -> pd.DataFrame:
        """The publisher's table with record_id, stem (path without suffix) and problem ("" or a reason)."""
        column = _PATH_COLUMN[self.resolution]
        table = self._read_table(DATABASE, (*_COLUMNS, column))
        ids, _ = numbers(table["ecg_id"])
        whole = ids.notna() & (ids % 1 == 0) & (ids >= 0)
        record_id = [f"{int(i):05d}" if ok else text for i, ok, text in zip(ids, whole, table["ecg_id"], strict=True)]
        table = table.assign(record_id=record_id, stem=table[column])
        table["statements"] = [_parse_codes(text) for text in table["scp_codes"]]
        table["problem"] = self._problems(table, whole)
        return table

    def _problems(self, table: pd.DataFrame, whole: pd.Series) -> np.ndarray:
        """For each row of the table the first reason why it cannot be used, or ""."""
        known = self._mappings["statements"]
        unsafe = [PurePosixPath(stem).is_absolute() or ".." in stem or "\\" in stem for stem in table["stem"]]
        headers, samples = self._present(table["stem"][~np.array(unsafe, dtype=bool)])
        unknown = [codes is not None and not known.keys() >= codes.keys() for codes in table["statements"]]
        fold, _ = numbers(table["strat_fold"])
        sex, _ = numbers(table["sex"])
        reasons = {
            "has a record without a whole number as ecg_id": ~whole,
            "lists this record twice": table["record_id"].duplicated(keep=False),
            "does not say whose record this is (patient_id)": ~numbers(table["patient_id"])[0].ge(0),
            "states an age that is no number": numbers(table["age"])[1],
            "states a sex that is neither 0 nor 1": ~(sex.isin(_SEX) | (table["sex"] == "")),
            "states no fold from 1 to 10": ~fold.isin(range(1, 11)),
            "has statements (scp_codes) that cannot be read": table["statements"].isna(),
            f"has a statement that {STATEMENTS} does not list": np.array(unknown, dtype=bool),
            "leads outside the cohort's folder": np.array(unsafe, dtype=bool),
            "names a header that is missing": ~table["stem"].isin(headers),
            "names a signal file that is missing": ~table["stem"].isin(samples),
        }
        return np.select([np.asarray(mask, dtype=bool) for mask in reasons.values()], list(reasons), default="")

    def _present(self, stems: pd.Series) -> tuple[set[str], set[str]]:
        """Stems for which a header is there, and those for which a signal file is there: one look a folder."""
        found: dict[str, set[str]] = {".hea": set(), ".dat": set()}
        for parent in {PurePosixPath(stem).parent for stem in stems}:
            folder = self._root / parent
            for path in folder.iterdir() if folder.is_dir() else ():
                if path.suffix in found:
                    found[path.suffix].add(str(parent / path.stem))
        return found[".hea"], found[".dat"]

    @cached_property
    def _scan(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        table = self._database
        good = table[table["problem"] == ""]
        if len(table) and table["problem"].str.endswith("is missing").all():
            raise DataNotFoundError(
                f"{self._root / DATABASE} lists {len(table)} records, but none of their files is there. "
                f"{self.card.how_to_get}"
            )
        bad = table[table["problem"] != ""]
        failures = [(row.record_id, DATABASE, row.problem, "download it again") for row in bad.itertuples()]
        return record_table(self._records_of(good.reset_index(drop=True))), failure_table(failures)

    def _records_of(self, table: pd.DataFrame) -> pd.DataFrame:
        """Build the interface's columns for rows without a problem."""
        blank = pd.Series("", index=table.index)
        date = pd.to_datetime(table.get("recording_date", blank), errors="coerce", format="ISO8601")
        subject = numbers(table["patient_id"])[0].astype(int).astype(str)
        session, day = sessions(subject, date)
        age, _ = numbers(table["age"])
        fixed = {
            "record_id": table["record_id"],
            "subject_id": subject,
            "session": session,
            "session_day": day,
            "age": age.mask(age == _AGE_OVER_89, OVER_89_YEARS),
            "sex": [_SEX.get(code) for code in numbers(table["sex"])[0]],
            "fs": float(self.resolution),
            "leads": [STANDARD_LEADS] * len(table),
            "n_samples": self.resolution * SECONDS,
            "unit": self._unit(table["stem"]),
            "strat_fold": numbers(table["strat_fold"])[0].astype(int),
        }
        labels = {level: self._level(table["statements"], level) for level in LEVELS}
        likelihoods = [tuple(codes.values()) for codes in table["statements"]]
        scales = {
            f"relscale_{lead}": numbers(table[f"relscale_{lead.upper()}"])[0]
            for lead in STANDARD_LEADS
            if f"relscale_{lead.upper()}" in table.columns
        }
        return pd.DataFrame(fixed | labels | {"likelihoods": likelihoods} | scales, index=table.index)

    def _level(self, statements: Iterable[dict[str, float]], level: str) -> list[tuple[str, ...]]:
        """Names at one level for each record, each once, in the order of its statements."""
        names = self._mappings[level]
        return [tuple(dict.fromkeys(names[code] for code in codes if code in names)) for codes in statements]

    def _unit(self, stems: pd.Series) -> str:
        """Read the unit from the first good header; :meth:`header` holds every other record against it."""
        for stem in stems:
            try:
                return read_header(self._root / f"{stem}.hea", self._root).unit
            except RecordError:
                continue
        return "unknown"

    @cached_property
    def _stems(self) -> dict[str, str]:
        return dict(zip(self._database["record_id"], self._database["stem"], strict=True))

    @cached_property
    def _unit_of_all(self) -> str:
        return self._scan[0]["unit"].iloc[0]

    def _header_path(self, record_id: str) -> Path:
        return self._root / f"{self._stems[record_id]}.hea"

    def header(self, record_id: str) -> Header:
        """Read the header of one record and hold it against what the layout promises."""
        header = super().header(record_id)
        promised = (float(self.resolution), self.resolution * SECONDS, STANDARD_LEADS, self._unit_of_all)
        stated = (header.fs, header.n_samples, header.leads, header.unit)
        for what, promise, claim in zip(("rate", "length", "leads", "unit"), promised, stated, strict=True):
            if promise != claim:
                raise RecordError(header.path, f"states another {what} than PTB-XL's layout ({claim}, not {promise})")
        return header

    def signal(self, record_id: str) -> Signal:
        """Read the samples of one record: float32, (12, n_samples), in the header's unit."""
        return read_signal(self.header(record_id), self._root)

    def _files(self) -> list[Path]:
        table = self._database
        usable = table["stem"][table["problem"] == ""]
        paths = [self._root / f"{stem}{suffix}" for stem in usable for suffix in (".hea", ".dat")]
        return existing([*(self._root / name for name in self.tables), *paths], self._root)


def _parse_codes(text: str) -> dict[str, float] | None:
    """Statements of one record ("{'NORM': 100.0}") with their likelihoods; None where malformed."""
    try:
        codes = ast.literal_eval(text)
        return {str(code): float(likelihood) for code, likelihood in codes.items()}
    except (AttributeError, MemoryError, RecursionError, SyntaxError, TypeError, ValueError):
        return None
