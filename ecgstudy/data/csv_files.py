"""Reading the CSV tables that come with a cohort, with errors that name the file."""

import warnings
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from ecgstudy.errors import DataNotFoundError, StudyError


def read_csv(path: Path, required: Sequence[str] = ()) -> pd.DataFrame:
    """Read a CSV file as text, every cell stripped.

    Parameters
    ----------
    path : Path
        A UTF-8 file with a header row.
    required : sequence of str
        Columns that it must have.

    Returns
    -------
    pandas.DataFrame
        One str column a CSV column; an empty cell is "".

    Raises
    ------
    DataNotFoundError
        There is no such file.
    StudyError
        The file is empty, not UTF-8, malformed, or lacks a required column.
    """
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
    missing = [column for column in required if column not in table.columns]
    if missing:
        raise StudyError(
            f"{path} has no column {', '.join(missing)}; its first line must name it, separated by commas."
        )
    return table.fillna("").apply(lambda column: column.str.strip())


def numbers(column: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Read a text column as numbers.

    Returns
    -------
    values : pandas.Series
        float; NaN where a cell is empty or no finite number.
    malformed : pandas.Series
        bool; True where a cell is neither empty nor a finite number.
    """
    values = pd.to_numeric(column, errors="coerce").astype(float)
    values = values.where(values.abs() != float("inf"))
    return values, values.isna() & (column != "")
