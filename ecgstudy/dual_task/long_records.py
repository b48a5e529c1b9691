"""Half an hour without a break: the MIT-BIH records as a stream."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ecgstudy.data.mitdb import MitdbCohort
from ecgstudy.dual_task.experiments import Budget, Variant, known_segments, train
from ecgstudy.dual_task.recordings import GRID_S, Reading, Recordings, open_recordings
from ecgstudy.dual_task.streaming import Stream, read_stream
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.protocols import TimeSeparated
from ecgstudy.evaluate.splits import RECORD, Split, segments
from ecgstudy.ingestion.stores import study_cohort
from ecgstudy.learn.base import SignalModel
from ecgstudy.learn.scoring import class_probabilities

LEAD = "MLII"
TRAIN_STRIDE_S = 5.0
"""Ten enrolled minutes a person need no window every second."""
EPOCHS = 6
PERSON_ALONE = Variant("person_alone", tasks=("person",))


@dataclass(frozen=True)
class LongRecords:
    """The network that knows the persons of the long records, and what it read.

    Attributes
    ----------
    recordings : Recordings
        Records with lead MLII.
    split : Split
        Enrolled minutes and probed minutes (25 to 30).
    whole : Stream
        One whole record.
    late : list of Stream
        The probed minutes of every record.
    activity : numpy.ndarray
        What the activity head of another network makes of the whole record, shape (n, n_activities).
    """

    recordings: Recordings
    split: Split
    whole: Stream
    late: list[Stream]
    activity: np.ndarray


def read_long_records(
    names: Sequence[str],
    profile: str,
    fs: float,
    reading: Reading,
    budget: Budget,
    runs: Path,
    device: str,
    activity_model: SignalModel,
) -> LongRecords | str:
    """Enrol everybody of MIT-BIH from their first minutes and read the records as streams.

    Parameters
    ----------
    names : sequence of str
        Cohorts of the profile.
    profile, fs, reading, budget, runs, device
        As elsewhere in the stage.
    activity_model : SignalModel
        Network with an activity head, trained on another cohort with the same `reading`.

    Returns
    -------
    LongRecords or str
        What was read, or the sentence that says why nothing could be.
    """
    if MitdbCohort.name not in names:
        return f"No half-hour record was followed: the {profile} profile has no MIT-BIH records here."
    try:
        recordings = open_recordings(study_cohort(MitdbCohort.name, 0), profile, fs, LEAD)
        return _read(recordings, reading, budget, runs, device, activity_model)
    except StudyError as impossible:
        return f"No half-hour record was followed: {str(impossible).removesuffix('.')}."


def _read(
    recordings: Recordings, reading: Reading, budget: Budget, runs: Path, device: str, activity_model: SignalModel
) -> LongRecords:
    """Enrol everybody and read the records; StudyError where a part of them has no usable window."""
    fs = recordings.fs
    split = TimeSeparated().splits(recordings.records, fs, 0)[0]
    run = train(
        recordings,
        known_segments(split),
        PERSON_ALONE,
        reading,
        budget.seeds[0],
        EPOCHS,
        runs,
        device,
        TRAIN_STRIDE_S,
    )
    late = []
    for record_id in split.probe[RECORD]:
        index = recordings.windows(split.probe[split.probe[RECORD] == record_id], reading.seconds, GRID_S)
        if len(index):
            late.append(read_stream(recordings, run.model, index, reading))
    if not late:
        raise StudyError("no usable window is left in minutes 25 to 30")
    first = recordings.records[recordings.records[RECORD] == late[0].index[RECORD].iloc[0]]
    index = recordings.windows(segments(first), reading.seconds, GRID_S)
    whole = read_stream(recordings, run.model, index, reading)
    return LongRecords(recordings, split, whole, late, _activity(recordings, index, activity_model, reading))


def _activity(recordings: Recordings, index: pd.DataFrame, model: SignalModel, reading: Reading) -> np.ndarray:
    """Probability of each activity; amplitudes in another unit are shifted to the middle of what the network knows."""
    samples = recordings.window_set(index, reading).samples
    if reading.amplitude:
        # counts and millivolts differ by a constant on the logarithmic scale; nobody knows which
        samples[:, 1] -= np.median(samples[:, 1]) - 1.0
    return class_probabilities(model, samples, "activity")
