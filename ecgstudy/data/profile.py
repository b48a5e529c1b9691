"""Which cohorts a profile of the study reads."""

import hashlib
import os
from pathlib import Path

from ecgstudy.data import found_cohorts, open_cohort
from ecgstudy.errors import DataNotFoundError
from ecgstudy.study.config import check_profile, data_root


def cohorts_of(profile: str) -> list[str]:
    """Names of the cohorts a profile reads: the synthetic one, or every real one that is found.

    Raises
    ------
    DataNotFoundError
        The profile is "real" and the data folder holds no cohort.
    """
    if check_profile(profile) == "demo":
        return ["synthetic"]
    names = found_cohorts()
    if not names:
        folder = data_root()
        raise DataNotFoundError(
            f"No real cohort was found in {folder}{_unusable(folder)}; run `python -m ecgstudy fetch ecgid`, or set "
            "ECGSTUDY_DATA to the folder that holds your cohorts."
        )
    return names


def _unusable(folder: Path) -> str:
    """Say in brackets why nothing can be found in a folder; "" where it can be read."""
    if not os.access(folder, os.F_OK):
        return " (there is no such folder)"
    if not folder.is_dir():
        return " (that is a file, not a folder)"
    return "" if os.access(folder, os.R_OK | os.X_OK) else " (you may not read it)"


def data_fingerprint(profile: str) -> dict[str, str]:
    """Cheap sign of a change in the files that a profile reads, one entry a cohort.

    Made from names, sizes and times of the files, for the engine to decide
    whether a stage must run again; what a stage computes is keyed by content.
    """
    fingerprint = {}
    for name in cohorts_of(profile):
        root = open_cohort(name).root
        digest = hashlib.sha256()
        for file in sorted(root.rglob("*")) if root else ():
            status = file.lstat()  # a link may lead nowhere
            digest.update(f"{file.relative_to(root)}|{status.st_size}|{status.st_mtime_ns}\n".encode())
        fingerprint[name] = digest.hexdigest()[:16]
    return fingerprint
