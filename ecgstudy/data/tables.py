"""Tables of text that come with records: read as they are written, and what is wrong with them said in a sentence."""

import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ecgstudy.errors import DataNotFoundError, StudyError

OVER_89_YEARS = 90.0
"""Age of all who are older than 89; some sources say no more of them (LUDB: ">89"; PTB-XL: 300)."""
OLDEST = 130
UNKNOWN = frozenset({"", "?", "-", "u", "unk", "unknown", "na", "n/a", "nan", "none", "null"})
"""What stands where nothing is known, in lower case."""
OTHER_SEXES = frozenset({"d", "divers", "diverse", "i", "intersex", "nonbinary", "non-binary", "o", "other", "x"})
"""What stands where a sex is stated that the study does not ask about, in lower case."""
_SEXES = {
    **dict.fromkeys(("f", "female", "woman", "w", "weiblich"), "F"),
    **dict.fromkeys(("m", "male", "man", "männlich"), "M"),
}
_AGE = re.compile(r"([<>]?)\s*(\d{1,3}(?:[.,]\d+)?)\s*(\+?)\s*(?:a|y|yr|yrs|years?)?", re.IGNORECASE)


def read_csv(path: Path, required: Sequence[str]) -> pd.DataFrame:
    """Read a UTF-8 CSV file with a header row as stripped text; a :class:`StudyError` says what is wrong with it."""
    try:
        with warnings.catch_warnings():
            # Rows with more fields than the header would otherwise lose the surplus.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding="utf-8-sig", index_col=False)
    except FileNotFoundError:
        raise DataNotFoundError(f"{path} is missing; download it again.") from None
    except UnicodeDecodeError:
        raise StudyError(f"{path} is not UTF-8 text; save it as UTF-8 (in a spreadsheet: CSV UTF-8).") from None
    except pd.errors.EmptyDataError:
        raise StudyError(f"{path} is empty; it needs a header row and one row a record.") from None
    except (pd.errors.ParserError, pd.errors.ParserWarning) as error:
        reason = str(error).strip().splitlines()[0]
        raise StudyError(f"{path} is malformed ({reason}); give every row as many fields as the header.") from None
    missing = ", ".join(column for column in required if column not in table.columns)
    if missing:
        raise StudyError(f"{path} has no column {missing}; its first line must name it, separated by commas.")
    return table.fillna("").apply(lambda column: column.str.strip())


def numbers(column: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Read text as numbers (NaN where empty or no finite number), and where a cell is neither empty nor a number."""
    values = pd.to_numeric(column, errors="coerce").astype(float)
    values = values.where(values.abs() != float("inf"))
    return values, values.isna() & (column != "")


def first_problem(checks: Mapping[str, Sequence[bool]]) -> np.ndarray:
    """For each row of a table the first problem (by name) that it has, or ""."""
    return np.select([np.asarray(mask, dtype=bool) for mask in checks.values()], list(checks), default="")


def stated(text: str) -> bool:
    """Whether a cell says anything."""
    return text.strip().lower() not in UNKNOWN


def age_of(text: str) -> float:
    """Age in years, :data:`OVER_89_YEARS` for all who are older than 89; NaN where it is unknown or no age."""
    match = _AGE.fullmatch(" ".join(text.split()))  # its expression tries every share of many blanks
    age = float(match[2].replace(",", ".")) if match and match[1] != "<" else float("nan")
    over_89 = 89 < age <= OLDEST or (age == 89 and (match[1] or match[3]))
    return OVER_89_YEARS if over_89 else age if age <= OLDEST else float("nan")


def sex_of(text: str) -> str | None:
    """Sex as "F" or "M", None where it is unknown or another word."""
    return _SEXES.get(text.strip().lower())
