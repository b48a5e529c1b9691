"""Errors that are a user's to mend: one sentence, the file, what to do.

The command line prints them without a stack trace and exits with a code other than 0; a notebook run stops with the
same sentence. All of them are defined here, so that whoever runs a notebook knows their names.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


AGAIN = "download or export the record again"
"""What to do about a damaged file unless there is something better."""


class StudyError(Exception):
    """Something the user can mend; its text is the whole message."""


class DataNotFoundError(StudyError):
    """A cohort's folder or index file is not where it is expected."""


class DiskError(StudyError):
    """A disk is full, or a folder refuses to be written: no reason to leave anything out, the same command goes on."""


class NotApplicableError(StudyError):
    """What a stage asks cannot be asked of these records; its text says why. The stage ends here, and is complete."""


class LeakageError(StudyError):
    """Two parts that must be disjoint share a person or a waveform."""


class NothingUsableError(StudyError):
    """No record of a cohort can be used (`exclusions`, as a store's, says why); other cohorts are unharmed."""

    def __init__(self, sentence: str, exclusions: "pd.DataFrame") -> None:
        self.exclusions = exclusions
        super().__init__(sentence)


class RecordError(StudyError):
    """One record cannot be used; the other records are unharmed.

    `file` is at fault, `reason` says in a few words what is wrong with it ("is shorter than its header says"), and
    `remedy` what to do about it. `detail` is what the file holds there: it stands in the message and in no table,
    because it may name somebody.
    """

    def __init__(self, file: Path | str, reason: str, remedy: str = AGAIN, detail: str = "") -> None:
        self.file, self.reason, self.remedy, self.detail = str(file), reason, remedy, detail
        super().__init__(f"{self.file} {reason}{f' ({detail[:60]})' if detail else ''}; {remedy}.")

    def __reduce__(self) -> tuple[type, tuple[str, str, str, str]]:
        """Rebuild from its parts, so that the error survives a process pool."""
        return type(self), (self.file, self.reason, self.remedy, self.detail)
