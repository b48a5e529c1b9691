"""The study's plan: its question, its stages in order, its profiles, and where it reads and writes.

JupyterLab starts a notebook in its own folder and papermill in the caller's, so no code of the study uses a relative
path: it asks here.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from ecgstudy.errors import StudyError

QUESTION = (
    "An electrocardiogram looks anonymous. How much does it give away about its owner, under splits that hold, which "
    "part of the heartbeat does so, and what can be done?"
)
PROFILES = {
    "demo": "Every number on this page comes from the built-in SYNTHETIC cohort: it shows that the study runs, "
    "and says nothing about real people.",
    "real": "The numbers on this page come from real recordings of the cohorts named in each stage.",
    "mine": "The numbers on this page come from your own records, under pseudonyms; this folder is not part of the "
    "repository. What is measured on the simulator is called synthetic.",
    "mine-quick": "A first look at your own records, under pseudonyms: networks were trained for a few epochs only. "
    "Who is not recognised here is not safe; the profile mine asks in earnest.",
}
"""What the front page says of each: the built-in synthetic cohort, every public cohort found, records of one's own."""
PACKAGE_ROOT = Path(__file__).resolve().parent.parent
PROJECT_ROOT = PACKAGE_ROOT.parent
TEMPLATES = PACKAGE_ROOT / "templates"


@dataclass(frozen=True)
class StageInfo:
    """One stage: a numbered notebook, its words on the front page, and the stages whose results it rests on."""

    name: str
    title: str
    question: str
    needs: tuple[str, ...] = ()


SUMMARY = "07_summary"
STAGES = (
    StageInfo(
        "01_ingestion",
        "Ingestion",
        "Which recordings of which people does the study rest on, and can its marked waves be believed?",
    ),
    StageInfo(
        "02_reidentification",
        "Re-identification",
        "Who can be recognised from an ECG, and how much of a published number survives under protocols that hold?",
        needs=("01_ingestion",),
    ),
    StageInfo(
        "03_dual_task",
        "Dual task",
        "Can one network tell who somebody is and what they are doing, later, through another electrode, in motion?",
        needs=("01_ingestion",),
    ),
    StageInfo(
        "04_attribution",
        "Attribution",
        "Which part of the heartbeat gives a person away, and can the methods that say so be believed?",
        needs=("02_reidentification",),
    ),
    StageInfo(
        "05_deidentification",
        "De-identification",
        "Can ECGs be shared so that diagnoses stay readable and nobody is recognised, by attackers who adapt?",
        needs=("01_ingestion",),
    ),
    StageInfo(
        "06_layouts",
        "Layouts",
        "Can one model read a diagnosis from any printed layout, in which most of every lead is missing?",
        needs=("01_ingestion",),
    ),
    StageInfo(
        SUMMARY,
        "Summary",
        "What was found, what was not, and which claims of the papers hold?",
        needs=(
            "01_ingestion",
            "02_reidentification",
            "03_dual_task",
            "04_attribution",
            "05_deidentification",
            "06_layouts",
        ),
    ),
)


def effort(profile: str) -> str:
    """Sizes of a profile's trainings and audits: those of "demo", in minutes, or those of "real"."""
    return "demo" if profile in ("demo", "mine-quick") else "real"


def is_own(profile: str) -> bool:
    """Whether a profile reads records of one's own."""
    return profile.startswith("mine")


def check_profile(profile: str) -> str:
    """Return `profile`, or raise :class:`StudyError` where there is no such profile."""
    if profile not in PROFILES:
        raise StudyError(f"There is no profile {profile!r}; choose one of {', '.join(PROFILES)}.")
    return profile


def _from_environment(variable: str, default: Path) -> Path:
    """Path named by an environment variable; a relative one starts at the project's root."""
    value = os.environ.get(variable)
    return (PROJECT_ROOT / Path(value).expanduser()).resolve() if value else default


def notebooks_dir() -> Path:
    """Folder of the numbered notebooks: ``ECGSTUDY_NOTEBOOKS`` (your own stages), else ``notebooks/``."""
    return _from_environment("ECGSTUDY_NOTEBOOKS", PROJECT_ROOT / "notebooks")


def data_root() -> Path:
    """Folder that holds the cohorts: ``ECGSTUDY_DATA``, else ``data/``."""
    return _from_environment("ECGSTUDY_DATA", PROJECT_ROOT / "data")


def cache_dir(profile: str) -> Path:
    """Folder of a profile's heavy intermediates: below ``ECGSTUDY_CACHE``, else ``data/cache/``."""
    return _from_environment("ECGSTUDY_CACHE", PROJECT_ROOT / "data" / "cache") / profile


def results_dir(profile: str) -> Path:
    """Folder of a profile's results: below ``ECGSTUDY_RESULTS``, else ``results/``."""
    return _from_environment("ECGSTUDY_RESULTS", PROJECT_ROOT / "results") / profile
