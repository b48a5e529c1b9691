"""The study's plan: its question and its stages, in order."""

from dataclasses import dataclass

QUESTION = (
    "An electrocardiogram looks anonymous and is not: it carries its owner's identity, sex and age. "
    "How much does it give away, under splits that hold, which part of the heartbeat does so, and what can be done?"
)


@dataclass(frozen=True)
class StageInfo:
    """One stage: a numbered notebook and the module of the same word.

    Attributes
    ----------
    name : str
        Notebook name without suffix.
    title, question : str
        For the report's front page, in plain words.
    """

    name: str
    title: str
    question: str


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
    ),
    StageInfo(
        "03_dual_task",
        "Dual task",
        "Can one network tell who somebody is and what they are doing, later, through another electrode, in motion?",
    ),
    StageInfo(
        "04_attribution",
        "Attribution",
        "Which part of the heartbeat gives a person away, and can the methods that say so be believed?",
    ),
)
