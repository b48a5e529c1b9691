"""``python -m ecgstudy read``: pictures of printed ECGs in, diagnoses out, and the leads and waves that speak for them.

A page is digitised, and what it shows is read by the models of stage 06 that have learnt from all records of a cohort:
that of the rhythm says whether it fibrillates, BeatECG what else. No word that stands on the page is told or kept.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.data.cohorts import cohorts_of
from ecgstudy.data.ptbxl import PtbxlCohort
from ecgstudy.errors import DataNotFoundError, NotApplicableError, StudyError
from ecgstudy.experiment.jobs import Context, do
from ecgstudy.layouts.beats import FS, PIECES, RHYTHM, WAVES, as_recorded, beats, r_peaks, sheets
from ecgstudy.layouts.digitise import digitise
from ecgstudy.layouts.models import log_odds, replaced
from ecgstudy.layouts.pages import CLASSES, SUBCLASS, SUPERCLASS, asked_cohorts, cohort_of, open_context, pages_of
from ecgstudy.layouts.plan import BEST, PageJob, fibrillation_model, recipe_of, trained
from ecgstudy.layouts.rhythm import FibrillationModel, rhythm_features
from ecgstudy.learn.base import SignalModel
from ecgstudy.study.config import data_root

LEARNT_FROM = PtbxlCohort.name
"""Where it is there, no other cohort is ingested."""
MOST_NAMED, LEAST_PROBABILITY = 3, 0.1
"""The likeliest diagnosis is named, and so many in all of those that are as likely and likelier than in the cohort."""
MOST_PIECES, LEAST_RISE = 3, 0.3
"""Pieces of evidence that are named, and the least that one must add to the log odds to speak for anything."""


@dataclass(frozen=True)
class Expert:
    """Models that have learnt from all records of a cohort."""

    cohort: str
    is_synthetic: bool
    n_records: int
    shares: pd.Series  # of the records that have each label, by the networks' tasks, in their order
    networks: tuple[SignalModel, ...]  # BeatECG, one a seed
    usual: np.ndarray  # beats of the mean page, see `models.replaced`
    rhythm: FibrillationModel
    threshold: float  # log odds from which it is fibrillation


def expert(context: Context, job: PageJob) -> Expert:
    """Learn from all records of a cohort: the model of the rhythm, and every seed of the judged network."""
    print(f"ecgstudy: learning from {job.cohort}, once; this takes a while.", file=sys.stderr, flush=True)
    pages, networks = pages_of(context, job.cohort), []
    rhythm, threshold = fibrillation_model(context, job.cohort, job.pair, job.seed)
    for seed in range(job.seed, job.seed + recipe_of(context.profile, job.model).seeds):
        network, tasks, windows = trained(context, replace(job, seed=seed))
        networks.append(network)
    shares, usual = pages.labels[tasks].mean(), windows.samples.mean(axis=0)
    about = job.cohort, cohort_of(context, job.cohort).synthetic, len(pages.records)
    return Expert(*about, shares, tuple(networks), usual, rhythm, threshold)


def expert_of(profile: str, seed: int) -> Expert:
    """Models of the first asked cohort of a profile, as they were remembered, or learning now.

    ``StudyError`` where no cohort of the profile has diagnoses of twelve leads.
    """
    try:
        # half-hour records of others would take minutes, and nothing is learnt from them
        context = open_context(profile, seed, "auto", [name for name in cohorts_of(profile) if name == LEARNT_FROM])
        cohort, _ = asked_cohorts(context)
    except (DataNotFoundError, NotApplicableError):
        raise StudyError(
            f"Diagnoses are learnt from PTB-XL, and it is not in {data_root()}; run `python -m ecgstudy fetch ptbxl`, "
            "or set ECGSTUDY_DATA to the folder that holds it."
        ) from None
    known, _, reason = do(expert, context, PageJob(cohort, cohort, BEST, (), seed))
    if reason is not None:
        raise StudyError(
            f"Nothing can be learnt from what is there of {cohort} ({reason.rstrip('.')}); run "
            "`python -m ecgstudy fetch ptbxl`, or set ECGSTUDY_DATA to a folder that holds more."
        )
    return known


def read_files(pictures: Sequence[str], dpi: float | None, profile: str, seed: int) -> Iterator[str]:
    """Diagnose pictures of printed ECGs; lines on each, its evidence and what it did not show among them.

    The models are asked for when the first picture was digitised.

    Raises
    ------
    StudyError
        No picture could be read, or there is nothing to learn from.
    """
    known = None
    for picture in pictures:
        try:
            reading = digitise(Path(picture), dpi=dpi)
            values = as_recorded(reading.values, reading.fs)
            features = rhythm_features(sheets(values[None]))
            if features["rate"].isna().all():
                raise StudyError(f"{picture}: fewer than three heartbeats were found; give a page that shows more.")
        except StudyError as refusal:
            yield f"Not read: {refusal}"
            continue
        known = known or expert_of(profile, seed)
        yield f"{picture}: {reading.summary}"
        yield from (f"  {line}" for line in diagnosis(known, values, features))
    if known is None:
        raise StudyError("No picture was read.")


def diagnosis(known: Expert, values: np.ndarray, features: pd.DataFrame) -> Iterator[str]:
    """Lines on a page: fibrillation and why, the likeliest diagnoses and why, what was not shown, and a warning.

    Parameters
    ----------
    values : numpy.ndarray
        (12, n_samples) in mV at :data:`~ecgstudy.layouts.beats.FS`, NaN where the page shows nothing.
    features : pandas.DataFrame
        Row of :func:`~ecgstudy.layouts.rhythm.rhythm_features` of the page.
    """
    sheet = sheets(values[None])
    inputs = beats(sheet, r_peaks(sheet))
    yield from _fibrillation(known, features)
    yield from _diagnoses(known, inputs)
    yield from _unseen(values, inputs[0])
    loud = "SYNTHETIC, MEANS NOTHING: it has seen a simulator's hearts alone. " if known.is_synthetic else ""
    yield (
        f"{loud}A study's model, learnt from {known.n_records:,} records of {known.cohort}, and no medical device: it "
        "may be wrong; treat nobody by it."
    )


def _fibrillation(known: Expert, features: pd.DataFrame) -> Iterator[str]:
    """Whether a page fibrillates, and what each kind of evidence says, against what is usual without fibrillation."""
    row, score = features.iloc[0], float(known.rhythm.score(features)[0])
    p_waves = f"{max(row['p_coherence'], 0):.0%} of what stands before the QRS repeats from beat to beat"
    seen = {
        "irregularity": f"RR intervals change by {row['rr_rmssd']:.0%} from beat to beat, {row['rate']:.0f} beats/min",
        "p_wave": f"P waves: {p_waves if np.isfinite(row['p_coherence']) else 'beats follow too fast to see any'}",
        "ectopy": f"ectopy: {row['ectopic']:.0%} of beats look unlike the others, {row['premature']:.0%} come early",
    }
    told = "YES" if score >= known.threshold else "no"
    yield f"Atrial fibrillation: {told} (log odds {score:+.1f}, yes from {known.threshold:+.1f} on)"
    for kind, rise in known.rhythm.evidence(features).iloc[0].items():
        speaks = "speaks for it" if rise > LEAST_RISE else "speaks against it" if rise < -LEAST_RISE else "as usual"
        yield f"  {seen[str(kind)]}: {speaks} ({rise:+.1f})"


def _diagnoses(known: Expert, inputs: np.ndarray) -> Iterator[str]:
    """Likeliest diagnoses of a page, beats (1, N_ROWS, POINTS), and the pieces of it that speak most for each."""
    odds = np.mean([log_odds(network, inputs)[0] for network in known.networks], axis=0)
    falls = np.mean([replaced(network, inputs, known.usual)[0] for network in known.networks], axis=0)
    # what a page does not show is no evidence, though the usual record would say something else
    there = [lead == RHYTHM or inputs[0, STANDARD_LEADS.index(lead), WAVES[wave]].any() for lead, wave in PIECES]
    table = pd.DataFrame({"probability": expit(odds), "share": known.shares, "task": range(len(odds))})
    kind = SUBCLASS if any(name.startswith(SUBCLASS) for name in table.index) else SUPERCLASS
    table = table.filter(regex=f"^{kind} ", axis=0).sort_values("probability", ascending=False)
    named = (table["probability"] >= LEAST_PROBABILITY) & (table["probability"] > table["share"])
    named.iloc[0] = True
    for label, row in table[named].head(MOST_NAMED).iterrows():
        code = str(label).removeprefix(f"{kind} ")
        words = f"{CLASSES.at[code, 'words']} ({code})" if code in CLASSES.index else code
        yield f"{words}: {row['probability']:.0%}, and {row['share']:.1%} of the records learnt from"
        fall = pd.Series(falls[:, int(row["task"])], pd.MultiIndex.from_tuples(PIECES))[there]
        most = fall[fall > LEAST_RISE].nlargest(MOST_PIECES)
        told = [f"{'' if lead == RHYTHM else f'{wave} in '}{lead} ({rise:+.1f})" for (lead, wave), rise in most.items()]
        yield f"  for it: {', '.join(told) or 'no lead or wave by itself'}"


def _unseen(values: np.ndarray, inputs: np.ndarray) -> Iterator[str]:
    """Say what a page did not show: time of each lead, and leads without a beat."""
    seconds = pd.Series(np.isfinite(values).sum(axis=1) / FS, STANDARD_LEADS).round(1)
    parts = [f"{', '.join(leads)} for {time:g} s" for time, leads in seconds.groupby(seconds).groups.items()]
    yield f"Shown of {values.shape[1] / FS:g} s: {'; '.join(parts)}; the rest was not seen"
    if blind := [lead for lead, beat in zip(STANDARD_LEADS, inputs, strict=False) if not beat.any()]:
        yield f"No beat was seen in {', '.join(blind)}"
