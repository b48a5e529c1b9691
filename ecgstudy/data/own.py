"""Records of one's own: folders of WFDB records that leave their names behind at the door.

:class:`FolderCohort` reads a folder under the names that stand in it, for whoever sits in front of it (``doctor``).
:class:`OwnCohort` is what the study sees: the same records under keyed pseudonyms, without anything that a header or a
table says in free text. Everything downstream (stores, trials, tables, pages) is made from it alone.
"""

import hashlib
import hmac
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ecgstudy.data.base import RECORD_COLUMNS, Cohort, Signal
from ecgstudy.data.pseudonyms import pseudonym_key
from ecgstudy.data.simulator.people import ACTIVITIES
from ecgstudy.data.subjects import LABELS, Subjects, composed, contradictions, facts_of_comments, read_subjects
from ecgstudy.data.tables import age_of, sex_of, stated
from ecgstudy.data.wfdb_cohort import WfdbCohort
from ecgstudy.data.wfdb_files import (
    STANDARD_LEADS,
    UNCALIBRATED,
    Header,
    check_signal_files,
    checked_path,
    read_header,
    read_signal,
)
from ecgstudy.errors import DataNotFoundError, RecordError, StudyError
from ecgstudy.study.config import data_root

OWN = "wfdb-folder"
"""Folder of the data folder that holds the folders of one's own."""
OWN_PREFIX = "own-"
"""How the names of cohorts of one's own begin, "own-1" the first of the folders."""
SUBJECTS = "subjects.csv"
SUFFIXES = (".hea", ".dat", ".mat")
"""What a file's name may end with in a table: an unknown ending may be a name."""
MILLIVOLTS = {"mv": 1.0, "uv": 1e-3, "v": 1e3, "nv": 1e-6}
"""What a unit's name, whatever its capitals, is in mV."""
KNOWN_LEADS = frozenset((*STANDARD_LEADS, "MLI", "MLII", "MLIII", "V7", "V8", "V9", "V3R", "V4R", "VX", "VY", "VZ"))
DIAGNOSES = {
    **{"426783006": "SNR", "270492004": "IAVB", "164889003": "AF", "164890007": "AFL", "426627000": "Brady"},
    **{"713427006": "CRBBB", "713426002": "IRBBB", "445118002": "LAnFB", "39732003": "LAD", "164909002": "LBBB"},
    **{"251146004": "LQRSV", "698252002": "NSIVCB", "10370003": "PR", "284470004": "PAC", "427172004": "PVC"},
    **{"164947007": "LPR", "111975006": "LQT", "164917005": "QAb", "47665007": "RAD", "59118001": "RBBB"},
    **{"427393009": "SA", "426177001": "SB", "427084000": "STach", "63593006": "SVPB", "164934002": "TAb"},
    **{"59931005": "TInv", "17338001": "VPB", "733534002": "CLBBB", "6374002": "BBB", "365413008": "PRWP"},
}
"""SNOMED CT codes of the PhysioNet/CinC Challenges 2020 and 2021 and their abbreviations; others are not kept."""
KNOWN_LABELS = {
    "activity": tuple(ACTIVITIES),
    "electrode": ("AgAgCl", "chrome_nickel", "textile", "dry", "gel"),
    "diagnosis": (*DIAGNOSES.values(), "NORM", "MI", "STTC", "CD", "HYP", "LVH", "AFIB", "AFLT", "SR", "normal"),
}
"""Texts of the columns :data:`LABELS` that name nobody."""


class FolderCohort(WfdbCohort):
    """WFDB records in a folder and the folders below it, each known by its path without ``.hea``.

    ``subjects.csv`` (:mod:`ecgstudy.data.subjects`) says whose record is whose; what it leaves open is taken from
    header comments such as ``# Age: 63``. Without it every record is its own person; with it, a record that it does not
    list is left out and said so, because a person counted twice would leak between training and test.
    """

    name = OWN
    folders = (OWN,)
    marker = "**/*.hea"
    tables = (SUBJECTS,)
    licence = "yours to know: check that you may use the records"
    how_to_get = (
        f"Put WFDB records (.hea and .dat, in small letters) into a folder in data/{OWN}, as data/README.md describes."
    )

    def _holds(self, folder: Path) -> bool:
        return _holds_records(folder)

    @cached_property
    def paths(self) -> dict[str, Path]:
        """Every header below the folder, by its record's name."""
        return {self._record_id(path): path for path in sorted(headers_below(self.root))}

    def _header_path(self, record_id: str) -> Path:
        return self.paths[record_id]

    @cached_property
    def _named_by(self) -> dict[Path, list[Path]]:
        """Files that each header below the folder names."""
        return {path: super(FolderCohort, self)._named(path) for path in self.paths.values()}

    def _named(self, path: Path) -> list[Path]:
        return self._named_by[path]

    def _listed(self) -> list[str]:
        """Every header below the folder, apart from those that are segments of another record."""
        segments = {file for path, files in self._named_by.items() for file in files if file != path}
        return [record_id for record_id, path in self.paths.items() if path not in segments]

    @cached_property
    def subjects(self) -> Subjects | None:
        """What ``subjects.csv`` says; None where there is none."""
        path = self.root / SUBJECTS
        if not os.path.lexists(path):
            return None
        try:
            checked_path(path, self.root)
        except RecordError as wrong:
            raise StudyError(f"{path} {wrong.reason}; put the table itself there, so that you may read it.") from None
        return read_subjects(path)  # not what a link leads to, which may be called after somebody

    def _describe(self, record_id: str, header: Header) -> dict[str, Any]:
        path, written = self.root / SUBJECTS, composed(record_id)
        check_signal_files(header, self.root)  # what a header claims takes room in the store before it is read
        said = facts_of_comments(header.comments)
        facts = {"age": age_of(said.get("age", "")), "sex": sex_of(said.get("sex", ""))}
        unread = sum(pd.isna(value) and stated(said.get(name, "")) for name, value in facts.items())
        codes = said.get("dx", "").replace(",", " ").split()
        row = {"subject_id": record_id, "unit": unit_of(header), **facts}
        row |= {"diagnoses": tuple(DIAGNOSES[code] for code in codes if code in DIAGNOSES)}
        row |= {"from_header": tuple(name for name, value in facts.items() if pd.notna(value)), "unread": unread}
        if self.subjects is None:
            return row
        if written in self.subjects.problems:
            raise self.subjects.problems[written]
        if written not in self.subjects.rows.index:
            raise RecordError(path, "does not list this record", "add a row for it, or remove its files", written)
        own = self.subjects.rows.loc[written].drop("line").to_dict()
        told = {name for name in ("age", "sex") if pd.notna(own[name])}
        if named := own.pop("diagnosis", None):
            names = filter(None, map(str.strip, re.split(r"[;,|+]", named)))
            row["diagnoses"] = tuple(dict.fromkeys(DIAGNOSES.get(name, name) for name in names))
        row |= {name: value for name, value in own.items() if name not in facts or name in told}
        return row | {"from_header": tuple(name for name in row["from_header"] if name not in told)}

    def _disputed(self, rows: pd.DataFrame) -> dict[str, tuple[str, str]]:
        return contradictions(rows)

    def _orphans(self, listed: Sequence[str]) -> list[tuple[str, str, str, str]]:
        if self.subjects is None:
            return []
        absent = sorted({*self.subjects.rows.index, *self.subjects.problems} - {*map(composed, listed), ""})
        there = {composed(name).rpartition("/")[2] for name in listed}
        remedy = "add the record's .hea and .dat files, or remove the row"
        path = "write it as its path below this folder, as visit1/p07"
        why = "names a record that is not in the folder"
        found = [(name, SUBJECTS, why, path if Path(name).name in there else remedy) for name in absent]
        nameless = self.subjects.problems.get("")
        return found + ([(SUBJECTS, SUBJECTS, nameless.reason, nameless.remedy)] if nameless else [])

    def header(self, record_id: str) -> Header:
        """Read and check the header of one record, without a scan of the others."""
        return read_header(self._header_path(record_id), self.root)

    def signal(self, record_id: str) -> Signal:
        """Read one record, in mV where every lead's unit is a multiple of the volt, whatever its capitals."""
        header = self.header(record_id)
        signal, unit = read_signal(header, self.root, summed=True), unit_of(header)
        if unit == "mV":
            scale = np.array([MILLIVOLTS[channel.unit.lower()] for channel in header.channels], dtype=np.float32)
            signal = replace(signal, values=signal.values * scale[:, None])
        return replace(signal, unit=unit)

    def notes(self) -> list[str]:
        """Say what the records do not say themselves, without naming any."""
        records = self.records()
        found = []
        if self.subjects is None:
            found.append(f"There is no {SUBJECTS}: every record counts as a person of its own.")
            names = [path.name for path in self.root.iterdir() if re.match(r"subjects?\b", path.name, re.IGNORECASE)]
            if names:
                found.append(
                    f"A file with a similar name is not read; save it as CSV UTF-8, under the name {SUBJECTS}."
                )
        else:
            found += self.subjects.notes
        return found + self._unread_below() + self._from_headers(records)

    def _unread_below(self) -> list[str]:
        """Say how many tables and folders below the folder are not read."""
        tables = links = 0
        for place, inner, names in os.walk(self.root):
            inner[:] = [name for name in inner if not name.startswith(".")]
            links += sum(Path(place, name).is_symlink() for name in inner)
            tables += Path(place) != self.root and SUBJECTS in names
        found = []
        if tables:
            found.append(
                f"{SUBJECTS} in folders below this one is not read ({tables} found): put one table here, for all "
                "records, or give the study each folder by itself."
            )
        if links:
            found.append(f"Links to other folders are not followed ({links} found): put what they lead to here itself.")
        return found

    def _from_headers(self, records: pd.DataFrame) -> list[str]:
        """Say what is known from the headers' comments, and what they do not say clearly."""
        n_from = {name: sum(name in told for told in records["from_header"]) for name in ("age", "sex")}
        found = []
        if any(n_from.values()):
            found.append(
                f"The age of {n_from['age']} and the sex of {n_from['sex']} records are those of their header's "
                f"comments (Age:, Sex:), as with ECG-ID; {SUBJECTS} overrides them."
            )
        if records["unread"].any():
            found.append(f"{int((records['unread'] > 0).sum())} headers state an age or a sex that cannot be read.")
        return found


def unit_of(header: Header) -> str:
    """Name a record's unit: "mV" for any multiple of the volt, "uncalibrated", or "other" for whatever else it says."""
    units = {channel.unit.lower() for channel in header.channels}
    return "mV" if units <= set(MILLIVOLTS) else UNCALIBRATED if units == {UNCALIBRATED} else "other"


class OwnCohort(Cohort):
    """The same records under pseudonyms; no name, date, free text or path of theirs leaves this class."""

    licence, how_to_get = FolderCohort.licence, FolderCohort.how_to_get

    def __init__(self, name: str, root: Path) -> None:
        self.name = name  # type: ignore[misc]
        try:
            self._folder = FolderCohort(root)
        except DataNotFoundError as absent:
            told = str(absent).replace(str(root), name).replace(f"Cohort {OWN}", f"Cohort {name}")
            raise DataNotFoundError(told) from None
        # the name of a link, where it is one: what two of them lead to may have the same name
        self.root, self._place, self._key = self._folder.root, root.name, pseudonym_key(data_root() / OWN)

    def __reduce__(self) -> tuple[Callable[[str, str], "OwnCohort"], tuple[str, str]]:
        """Travel to another process, by way of the cache, without the name of any folder."""
        return _reopened, (self.name, self.pseudonym("folder", ""))

    def pseudonym(self, kind: str, name: str) -> str:
        """Keyed pseudonym of a "record", a "person" or the "folder": its initial and 12 hexadecimal digits."""
        text = f"{kind}\0{self._place}\0{name}".encode(errors="surrogateescape")
        return kind[0] + hmac.new(self._key, text, hashlib.sha256).hexdigest()[:12]

    @cached_property
    def _named(self) -> dict[str, str]:
        """Names of the records by their pseudonyms, without a look into their headers."""
        return {self.pseudonym("record", name): name for name in self._folder.paths}

    @cached_property
    def _scan(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        try:
            records, failures = self._folder.records(), self._folder.failures()
        except RecordError as error:  # of a folder
            raise RecordError(self.name, error.reason, error.remedy) from None
        except StudyError as damaged:  # the table
            raise StudyError(str(damaged).replace(str(self.root), self.name)) from None
        except Exception as strange:  # whose text may name a file
            told = f"cannot be read ({type(strange).__name__})"
            raise RecordError(self.name, told, "check its permissions and the disk that it lies on") from None
        labels = [label for label in LABELS if label in records]
        records = records.reindex(columns=[*RECORD_COLUMNS, "diagnoses", *labels])
        for column, kind in (("record_id", "record"), ("subject_id", "person")):
            records[column] = [self.pseudonym(kind, name) for name in records[column]]
        records["leads"] = records["leads"].map(safe_leads)
        # what counts a person's days may be the number of a case
        records["session"] = records.groupby("subject_id")["session"].rank("dense").astype(int)
        for label in labels:
            records[label] = numbered(records[label], KNOWN_LABELS[label])
        told = records["diagnoses"].explode().dropna().rename("diagnosis")
        names = dict(zip(told, numbered(told, KNOWN_LABELS["diagnosis"]), strict=True))
        records["diagnoses"] = records["diagnoses"].map(lambda cell: tuple(dict.fromkeys(names[one] for one in cell)))
        tables = failures["record_id"] == SUBJECTS
        failures["record_id"] = [self.pseudonym("record", name) for name in failures["record_id"]]
        failures.loc[tables, "record_id"] = SUBJECTS
        failures["file"] = [_safe_file(*row) for row in failures[["record_id", "file"]].values]
        # the order of the names tells of them
        return tuple(table.sort_values("record_id", ignore_index=True) for table in (records, failures))

    def notes(self) -> list[str]:
        """Say what the records do not say themselves, without naming any."""
        return self._folder.notes()

    def signal(self, record_id: str) -> Signal:
        """Read one record; its errors name its pseudonym alone."""
        try:
            signal = self._folder.signal(self._named[record_id])
        except RecordError as error:
            raise RecordError(_safe_file(record_id, error.file), error.reason, error.remedy) from None
        except OSError as broken:  # whose text names the file
            raise RecordError(record_id, f"cannot be read ({broken.strerror})", "check the disk it lies on") from None
        return replace(signal, leads=safe_leads(signal.leads))

    def digest(self) -> str:
        """SHA-256 (hex) over the records and what makes their pseudonyms: the key and the folder's name."""
        text = self._folder.digest() + self.pseudonym("folder", "")
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()

    def whois(self, pseudonym: str) -> str | None:
        """Give the name behind a pseudonym of this folder, for the terminal of whoever has the key; None if unknown."""
        records = persons = [*self._folder.paths]
        if subjects := self._folder.subjects:
            persons = subjects.rows["subject_id"].unique()
            records = [*records, *subjects.rows.index, *subjects.problems]
        named = [("record", name) for name in records] + [("person", name) for name in persons]
        return next((name for kind, name in named if self.pseudonym(kind, name) == pseudonym), None)


def _safe_file(record_id: str, file: str) -> str:
    """Name of a file for a table that others read."""
    suffix = Path(file).suffix
    return SUBJECTS if file == SUBJECTS else record_id + (suffix if suffix in SUFFIXES else "")


def _reopened(name: str, pseudonym: str) -> OwnCohort:
    """Cohort whose folder has a pseudonym, wherever it stands among the folders by now."""
    cohorts = (OwnCohort(name, root) for root in own_folders().values())
    return next(cohort for cohort in cohorts if cohort.pseudonym("folder", "") == pseudonym)


def headers_below(folder: Path) -> Iterator[Path]:
    """Headers in a folder and those below it, also those in capitals, which cannot be read, but must not be missed.

    What is hidden is a file manager's or in its bin, no record.

    Raises
    ------
    RecordError
        A folder may not be read, so that nobody knows what is missing.
    """

    def refuse(error: OSError) -> None:
        told = "holds a folder that may not be read"
        raise RecordError(folder, told, "give yourself permission to read it", Path(error.filename).name) from error

    for place, inner, files in os.walk(folder, onerror=refuse):
        inner[:] = [name for name in inner if not name.startswith(".")]
        yield from (Path(place, name) for name in files if name.lower().endswith(".hea") and not name.startswith("."))


def safe_leads(leads: Sequence[str]) -> tuple[str, ...]:
    """Leads by their standard names, and by their place where a header calls them something else."""
    return tuple(lead if lead in KNOWN_LEADS else f"lead {at}" for at, lead in enumerate(leads, start=1))


def numbered(column: pd.Series, known: Sequence[str]) -> pd.Series:
    """Labels, whatever their capitals, with every text outside `known` numbered: it may name somebody."""
    names, written = {text.casefold(): text for text in known}, column.map(str.casefold, na_action="ignore")
    others = sorted(set(written.dropna()) - set(names))
    told = written.map(names | {text: f"{column.name} {at}" for at, text in enumerate(others, start=1)})
    return told.astype(object).where(written.notna(), None)


def own_folders() -> dict[str, Path]:
    """Folders of own records by cohort name: ``wfdb-folder`` itself where records lie in it, else those in it."""
    base = data_root() / OWN
    if not (os.access(base, os.R_OK | os.X_OK) and base.is_dir()):
        return {}
    headers = (path for path in base.glob("*.hea") if not path.name.startswith("."))  # as macOS leaves them
    if os.path.lexists(base / SUBJECTS) or any(True for _ in headers):
        return {f"{OWN_PREFIX}1": base}
    folders = sorted(child for child in base.iterdir() if child.is_dir() and not child.name.startswith("."))
    return {f"{OWN_PREFIX}{n}": folder for n, folder in enumerate(filter(_holds_records, folders), start=1)}


def _holds_records(folder: Path) -> bool:
    """Whether there is a header below a folder, or one that may not be read."""
    try:
        return any(True for _ in headers_below(folder))
    except RecordError:
        return True


def near_misses() -> list[str]:
    """Folders of the data folder whose name is nearly that of the folder for own records."""
    base = data_root()
    names = [child.name for child in base.iterdir() if child.is_dir()] if base.is_dir() else []
    return [name for name in names if name != OWN and re.sub(r"[\W_]", "", name.lower()).rstrip("s") == "wfdbfolder"]
