"""What is explained of real people: probe windows of those on trial, by the networks of stage 02."""

from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from ecgstudy.attribution.exchange import Windows, prolonged
from ecgstudy.attribution.methods import Answers, Question, ask
from ecgstudy.attribution.waves import wave_codes
from ecgstudy.errors import NotApplicableError, StudyError
from ecgstudy.evaluate.protocols import some_on_trial
from ecgstudy.evaluate.splits import RECORD, SUBJECT
from ecgstudy.experiment.attackers import FittedNetwork
from ecgstudy.experiment.dataset import Dataset, without_lead
from ecgstudy.experiment.jobs import Context, Job, Outcome, run
from ecgstudy.learn.base import PERSON, UNKNOWN
from ecgstudy.learn.batches import encode
from ecgstudy.reidentification.plan import plan, protocols_on_trial
from ecgstudy.signals.delineation import FIDUCIAL_COLUMNS, transfer_boundaries
from ecgstudy.study.config import effort

NETWORKS = ("resnet1d", "transecg")
"""Networks that are explained."""
PROTOCOLS = ("cross_record", "time_separated", "cross_activity", "random_windows")
"""Protocols under which people are explained, best first; the last is leaky: for cohorts that allow nothing else."""
AUDITED = "cross_record"
"""The protocol of the causal check."""
NOTHING_TO_EXPLAIN = "no two persons have two records each, whose recognition in another one could be explained."
MOST_WINDOWS = {"real": 180, "demo": 10}
"""Windows of a cohort: the fewer persons, the more of each."""
AROUND_S = 2.0
"""Seconds around a window: waves at its edges need both their boundaries, and a warp reaches beyond it."""
LEAST_STRIDE_S = 1.0
"""Windows of one segment start at least so far apart: a beat apart, or they would repeat each other."""


@dataclass(frozen=True)
class Case:
    """Windows of one cohort and network, and what every method says about who the person is.

    `attempts` has one row a labelled window, those left out too: cohort, person, sex, age_group, record, start, reason
    (why its waves are not known, or None), transferred (whether a boundary came from the record's median beat).
    `right` says whether the network names the person: what it does not know cannot be explained. `on_trial` counts the
    persons who could be asked about; of many, some are drawn.
    """

    cohort: str
    protocol: str
    model: str
    windows: Windows
    attempts: pd.DataFrame
    right: np.ndarray
    on_trial: int
    answers: Answers = field(default_factory=Answers)


def network_jobs(context: Context, seed: int) -> list[Job]:
    """Jobs of stage 02 that fit a network, of one seed, without the protocols that the records refuse."""
    jobs = plan(context, seed)
    allowed = {(job.cohort, job.protocol.name) for job in protocols_on_trial(context, jobs)}
    ours = [job for job in jobs if job.attacker in NETWORKS and job.seed == seed]
    return [job for job in ours if (job.cohort, job.protocol.name) in allowed]


def audited_jobs(context: Context, seed: int) -> list[Job]:
    """Jobs of the first cohort that allows the protocol :data:`AUDITED`, one a network.

    Refuses where no cohort does, so that nobody can be recognised in another recording.
    """
    jobs = [job for job in network_jobs(context, seed) if job.protocol.name == AUDITED]
    if not jobs:
        raise NotApplicableError(NOTHING_TO_EXPLAIN)
    return [job for job in jobs if job.cohort == jobs[0].cohort]


def explain_cases(context: Context, seed: int) -> tuple[list[Case], Outcome]:
    """Explain every cohort and network under the best of :data:`PROTOCOLS`; the outcome has the refusals."""
    jobs = [job for job in network_jobs(context, seed) if job.protocol.name in PROTOCOLS]
    jobs.sort(key=lambda job: PROTOCOLS.index(job.protocol.name))
    best = {job.cohort: job.protocol.name for job in reversed(jobs)}
    jobs = [job for job in jobs if job.protocol.name == best[job.cohort]]
    outcome = run(explain_case, jobs, context, "explanations")
    if not outcome.values:
        raise NotApplicableError([*outcome.refusals["reason"], NOTHING_TO_EXPLAIN][0])
    return list(outcome.values.values()), outcome


def explain_case(context: Context, job: Job) -> Case:
    """Ask every method about windows of the people on trial."""
    case = case_windows(context, job)
    return replace(case, answers=ask(Question(context.fitted(job).model, PERSON, case.windows)))


def case_windows(context: Context, job: Job) -> Case:
    """Choose probe windows of a job's first split and delineate them; no method has explained them yet.

    Evenly spread over persons and their records. ``StudyError`` where the attacker reads averaged beats, which have no
    place in a window, or no probe window is left.
    """
    whole, fitted, dataset = context.splits(job)[0], context.fitted(job), context.dataset
    split, on_trial = some_on_trial(whole), whole.probe[SUBJECT].nunique()
    if not isinstance(fitted, FittedNetwork) or fitted.recipe.beats:
        raise StudyError(f"{job.attacker} reads averaged beats, not windows; explain transecg or resnet1d.")
    model, n_samples = fitted.model, fitted.recipe.n_samples(dataset.fs)
    most = MOST_WINDOWS[effort(context.profile)]
    chosen = spread_windows(dataset.pieces(split.probe), n_samples, -(-most // on_trial), dataset.fs)
    chosen = chosen.iloc[evenly(len(chosen), most)]
    labels = encode(chosen[SUBJECT], model.classes[PERSON])
    chosen = chosen.assign(target=labels)[labels != UNKNOWN].reset_index(drop=True)
    if chosen.empty:
        raise StudyError(f"No probe window of {job.cohort} is of a person whom the network has learnt.")
    more, cut = round(AROUND_S * dataset.fs), []
    for row in chosen.itertuples():
        segment = dataset.segment(row.record_id, row.segment_start, row.segment_stop)
        beats, filled = known_fiducials(dataset, row.record_id, row.segment_start, row.segment_stop)
        longer, beats = prolonged(segment[None], beats, more)
        start = row.start - row.segment_start
        around, beats = longer[:, start : start + n_samples + 2 * more], beats - start - more
        near = beats[(beats["r_peak"] > -more) & (beats["r_peak"] < n_samples + more)].reset_index(drop=True)
        cut.append((around, near, *wave_codes(near, n_samples), filled.any()))
    chosen = chosen.join(pd.DataFrame(cut, columns=["around", "fiducials", "codes", "reason", "transferred"]))
    attempts = _attempts(context, job.cohort, chosen)
    kept = chosen[attempts["reason"].isna()]
    if len(kept) < 2:
        raise StudyError(f"No two probe windows of {job.cohort} could be delineated; look at its failures by class.")
    around = np.stack(kept["around"])
    inside = around[..., more:-more]  # standardised as networks read it, with what lies around on the same scale
    around = (around - inside.mean(axis=-1, keepdims=True)) / inside.std(axis=-1, keepdims=True)
    known = np.stack(kept["codes"]), kept[SUBJECT].to_numpy(dtype=str), kept["fiducials"].to_numpy()
    windows = Windows(around, kept["target"].to_numpy(), dataset.fs, job.seed, more, *known)
    right = Question(model, PERSON, windows).probabilities(windows.samples).argmax(axis=1) == windows.targets
    return Case(job.cohort, job.protocol.name, job.attacker, windows, attempts, right, on_trial)


def spread_windows(segments: pd.DataFrame, length: int, most: int, fs: float) -> pd.DataFrame:
    """Choose up to `most` windows of each person, evenly spread over the person's segments.

    One row a window: subject_id, record_id, start (sample in the record), segment_start, segment_stop.
    """
    chosen = []
    for person, own in segments[segments["stop"] - segments["start"] >= length].groupby(SUBJECT):
        each, rows = -(-most // len(own)), []
        for segment in own.itertuples():
            room = segment.stop - segment.start - length
            n = int(min(each, room // (LEAST_STRIDE_S * fs) + 1))
            # a single window lies in the middle, where the filters of the record's ends do not reach
            places = np.linspace(0, room, n) if n > 1 else np.array([room / 2])
            starts = segment.start + places.astype(np.int64)
            rows += [(person, segment.record_id, start, segment.start, segment.stop) for start in starts]
        chosen += [rows[at] for at in evenly(len(rows), most)]
    return pd.DataFrame(chosen, columns=[SUBJECT, RECORD, "start", "segment_start", "segment_stop"])


def evenly(n: int, most: int) -> np.ndarray:
    """Positions of at most so many of `n` things, evenly spread over them."""
    return np.linspace(0, n - 1, min(most, n)).round().astype(np.int64)


def known_fiducials(dataset: Dataset, record_id: str, start: int, stop: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Give the fiducial points of a segment, in samples from its start, and which beats had gaps, (n_beats,).

    Gaps are filled from the record's median beat: :func:`~ecgstudy.signals.delineation.transfer_boundaries`.
    """
    beats = dataset.fiducials(record_id, 0, np.iinfo(np.int64).max)
    filled, gaps = transfer_boundaries({name: beats[name].to_numpy(dtype=float) for name in FIDUCIAL_COLUMNS})
    inside = (filled["r_peak"] >= start) & (filled["r_peak"] < stop)
    table = pd.DataFrame({name: places[inside] - start for name, places in filled.items()})
    return table, np.any([flags[inside] for flags in gaps.values()], axis=0)


def _attempts(context: Context, cohort: str, chosen: pd.DataFrame) -> pd.DataFrame:
    """Rows of :attr:`Case.attempts`; a record that could not be delineated at all keeps its own reason."""
    known = context.people.reindex(chosen[SUBJECT]).reset_index(names="person")[["person", "sex", "age_group"]]
    records = context.stores[cohort].records.set_index("record_id")["delineation_failure"]
    whole = chosen[RECORD].map(without_lead).map(records.rename(f"{cohort}/{{}}".format))
    reason = whole.where(chosen["reason"].notna() & whole.notna(), chosen["reason"])
    about = {"record": chosen[RECORD], "start": chosen["start"], "transferred": chosen["transferred"]}
    return known.assign(cohort=cohort, **about, reason=reason)
