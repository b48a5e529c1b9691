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

from ecgstudy.data.tables import OVER_89_YEARS, SEX
from ecgstudy.errors import RecordError, StudyError

NEEDED = ("record", "subject_id")
LABELS = ("activity", "electrode", "diagnosis")
"""Columns beside person, session, age and sex that the study asks about; further ones are ignored."""
READ = (*NEEDED, "session", "age", "sex", *LABELS)
OLDEST = 130
MAX_BYTES = 1 << 26
MOST_YEARS_DATED, MOST_YEARS_UNDATED = 2.0, 15.0
"""Years by which ages of one person may differ: beyond the time between dated sessions, and without dates."""
SEXES = {**SEX, "woman": "F", "man": "M"}
_UNKNOWN = frozenset({"", "?", "-", "u", "unk", "unknown", "na", "n/a", "nan", "none", "null"})
_AGE = re.compile(r"([<>]?)\s*(\d{1,3}(?:[.,]\d+)?)\s*(\+?)\s*(?:a|y|yr|yrs|years?)?", re.IGNORECASE)
_DATES = (
    (re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?:[T ].*)?"), "ymd"),
    (re.compile(r"((?:19|20)\d{2})(\d{2})(\d{2})"), "ymd"),
    (re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4})(?: .*)?"), "dmy"),
    (re.compile(r"(\d{1,2})[/-](\d{1,2})[/-](\d{4})(?: .*)?"), "slash"),
)


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
    ignored : tuple of str
        Columns that nobody asks about.
    """

    rows: pd.DataFrame
    problems: dict[str, RecordError] = field(default_factory=dict)
    ignored: tuple[str, ...] = ()


def read_subjects(path: Path) -> Subjects:
    """Read ``subjects.csv``, separated by commas, semicolons or tabs; lines that start with # are comments.

    Raises
    ------
    StudyError
        The table as a whole cannot be read; a row that cannot costs its own record only.
    """
    numbered = _rows(path)
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
    table, problems = [], {}
    for line, cells in numbered:
        row = dict(zip(names, cells, strict=False))
        row = {name: row.get(name, "") for name in READ if name in names} | {"line": line}
        row["record"] = _record_name(row["record"])
        surplus = [cell for cell in cells[len(names) :] if cell]
        if surplus:
            what = (f"line {line}, column {len(names) + 1}: has more cells than the first line names", "quote commas")
            problems[row["record"]] = RecordError(path, *what, detail=surplus[0])
        table.append(row)
    rows = pd.DataFrame(table, columns=[*(name for name in READ if name in names), "line"])
    for at, column, what, remedy in _row_problems(rows):
        record, line = rows["record"].iloc[at], rows["line"].iloc[at]
        reason = f"line {line}, column {column}: {what}"
        problems.setdefault(record, RecordError(path, reason, remedy, detail=rows[column].iloc[at]))
    rows = rows[~rows["record"].isin(problems)].set_index("record")
    return Subjects(_typed(rows), problems, tuple(name for name in dict.fromkeys(names) if name and name not in READ))


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every row that is neither blank nor a comment."""
    if path.stat().st_size > MAX_BYTES:
        raise StudyError(f"{path} is larger than {MAX_BYTES >> 20} MB; keep one short line a record.")
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as wrong:
        line = raw[: wrong.start].count(b"\n") + 1
        raise StudyError(f"{path}, line {line}: is not UTF-8 text; save it as CSV UTF-8.") from None
    # before a quote in a comment swallows what follows; Excel's own first line is none of the table either
    text = re.sub(r"^[ \t]*#.*$|\A\"?sep=.\"?\r?$", "", text, flags=re.MULTILINE)
    lines = [line for line in text.splitlines() if line.strip()]
    unquoted = re.sub(r'"[^"]*"', "", lines[0]) if lines else ""
    separator = max(",;\t", key=unquoted.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True)
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


def _row_problems(rows: pd.DataFrame) -> Iterator[tuple[int, str, str, str]]:
    """Position, column, what is wrong and what to do, for every row that cannot be used."""
    checks = [
        ("record", rows["record"] == "", "names no record", "fill it in"),
        ("record", rows["record"].duplicated(keep=False), "lists its record twice", "keep one row a record"),
        ("subject_id", rows["subject_id"] == "", "names no person", "fill it in"),
    ]
    if "age" in rows:
        wrong = rows["age"].map(lambda text: _fails(age_of, text))
        checks.append(("age", wrong, "is no age", f"write years from 0 to {OLDEST}, or nothing"))
    if "sex" in rows:
        wrong = rows["sex"].map(lambda text: _fails(sex_of, text))
        checks.append(("sex", wrong, "is no sex that the study knows", "write F, M or nothing"))
    if "session" in rows:
        checks += [("session", *check) for check in _session_problems(rows["session"])]
    for column, wrong, what, remedy in checks:
        for at in wrong.to_numpy(dtype=bool).nonzero()[0]:
            yield int(at), column, what, remedy


def _fails(read: object, text: str) -> bool:
    """Whether a reader of cells refuses a text."""
    try:
        read(text)  # type: ignore[operator]
    except ValueError:
        return True
    return False


def age_of(text: str) -> float:
    """Age in years; NaN where it is not known, 90 for all who are older than 89; ``ValueError`` for anything else."""
    if text.strip().lower() in _UNKNOWN:
        return float("nan")
    match = _AGE.fullmatch(text.strip())
    age = float(match[2].replace(",", ".")) if match else float("nan")
    if not match or not age <= OLDEST or match[1] == "<":
        raise ValueError(text)
    return OVER_89_YEARS if age > 89 or (age >= 89 and (match[1] or match[3])) else age


def sex_of(text: str) -> str | None:
    """Sex as "F" or "M", None where it is not known; ``ValueError`` for anything else."""
    said = text.strip().lower()
    if said not in SEXES and said not in _UNKNOWN:
        raise ValueError(text)
    return SEXES.get(said)


def _session_problems(column: pd.Series) -> Iterator[tuple[pd.Series, str, str]]:
    """Masks of the sessions that cannot be used, what is wrong with them, and what to do."""
    kind = column.map(_kind)
    dated = kind.isin(["ymd", "dmy", "slash"])
    remedy = "number a person's days 1, 2, ... or write dates as 2024-03-31"
    yield kind == "neither", "is neither a whole number from 1 nor a date", remedy
    if dated.any():
        yield kind == "number", "is a number where other rows have a date", remedy
    yield dated & _dates(column).isna(), "is no day of the calendar, or day and month cannot be told apart", remedy


def _kind(text: str) -> str:
    """Kind of a session's cell: "number", a kind of date, "unknown" or "neither"."""
    if text.lower() in _UNKNOWN:
        return "unknown"
    dated = next((kind for pattern, kind in _DATES if pattern.fullmatch(text)), None)
    whole = re.fullmatch(r"0*[1-9]\d{0,8}(?:[.,]0+)?", text)
    return dated or ("number" if whole else "neither")


def _dates(column: pd.Series) -> pd.Series:
    """Dates of a column's cells; those with slashes need a day above 12 somewhere that tells it from the month."""
    fields = column.map(lambda text: next((m for pattern, _ in _DATES if (m := pattern.fullmatch(text))), None))
    slashed = [match for match, text in zip(fields, column, strict=True) if match and _kind(text) == "slash"]
    day_first, month_first = (any(int(match[place]) > 12 for match in slashed) for place in (1, 2))
    order = {"ymd": (1, 2, 3), "dmy": (3, 2, 1), "slash": (3, 2, 1) if day_first else (3, 1, 2)}
    written = []
    for text, match in zip(column, fields, strict=True):
        kind = _kind(text)
        clear = match is not None and (kind != "slash" or day_first != month_first)
        written.append("-".join(match[place] for place in order[kind]) if clear and match else None)
    dates = pd.to_datetime(pd.Series(written, dtype=object), format="%Y-%m-%d", errors="coerce")
    return dates.set_axis(column.index)


def _typed(rows: pd.DataFrame) -> pd.DataFrame:
    """Cells of usable rows as what they mean."""
    blank = pd.Series("", index=rows.index)
    written = rows.get("session", blank)
    dates = _dates(written)
    facts = {"age": rows.get("age", blank).map(age_of).astype(float), "sex": rows.get("sex", blank).map(sex_of)}
    for label in rows.columns.intersection(LABELS):
        facts[label] = rows[label].where(~rows[label].str.lower().isin(_UNKNOWN), None)
    if dates.notna().any():
        return rows.drop(columns="session").assign(date=dates, **facts)
    number = written.where(~written.str.lower().isin(_UNKNOWN), "1").str.replace(",", ".").astype(float)
    return rows.assign(session=number.astype(int), **facts)


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
    number = re.fullmatch(r"0*(\d+?)(?:[.,]0+)?", bare)
    return number[1] if number else bare


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
