"""The two profiles of the study and the cohorts that each reads."""

from ecgstudy.cohorts import found_cohorts
from ecgstudy.errors import DataNotFoundError, StudyError
from ecgstudy.paths import data_root

PROFILES = ("demo", "real")


def check_profile(profile: str) -> str:
    """Return `profile`, or raise :class:`StudyError` where there is no such profile."""
    if profile not in PROFILES:
        raise StudyError(f"There is no profile {profile!r}; choose one of {', '.join(PROFILES)}.")
    return profile


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
        raise DataNotFoundError(
            f"No real cohort was found in {data_root()}; run `python -m ecgstudy fetch ecgid`, or set "
            "ECGSTUDY_DATA to the folder that holds your cohorts."
        )
    return names
