"""PTB-XL: 21,799 twelve-lead records with 71 statements, in the official layout, whole or in part."""

import ast
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from ecgstudy.data.wfdb_cohort import OVER_89_YEARS, WfdbCohort, as_tables, numbers, sessions
from ecgstudy.data.wfdb_files import STANDARD_LEADS, Header, common_unit, read_header
from ecgstudy.errors import DataNotFoundError, RecordError

DATABASE = "ptbxl_database.csv"
STATEMENTS = "scp_statements.csv"
SECONDS = 10
_KINDS = ("diagnostic", "form", "rhythm")
_CLASSES = {"superclasses": "diagnostic_class", "subclasses": "diagnostic_subclass"}
_COLUMNS = ("ecg_id", "patient_id", "age", "sex", "scp_codes", "strat_fold")
_SEX = {0.0: "M", 1.0: "F"}
_AGE_OVER_89 = 300


class PtbxlCohort(WfdbCohort):
    """PTB-XL in its official layout, at 100 Hz, or at 500 Hz where only ``records500`` is there.

    Rate, length and leads are fixed by the layout, so scanning opens the tables and one header only; each header is
    held against the layout when its signal is read. The label columns statements, diagnostic, form, rhythm,
    superclasses and subclasses hold tuples of names from ``scp_statements.csv``.
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
    version = "1.0.3"
    licence = "CC BY 4.0"
    doi = "10.13026/kfzx-aw45"
    how_to_get = "Run `python -m ecgstudy fetch ptbxl` (https://physionet.org/content/ptb-xl/1.0.3/)."

    @cached_property
    def resolution(self) -> int:
        """Sampling rate in Hz."""
        only_500 = (self._root / "records500").is_dir() and not (self._root / "records100").is_dir()
        return 500 if only_500 else 100

    @cached_property
    def _levels(self) -> dict[str, dict[str, str]]:
        """Label column -> statement code -> its name there."""
        table = self._read_table(STATEMENTS, (*_KINDS, *_CLASSES.values()))
        table = table.set_index(table.columns[0])
        levels = {"statements": {code: code for code in table.index}}
        levels |= {kind: {code: code for code in table.index[numbers(table[kind])[0] == 1]} for kind in _KINDS}
        diagnostic = table.loc[list(levels["diagnostic"])]
        classes = {level: diagnostic[column].items() for level, column in _CLASSES.items()}
        return levels | {level: {code: name for code, name in names if name} for level, names in classes.items()}

    @cached_property
    def _database(self) -> pd.DataFrame:
        """The publisher's table with record_id, stem (path without suffix) and problem ("" or a reason)."""
        column = {100: "filename_lr", 500: "filename_hr"}[self.resolution]
        table = self._read_table(DATABASE, (*_COLUMNS, column))
        ids, _ = numbers(table["ecg_id"])
        whole = (ids % 1 == 0) & (ids >= 0)
        record_id = [f"{int(i):05d}" if ok else text for i, ok, text in zip(ids, whole, table["ecg_id"], strict=True)]
        table = table.assign(record_id=record_id, stem=table[column])
        table["statements"] = [_parse_codes(text) for text in table["scp_codes"]]
        return table.assign(problem=self._problems(table, whole))

    def _problems(self, table: pd.DataFrame, whole: pd.Series) -> np.ndarray:
        """For each row of the table the first reason why it cannot be used, or ""."""
        known, stem = self._levels["statements"].keys(), table["stem"]
        unsafe = stem.str.contains(r"^/|\.\.|\\")
        folders = {PurePosixPath(path).parent for path in stem[~unsafe]}  # one look a folder
        there = {str(folder / file.name) for folder in folders for file in (self._root / folder).glob("*")}
        sex, fold = numbers(table["sex"])[0], numbers(table["strat_fold"])[0]
        reasons = {
            "has a record without a whole number as ecg_id": ~whole,
            "lists this record twice": table["record_id"].duplicated(keep=False),
            "does not say whose record this is (patient_id)": ~numbers(table["patient_id"])[0].ge(0),
            "states an age that is no number": numbers(table["age"])[1],
            "states a sex that is neither 0 nor 1": ~(sex.isin(_SEX) | (table["sex"] == "")),
            "states no fold from 1 to 10": ~fold.isin(range(1, 11)),
            "has statements (scp_codes) that cannot be read": table["statements"].isna(),
            f"has a statement that {STATEMENTS} does not list": [
                codes is not None and not known >= codes.keys() for codes in table["statements"]
            ],
            "leads outside the cohort's folder": unsafe,
            "names a header that is missing": ~(stem + ".hea").isin(there),
            "names a signal file that is missing": ~(stem + ".dat").isin(there),
        }
        return np.select([np.asarray(mask, dtype=bool) for mask in reasons.values()], list(reasons), default="")

    @cached_property
    def _scan(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        table = self._database
        if len(table) and table["problem"].str.endswith("is missing").all():
            raise DataNotFoundError(
                f"{self._root / DATABASE} lists {len(table)} records, but none of their files is there. "
                f"{self.how_to_get}"
            )
        bad, good = table[table["problem"] != ""], table[table["problem"] == ""].reset_index(drop=True)
        failures = [(row.record_id, DATABASE, row.problem, "download it again") for row in bad.itertuples()]
        return as_tables(self._records_of(good), failures)

    def _records_of(self, table: pd.DataFrame) -> pd.DataFrame:
        """Build the interface's columns for rows without a problem."""
        date = table.get("recording_date", pd.Series("", index=table.index))
        subject = numbers(table["patient_id"])[0].astype(int).astype(str)
        session, day = sessions(subject, pd.to_datetime(date, errors="coerce", format="ISO8601"))
        age, _ = numbers(table["age"])
        columns = {
            "record_id": table["record_id"],
            "subject_id": subject,
            "session": session,
            "session_day": day,
            "age": age.mask(age == _AGE_OVER_89, OVER_89_YEARS),
            "sex": [_SEX.get(code) for code in numbers(table["sex"])[0]],
            "fs": float(self.resolution),
            "leads": [STANDARD_LEADS] * len(table),
            "n_samples": self.resolution * SECONDS,
            "unit": self._unit(table),
            "strat_fold": numbers(table["strat_fold"])[0].astype(int),
        }
        for level, names in self._levels.items():
            columns[level] = [
                tuple(dict.fromkeys(names[code] for code in codes if code in names)) for codes in table["statements"]
            ]
        columns["likelihoods"] = [tuple(codes.values()) for codes in table["statements"]]
        scales = {f"relscale_{lead}": f"relscale_{lead.upper()}" for lead in STANDARD_LEADS}
        columns |= {ours: numbers(table[theirs])[0] for ours, theirs in scales.items() if theirs in table}
        return pd.DataFrame(columns, index=table.index)

    def _unit(self, table: pd.DataFrame) -> str:
        """Read the unit from the first good header; :meth:`header` holds every other record against it."""
        for stem in table["stem"]:
            try:
                return common_unit(read_header(self._root / f"{stem}.hea", self._root).channels)
            except RecordError:
                continue
        return "unknown"

    @cached_property
    def _stems(self) -> dict[str, str]:
        return dict(zip(self._database["record_id"], self._database["stem"], strict=True))

    def _header_path(self, record_id: str) -> Path:
        return self._root / f"{self._stems[record_id]}.hea"

    def header(self, record_id: str) -> Header:
        """Read the header of one record and hold it against what the layout promises."""
        header = super().header(record_id)
        unit = self._scan[0]["unit"].iloc[0]
        promised = (float(self.resolution), self.resolution * SECONDS, STANDARD_LEADS, unit)
        stated = (header.fs, header.n_samples, header.leads, common_unit(header.channels))
        for what, promise, claim in zip(("rate", "length", "leads", "unit"), promised, stated, strict=True):
            if promise != claim:
                raise RecordError(header.path, f"states another {what} than PTB-XL's layout ({claim}, not {promise})")
        return header

    def _files(self) -> list[Path]:
        usable = self._database["stem"][self._database["problem"] == ""]
        stems = [self._root / f"{stem}{suffix}" for stem in usable for suffix in (".hea", ".dat")]
        return [*(self._root / name for name in self.tables), *stems]


def _parse_codes(text: str) -> dict[str, float] | None:
    """Statements of one record ("{'NORM': 100.0}") with their likelihoods; None where malformed."""
    try:
        return {str(code): float(likelihood) for code, likelihood in ast.literal_eval(text).items()}
    except (AttributeError, MemoryError, RecursionError, SyntaxError, TypeError, ValueError):
        return None
