"""Tables of text that come with records: read as they are written, and what is wrong with them said in a sentence."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ecgstudy.errors import DataNotFoundError, StudyError

OVER_89_YEARS = 90.0
"""Age given to persons whom a source reports only as "over 89" (LUDB: ">89"; PTB-XL: 300)."""
SEX = {"f": "F", "female": "F", "m": "M", "male": "M"}
"""Sex as sources write it, in lower case."""


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


def age_in_years(text: str) -> float:
    """Age as a source writes it; NaN where it is empty, unknown (MIT-BIH writes -1) or no number."""
    age = OVER_89_YEARS if text == ">89" else pd.to_numeric(text, errors="coerce")
    return age if 0 <= age < float("inf") else float("nan")
