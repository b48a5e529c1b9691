"""Who is who in records of one's own: ``subjects.csv`` as people write it, and the same facts in header comments.

Every mistake is one sentence with its line and column. What a cell holds is kept apart from the sentence (``detail``
of :class:`~ecgstudy.errors.RecordError`): tables are published, cells are not.
"""

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from ecgstudy.data.tables import OLDEST, OTHER_SEXES, age_of, sex_of, stated
from ecgstudy.errors import RecordError, StudyError

NEEDED = ("record", "subject_id")
LABELS = ("activity", "electrode", "diagnosis")
"""Columns beside person, session, age and sex that the study asks about; further ones are ignored."""
READ = (*NEEDED, "session", "age", "sex", *LABELS)
MAX_BYTES, MAX_ROWS, MAX_COLUMNS = 1 << 26, 1_000_000, 1000
MOST_YEARS_DATED, MOST_YEARS_UNDATED = 2.0, 15.0
"""Years by which ages of one person may differ: beyond the time between dated sessions, and without dates."""
_MONTH = "(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_DATE = (
    r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|(?:19|20)\d{6}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}"
    rf"|\d{{1,2}}\.?[\s/-]*{_MONTH}\.?[\s,/-]*\d{{4}}|{_MONTH}\.?\s*\d{{1,2}}[\s,]+\d{{4}})(?:[t ].*)?"
)
"""A cell that is written as a date, in small letters; a time of day may follow."""
_FORMS = ("%Y-%m-%d", "%Y.%m.%d", "%Y%m%d", "%d.%m.%Y", "%d-%b-%Y", "%b-%d-%Y")
_SLASHED = ("%d-%m-%Y", "%m-%d-%Y")
"""Of which a table uses one."""


@dataclass(frozen=True)
class Subjects:
    """What ``subjects.csv`` says.

    Attributes
    ----------
    rows : pandas.DataFrame
        Usable rows by record: line, subject_id, session (int) or date (where sessions are dates), age (years), sex
        ("F", "M", None), and those of :data:`LABELS` that the table has (None where unknown).
    problems : dict of str to RecordError
        Why the row of a record cannot be used.
    notes : tuple of str
        Sentences on the table as a whole, which name nobody.
    """

    rows: pd.DataFrame
    problems: dict[str, RecordError] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_subjects(path: Path) -> Subjects:
    """Read ``subjects.csv``, separated by commas, semicolons or tabs; lines that start with # are comments.

    Raises
    ------
    StudyError
        The table as a whole cannot be read; a row that cannot costs its own record only.
    """
    text, notes = _text(path)
    numbered = _rows(path, text)
    line, header = next(numbered, (1, []))
    if not header:
        raise StudyError(f"{path} is empty; its first line must name the columns {' and '.join(NEEDED)}.")
    names = [re.sub(r"[\s-]+", "_", name.strip().lower()) for name in header]
    for name in READ:
        if names.count(name) > 1:
            raise StudyError(f"{path}, line {line}: two columns are called {name}; rename or remove one.")
    missing = [name for name in NEEDED if name not in names]
    if missing:
        raise StudyError(f"{path}, line {line}: there is no column {' and '.join(missing)}; name it in this line.")
    if ignored := {name for name in names if name and name not in READ}:
        notes.append(f"Columns of {path.name} that are not used: {len(ignored)}.")
    known, table, problems = [name for name in READ if name in names], [], {}
    for line, cells in numbered:
        row = dict.fromkeys(known, "") | dict(zip(names, cells, strict=False)) | {"line": line}
        row["record"] = _record_name(row["record"])
        if surplus := [cell for cell in cells[len(names) :] if cell]:
            what = (f"line {line}, column {len(names) + 1}: has more cells than the first line names", "quote commas")
            problems[row["record"]] = RecordError(path, *what, detail=surplus[0])
        table.append(row)
    rows = pd.DataFrame(table, columns=[*known, "line"])
    facts, faults = _facts(rows)
    for column, wrong, what, remedy in faults:
        for record, line, cell in rows[wrong].reindex(columns=["record", "line", column]).values:
            error = RecordError(path, f"line {line}, column {column}: {what}", remedy, detail=cell)
            problems.setdefault(record, error)
    if others := int(_other_sex(rows).sum()):
        notes.append(f"Rows of {path.name} with another sex than F or M, which count as not stated: {others}.")
    usable = rows[["record", "line", "subject_id"]].assign(**facts)[~rows["record"].isin(problems)]
    if "date" in usable and usable["date"].isna().all():
        usable = usable.drop(columns="date").assign(session=1)
    return Subjects(usable.set_index("record"), problems, tuple(notes))


def _text(path: Path) -> tuple[str, list[str]]:
    """Text of the table, and what to say of its coding."""
    if path.stat().st_size > MAX_BYTES:
        raise StudyError(f"{path} is larger than {MAX_BYTES >> 20} MB; keep one short line a record.")
    raw = path.read_bytes()
    try:
        return raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"), []
    except UnicodeDecodeError as wrong:
        line = raw[: wrong.start].count(b"\n") + 1
    try:
        told = "is not UTF-8 and was read as Windows text (cp1252); save it as CSV UTF-8 if names look wrong."
        return raw.decode("cp1252"), [f"{path.name} {told}"]
    except UnicodeDecodeError:
        raise StudyError(f"{path}, line {line}: is not UTF-8 text; save it as CSV UTF-8.") from None


def _rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every row that is neither blank nor a comment."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")  # as Excel for Mac ends lines
    if text.count("\n") > MAX_ROWS:
        raise StudyError(f"{path} has more than {MAX_ROWS:,} lines; keep one line a record.")
    # before a quote in a comment swallows what follows; Excel's own first line is none of the table either
    text = re.sub(r"^[ \t]*#.*$|\A\"?sep=.\"?$", "", text, flags=re.MULTILINE)
    lines = [line for line in text.split("\n") if line.strip()]
    unquoted = re.sub(r'"[^"]*"', "", lines[0]) if lines else ""
    separator = max(",;\t", key=unquoted.count)
    if any(line.count(separator) > MAX_COLUMNS for line in lines):
        raise StudyError(f"{path} has a line of more than {MAX_COLUMNS:,} cells; keep the columns that are read.")
    reader = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            cells = [cell.strip() for cell in next(reader)]
        except StopIteration:
            return
        except csv.Error as broken:
            raise StudyError(
                f"{path}, line {line}: cannot be split into cells ({broken}); close every quote."
            ) from None
        if any(cells):
            yield line, cells


def _record_name(text: str) -> str:
    """Name of a record as its path below the folder, however its file was written."""
    name = re.sub(r"\.(hea|dat|mat)$", "", text.replace("\\", "/"), flags=re.IGNORECASE)
    return composed(name.removeprefix("./"))


def composed(name: str) -> str:
    """Name with each accent and its letter as one character: file systems and spreadsheets differ in this."""
    return unicodedata.normalize("NFC", name)


Fault = tuple[str, pd.Series, str, str]
"""Column, mask of the rows that cannot be used, what is wrong with its cells, and what to do."""


def _facts(rows: pd.DataFrame) -> tuple[dict[str, pd.Series], list[Fault]]:
    """Session (or date), age, sex and labels that the cells state, and what is wrong with those that state nothing."""
    told = {name: rows.get(name, pd.Series("", index=rows.index)) for name in ("session", "age", "sex")}
    facts = {"age": told["age"].map(age_of).astype(float), "sex": told["sex"].map(sex_of)}
    facts |= {label: rows[label].where(rows[label].map(stated), None) for label in rows.columns.intersection(LABELS)}
    unread = {name: facts[name].isna() & told[name].map(stated) for name in ("age", "sex")}
    unread["sex"] &= ~_other_sex(rows)
    nameless = ~rows["subject_id"].map(stated).astype(bool)  # or all whom nobody knows would be one person
    rounded = rows["subject_id"].str.fullmatch(r"\d+(?:[.,]\d+)?[eE]\+\d+").astype(bool)
    sessions, wrong = _sessions(told["session"])
    return facts | sessions, [
        ("record", rows["record"] == "", "names no record", "fill it in"),
        ("record", rows["record"].duplicated(keep=False), "lists its record twice", "keep one row a record"),
        ("subject_id", nameless, "names no person", "give each person an id, and none the word for unknown"),
        ("subject_id", rounded, "is a number that a spreadsheet has rounded", "export the column again as text"),
        ("age", unread["age"], "is no age", f"write years from 0 to {OLDEST}, or nothing"),
        ("sex", unread["sex"], "is no sex that the study knows", "write F, M or nothing"),
        *(("session", *fault, "number a person's days 1, 2, ... or write dates as 2024-03-31") for fault in wrong),
    ]


def _other_sex(rows: pd.DataFrame) -> pd.Series:
    """Whether each row states a sex that the study does not ask about."""
    return rows.get("sex", pd.Series("", index=rows.index)).str.lower().isin(OTHER_SEXES)


def _sessions(cells: pd.Series) -> tuple[dict[str, pd.Series], list[tuple[pd.Series, str]]]:
    """Date of every cell, or number where none is written as a date, and masks of those that cannot be used."""
    unknown = ~cells.map(stated)
    whole, written, dates = cells.str.fullmatch(r"0*[1-9]\d{0,8}(?:[.,]0+)?") & ~unknown, *_dates(cells)
    wrong = [(~(unknown | whole | written), "is neither a whole number from 1 nor a date")]
    if written.any():
        wrong.append((whole & ~written, "is a number where other rows have a date"))
        wrong.append((written & dates.isna(), "is no day of the calendar, or day and month cannot be told apart"))
        return {"date": dates}, wrong
    return {"session": cells.where(whole, "1").str.replace(",", ".").astype(float).astype(int)}, wrong


def _dates(cells: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Whether each cell is written as a date, and the day; NaT where the calendar has none.

    Two numbers before the year need one above 12 in some cell, which tells the day from the month.
    """
    written = cells.str.lower().str.extract(f"^{_DATE}$")[0]
    parts = written.str.replace(r"\W*([a-z]{3})[a-z]*\W*", r"-\1-", regex=True).str.strip("-")
    parts = parts.str.replace(r"[\s,/]+", "-", regex=True)
    days = {form: pd.to_datetime(parts, format=form, errors="coerce") for form in (*_FORMS, *_SLASHED)}
    found = pd.concat([days[form] for form in _FORMS], axis=1).bfill(axis=1).iloc[:, 0]
    readable = pd.concat([days[form].notna() for form in _SLASHED], axis=1, keys=_SLASHED)
    telling = readable[readable.sum(axis=1) == 1].any()
    for form in telling.index[telling] if telling.sum() == 1 else ():
        found = found.fillna(days[form])
    return written.notna(), found


def facts_of_comments(comments: Iterable[str]) -> dict[str, str]:
    """Text after ``Age:``, ``Sex:`` (or ``Gender:``) and ``Dx:`` in a header's comments, by age, sex and dx."""
    found: dict[str, str] = {}
    for line in comments:
        match = re.match(r"\s*(age|sex|gender|dx)\s*[:=]\s*(.*)", line, re.IGNORECASE)
        if match:
            found.setdefault({"gender": "sex"}.get(match[1].lower(), match[1].lower()), match[2].strip())
    return found


def _plain(name: str) -> str:
    """Id of a person without what spreadsheets and hands change: capitals, blanks, accents' coding, 0042 and 42.0."""
    bare = re.sub(r"\s+", "", unicodedata.normalize("NFKC", name).casefold())
    number = re.fullmatch(r"(\d++)(?:[.,]0++)?", bare)
    return number[1].lstrip("0") or "0" if number else bare


def contradictions(rows: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Reason and remedy for each record of a person whose ids, sexes or ages do not fit together.

    `rows` has record_id, subject_id, age and sex, and may have date.
    """
    found: dict[str, tuple[str, str]] = {}
    alike = rows["subject_id"].map(_plain)
    spelt = rows.groupby(alike)["subject_id"].transform("nunique") > 1
    sexes = rows.groupby("subject_id")["sex"].transform("nunique") > 1
    dates = rows.get("date", pd.Series(pd.NaT, index=rows.index))
    dated = dates.notna().groupby(rows["subject_id"]).transform("all")
    born = rows["age"] - (dates - dates.min()).dt.days.where(dated, 0) / 365.25
    by_person = born.groupby(rows["subject_id"])
    apart = by_person.transform("max") - by_person.transform("min")
    ages = apart > dated.map({True: MOST_YEARS_DATED, False: MOST_YEARS_UNDATED}).astype(float)
    told = "give each person an id of its own in subjects.csv, or mend the one that is wrong"
    for wrong, reason, remedy in (
        (
            spelt,
            "is of a person whose id differs from another one in capitals, blanks or zeros only",
            "spell ids alike",
        ),
        (sexes, "is of a person who is female in one record and male in another", told),
        (ages, "is of a person whose ages are too far apart to be of one person", told),
    ):
        for record in rows.loc[wrong.fillna(False), "record_id"]:
            found.setdefault(record, (reason, remedy))
    return found
