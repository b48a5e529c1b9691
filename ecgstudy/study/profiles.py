"""The two profiles of the study: "demo" (built-in synthetic cohort) and "real" (every real cohort found)."""

from ecgstudy.errors import StudyError

PROFILES = ("demo", "real")


def check_profile(profile: str) -> str:
    """Return `profile`, or raise :class:`StudyError` where there is no such profile."""
    if profile not in PROFILES:
        raise StudyError(f"There is no profile {profile!r}; choose one of {', '.join(PROFILES)}.")
    return profile
