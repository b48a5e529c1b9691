"""Every source of records of the study: one registry, and which of them a profile reads."""

import hashlib
import os
from contextlib import suppress
from functools import partial

import pandas as pd

from ecgstudy.data.base import Cohort
from ecgstudy.data.nsrdb import NsrdbCohort
from ecgstudy.data.own import OWN, FolderCohort, OwnCohort, near_misses, own_folders
from ecgstudy.data.ptb import PtbCohort
from ecgstudy.data.ptbxl import PtbxlCohort
from ecgstudy.data.public import EcgidCohort, LudbCohort, MitdbCohort, MotionCohort
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.errors import DataNotFoundError, StudyError
from ecgstudy.study.config import check_profile, data_root, is_own

_PUBLIC = (EcgidCohort, LudbCohort, MitdbCohort, MotionCohort, NsrdbCohort, PtbCohort, PtbxlCohort)
REGISTRY: dict[str, type[Cohort]] = {cohort.name: cohort for cohort in (SyntheticCohort, *_PUBLIC, FolderCohort)}
"""Cohort classes by name; a test holds each to a data card, a test and a row in ``data/README.md``."""


def open_cohort(name: str) -> Cohort:
    """Open a cohort by its name in :data:`REGISTRY`, or a folder of one's own by its number ("own-1"), pseudonymised.

    A ``DataNotFoundError`` says how to get files that are not there.
    """
    if root := own_folders().get(name):
        return OwnCohort(name, root)
    if name not in REGISTRY:
        raise StudyError(f"There is no cohort {name}; choose one of {', '.join((*REGISTRY, *own_folders()))}.")
    return REGISTRY[name]()


def cohort_table() -> pd.DataFrame:
    """Every cohort at a glance, one row each; `problem` says why one that is found could not be scanned."""
    own = {name: partial(FolderCohort, root) for name, root in own_folders().items()}
    public = {name: kind for name, kind in REGISTRY.items() if name != OWN or not own}
    rows = []
    for name, opened in (public | own).items():
        kind = REGISTRY.get(name, FolderCohort)
        row = {"name": name, "found": False, "records": None, "persons": None, "failures": None}
        row |= {"licence": kind.licence, "folder": "", "how_to_get": kind.how_to_get, "problem": ""}
        rows.append(row)
        try:
            cohort = opened()
            row |= {"found": True, "folder": str(cohort.root or "")}
            records, failures = cohort.records(), cohort.failures()
            row |= {"records": len(records), "persons": records["subject_id"].nunique(), "failures": len(failures)}
        except StudyError as error:
            row["problem"] = str(error) if row["found"] or name in own else ""
    return pd.DataFrame(rows).astype(dict.fromkeys(("records", "persons", "failures"), "Int64"))


def cohorts_of(profile: str) -> list[str]:
    """Names of the cohorts a profile reads: the synthetic one, every public one found, or the folders of one's own."""
    if check_profile(profile) == "demo":
        return [SyntheticCohort.name]
    names = list(own_folders()) if is_own(profile) else []
    for cohort in REGISTRY.values() if profile == "real" else ():
        try:
            names += [] if cohort.synthetic or cohort.name == OWN else [cohort().name]
        except DataNotFoundError:
            continue
    if names:
        return names
    folder, why = data_root(), ""
    if not os.access(folder, os.F_OK):
        why = " (there is no such folder)"
    elif not folder.is_dir():
        why = " (that is a file, not a folder)"
    elif any(os.access(place, os.F_OK) and not os.access(place, os.R_OK | os.X_OK) for place in (folder, folder / OWN)):
        why = " (you may not read it)"
    elif is_own(profile) and (near := near_misses()):
        why = f" (there is a folder {near[0]}: rename it to {OWN})"
    if is_own(profile):
        raise DataNotFoundError(
            f"No records of your own were found in {folder / OWN}{why}; put WFDB records (.hea and .dat, in small "
            f"letters) into a folder there (data/{OWN}/<name>/), as data/README.md describes, or set ECGSTUDY_DATA to "
            f"the folder that holds {OWN}."
        )
    raise DataNotFoundError(
        f"No real cohort was found in {folder}{why}; run `python -m ecgstudy fetch ecgid`, or set ECGSTUDY_DATA to "
        "the folder that holds your cohorts."
    )


def data_fingerprint(profile: str) -> dict[str, str]:
    """Cheap sign of a change in a profile's files (names, sizes, times), by cohort, for the engine to run again."""
    fingerprint = {}
    for name in cohorts_of(profile):
        cohort = open_cohort(name)
        root, digest = cohort.root, hashlib.sha256()
        if isinstance(cohort, OwnCohort):  # another key makes other pseudonyms
            digest.update(cohort.pseudonym("record", "").encode())
        for file in sorted(root.rglob("*")) if root else ():
            with suppress(OSError):  # a file that may not be looked at is its record's reason
                status = file.lstat()  # a link may lead nowhere
                line = f"{file.relative_to(root)}|{status.st_size}|{status.st_mtime_ns}\n"
                digest.update(line.encode(errors="surrogateescape"))
        fingerprint[name] = digest.hexdigest()[:16]
    return fingerprint
