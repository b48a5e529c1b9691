"""PTB-XL: 21,799 twelve-lead records with 71 statements, in the official layout, whole or in part."""

import ast
from functools import cached_property
from pathlib import Path, PurePosixPath

import pandas as pd

from ecgstudy.data.base import STANDARD_LEADS, as_tables
from ecgstudy.data.tables import OVER_89_YEARS, first_problem, numbers
from ecgstudy.data.wfdb_cohort import WfdbCohort
from ecgstudy.data.wfdb_files import Header, common_unit, read_header
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
        only_500 = (self.root / "records500").is_dir() and not (self.root / "records100").is_dir()
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
        """The publisher's table: numbers, stem (path without suffix), codes, and problem ("" or a reason)."""
        column = {100: "filename_lr", 500: "filename_hr"}[self.resolution]
        text = self._read_table(DATABASE, (*_COLUMNS, column))
        table = pd.DataFrame({name: numbers(text[name])[0] for name in _COLUMNS if name != "scp_codes"})
        whole = (table["ecg_id"] % 1 == 0) & (table["ecg_id"] >= 0)
        ids = zip(table["ecg_id"], whole, text["ecg_id"], strict=True)
        table["record_id"] = [f"{int(number):05d}" if ok else cell for number, ok, cell in ids]
        table["stem"], table["codes"] = text[column], [_parse_codes(cell) for cell in text["scp_codes"]]
        table["date"] = pd.to_datetime(text.get("recording_date", ""), errors="coerce", format="ISO8601")
        scales = {f"relscale_{lead}": f"relscale_{lead.upper()}" for lead in STANDARD_LEADS}
        table = table.assign(**{ours: numbers(text[theirs])[0] for ours, theirs in scales.items() if theirs in text})
        known, stem = self._levels["statements"].keys(), table["stem"]
        unsafe = stem.str.contains(r"^/|\.\.|\\")
        folders = {PurePosixPath(path).parent for path in stem[~unsafe]}  # one look a folder
        there = {str(folder / file.name) for folder in folders for file in (self.root / folder).glob("*")}
        problem = {
            "has a record without a whole number as ecg_id": ~whole,
            "lists this record twice": table["record_id"].duplicated(keep=False),
            "does not say whose record this is (patient_id)": ~table["patient_id"].ge(0),
            "states an age that is no number": numbers(text["age"])[1],
            "states a sex that is neither 0 nor 1": ~(table["sex"].isin(_SEX) | (text["sex"] == "")),
            "states no fold from 1 to 10": ~table["strat_fold"].isin(range(1, 11)),
            "has statements (scp_codes) that cannot be read": table["codes"].isna(),
            f"has a statement that {STATEMENTS} does not list": [
                codes is not None and not known >= codes.keys() for codes in table["codes"]
            ],
            "leads outside the cohort's folder": unsafe,
            "names a header that is missing": ~(stem + ".hea").isin(there),
            "names a signal file that is missing": ~(stem + ".dat").isin(there),
        }
        return table.assign(problem=first_problem(problem))

    @cached_property
    def _scan(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        table = self._database
        if len(table) and table["problem"].str.endswith("is missing").all():
            raise DataNotFoundError(
                f"{self.root / DATABASE} lists {len(table)} records, but none of their files is there. "
                f"{self.how_to_get}"
            )
        bad, good = table[table["problem"] != ""], table[table["problem"] == ""].reset_index(drop=True)
        failures = [(row.record_id, DATABASE, row.problem, "download it again") for row in bad.itertuples()]
        rows = good[["record_id", "date"]].assign(
            subject_id=good["patient_id"].astype(int).astype(str),
            age=good["age"].mask(good["age"] == _AGE_OVER_89, OVER_89_YEARS),
            sex=[_SEX.get(code) for code in good["sex"]],
            fs=float(self.resolution),
            leads=[STANDARD_LEADS] * len(good),
            n_samples=self.resolution * SECONDS,
            unit=self._unit(),
            strat_fold=good["strat_fold"].astype(int),
        )
        for level, names in self._levels.items():
            known = [[names[code] for code in codes if code in names] for codes in good["codes"]]
            rows[level] = [tuple(dict.fromkeys(labels)) for labels in known]
        rows["likelihoods"] = [tuple(codes.values()) for codes in good["codes"]]
        return as_tables(rows.join(good.filter(like="relscale_")), failures)

    @cached_property
    def _headers(self) -> dict[str, Path]:
        usable = self._database[self._database["problem"] == ""]
        stems = zip(usable["record_id"], usable["stem"], strict=True)
        return {record_id: self.root / f"{stem}.hea" for record_id, stem in stems}

    def _unit(self) -> str:
        """Read the unit from the first good header; :meth:`header` holds every other record against it."""
        for path in self._headers.values():
            try:
                return common_unit(read_header(path, self.root).channels)
            except RecordError:
                continue
        return "unknown"

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
        samples = [path.with_suffix(".dat") for path in self._headers.values()]
        return [*(self.root / name for name in self.tables), *self._headers.values(), *samples]


def _parse_codes(text: str) -> dict[str, float] | None:
    """Statements of one record ("{'NORM': 100.0}") with their likelihoods; None where malformed."""
    try:
        return {str(code): float(likelihood) for code, likelihood in ast.literal_eval(text).items()}
    except (AttributeError, MemoryError, RecursionError, SyntaxError, TypeError, ValueError):
        return None
