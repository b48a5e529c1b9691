"""Every source of records of the study: one registry, one way to open."""

from pathlib import Path

import pandas as pd

from ecgstudy.data.base import Cohort
from ecgstudy.data.ecgid import EcgidCohort
from ecgstudy.data.ludb import LudbCohort
from ecgstudy.data.mitdb import MitdbCohort
from ecgstudy.data.motion import MotionCohort
from ecgstudy.data.ptbxl import PtbxlCohort
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.data.wfdb_folder import WfdbFolderCohort
from ecgstudy.errors import DataNotFoundError, StudyError

REGISTRY: dict[str, type[Cohort]] = {
    cohort.name: cohort
    for cohort in (
        SyntheticCohort,
        EcgidCohort,
        LudbCohort,
        MitdbCohort,
        MotionCohort,
        PtbxlCohort,
        WfdbFolderCohort,
    )
}
"""Cohort classes by name; a test holds each to a data card, a test file and a row in ``data/README.md``."""


def open_cohort(name: str, root: Path | None = None) -> Cohort:
    """Open a cohort by name.

    Parameters
    ----------
    name : str
        A key of :data:`REGISTRY`.
    root : Path, optional
        The cohort's folder; by default it is looked for in the data folder.

    Raises
    ------
    StudyError
        There is no cohort of that name, or a folder was given for a generated one.
    DataNotFoundError
        The cohort's files are not there; the message says how to get them.
    """
    if name not in REGISTRY:
        raise StudyError(f"There is no cohort {name}; choose one of {', '.join(REGISTRY)}.")
    cohort = REGISTRY[name]
    if root is None:
        return cohort()
    if cohort.synthetic:
        raise StudyError(f"Cohort {name} is generated and has no folder; leave {root} out.")
    return cohort(root)


def found_cohorts() -> list[str]:
    """Names of the real cohorts whose files are in the data folder."""
    return [name for name, cohort in REGISTRY.items() if not cohort.synthetic and _find(name) is not None]


def _find(name: str) -> Cohort | None:
    try:
        return open_cohort(name)
    except DataNotFoundError:
        return None


def cohort_table() -> pd.DataFrame:
    """Every cohort at a glance, one row each.

    Returns
    -------
    pandas.DataFrame
        Columns ``name``, ``found`` (bool), ``records``, ``persons``, ``failures`` (Int64, NA where
        not found), ``licence``, ``folder`` (str; "" where not found or generated), ``how_to_get``,
        ``problem`` (why a found cohort could not be scanned, else "").
    """
    table = pd.DataFrame([_table_row(name) for name in REGISTRY])
    return table.astype(dict.fromkeys(("records", "persons", "failures"), "Int64"))


def _table_row(name: str) -> dict[str, object]:
    card = REGISTRY[name].card
    row = {"name": name, "found": False, "records": None, "persons": None, "failures": None, "licence": card.licence}
    row |= {"folder": "", "how_to_get": card.how_to_get, "problem": ""}
    cohort = _find(name)
    if cohort is None:
        return row
    row |= {"found": True, "folder": str(cohort.root or "")}
    try:
        records, failures = cohort.records(), cohort.failures()
    except StudyError as error:
        return row | {"problem": str(error)}
    return row | {"records": len(records), "persons": records["subject_id"].nunique(), "failures": len(failures)}
