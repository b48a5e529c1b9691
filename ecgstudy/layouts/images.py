"""From pictures of paper: pages of a cohort in mV are drawn, scanned and digitised, and what is read is held to truth.

Anchors: the winner of the PhysioNet Challenge 2024 had 12.15 dB on hidden scans, the best open system 21.39 dB on pages
drawn of LUDB. A page is refused, or it is read; one that is read wrongly is the worst, and is counted for itself.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch

from ecgstudy.errors import StudyError
from ecgstudy.evaluate.bootstrap import Resamples, clustered_means
from ecgstudy.evaluate.results import estimate_results, results_table
from ecgstudy.evaluate.splits import RECORD, SUBJECT
from ecgstudy.experiment.jobs import Context, Work
from ecgstudy.layouts.beats import FS, SECONDS, beats, r_peaks, sheets
from ecgstudy.layouts.digitise import Reading as PageReading
from ecgstudy.layouts.digitise import read_page
from ecgstudy.layouts.layout import assigned
from ecgstudy.layouts.models import log_odds
from ecgstudy.layouts.pages import FIBRILLATES, asked_cohorts, cohort_of, open_context, pages_of
from ecgstudy.layouts.plan import (
    BEST,
    IMAGE,
    VIEWS,
    PageJob,
    Reading,
    diagnose,
    fibrillation,
    fibrillation_model,
    page_jobs,
    recipe_of,
    rhythm_jobs,
    trained,
)
from ecgstudy.layouts.printout import Printout, draw, random_style
from ecgstudy.layouts.results import Scores
from ecgstudy.layouts.rhythm import rhythm_features
from ecgstudy.layouts.scan import SEVERITIES, scan
from ecgstudy.signals.preprocess import fill_gaps, resample
from ecgstudy.study.config import effort

DIAGNOSED = "moderate"
"""Severity of the scans that are diagnosed, fixed beforehand."""
DPI = 200
DEMO_RECORDS = 3
DEVELOPED_ON = {"ludb": frozenset(map(str, range(1, 61)))}
"""Records on whose pages the digitiser was developed: they are diagnosed, and left out of its own figures."""
EVERY = 4
"""At the other severities every fourth record is read: a page takes a second."""
SHIFT_S = 0.01
"""A shift in time of the whole page up to this is no error: the paper does not say when it began."""
WRONG_DB = 6.0
"""A page that was read with less has another ECG on it, or was read as another layout: a silent failure."""


@dataclass(frozen=True)
class ImageJob:
    """Pages of a cohort in one view, scanned at one severity; `known` is the cohort that models have learnt from."""

    cohort: str
    known: str
    view: str
    severity: str
    seed: int

    @property
    def name(self) -> str:
        """Name for files and logs."""
        return f"{self.cohort}.{self.view}.{self.severity}.{self.seed}"

    def about(self) -> dict[str, object]:
        """First columns of a row about this job."""
        named = {"cohort": self.cohort, "protocol": self.severity, "attacker": IMAGE, "view": self.view}
        return named | {"seed": self.seed}

    def made_from(self, context: Context) -> dict[str, object]:
        """JSON values of everything that the reading depends on, besides code."""
        recipe = repr(recipe_of(context.profile, BEST))
        return {"job": [self.known, self.name], "effort": effort(context.profile), "recipe": recipe}


@dataclass(frozen=True)
class Digitised:
    """What became of pages (a row a record of `pages`), and diagnoses of those that were read, where they were asked.

    Columns of `pages`: record, person, layout, is_new (to the digitiser), refusal (a sentence or ""), snr_db,
    correlation, amplitude_error, wrong.
    """

    pages: pd.DataFrame
    readings: tuple[Reading, ...] = ()


def image_jobs(context: Context, seed: int) -> list[ImageJob]:
    """Every view and severity, of the first cohort in mV that is asked; none without one."""
    known, others = asked_cohorts(context)
    in_mv = [name for name in (*others, known) if (pages_of(context, name).records["unit"] == "mV").all()]
    views, severities = VIEWS, [*SEVERITIES]
    if effort(context.profile) == "demo":
        views, severities = VIEWS[:2], severities[:2]
    return [
        ImageJob(name, known, view, severity, seed) for name in in_mv[:1] for view in views for severity in severities
    ]


def digitised(context: Context, job: ImageJob) -> Digitised:
    """Draw, scan and read the pages of a cohort; diagnose those of :data:`DIAGNOSED` that were read."""
    asked, cohort = pages_of(context, job.cohort), cohort_of(context, job.cohort)
    layouts, rows, kept = assigned(asked.ids, job.view), [], {}
    new = [record_id not in DEVELOPED_ON.get(job.cohort, ()) for record_id in asked.ids]
    numbers = np.arange(len(new)) if job.severity == DIAGNOSED else np.flatnonzero(new)[::EVERY]
    for number in numbers[: DEMO_RECORDS if effort(context.profile) == "demo" else None].tolist():
        record_id, layout = asked.ids[number], layouts[number]
        signal, rng = cohort.signal(record_id), np.random.default_rng([job.seed, number])
        record = signal.values[:, : round(SECONDS * signal.fs)]
        printout = draw(record, signal.leads, signal.fs, layout, DPI, random_style(rng))
        about = {"record": asked.records[RECORD][number], "person": asked.records[SUBJECT][number]}
        about |= {"layout": layout.name, "is_new": new[number], "refusal": ""}
        about |= {"snr_db": math.nan, "correlation": math.nan}
        try:
            reading = read_page(scan(printout, job.severity, job.seed + number).image)
        except StudyError as refusal:
            rows.append(about | {"refusal": str(refusal), "amplitude_error": math.nan, "wrong": math.nan})
            continue
        found = agreement(printout, reading)
        wrong = reading.layout.name != layout.name or not found["snr_db"] >= WRONG_DB
        rows.append(about | found | {"wrong": float(wrong)})
        kept[number] = reading.values, reading.fs  # a reading holds its whole page
    table = pd.DataFrame(rows)
    if job.severity != DIAGNOSED or job.cohort == job.known or not kept:
        return Digitised(table)
    return Digitised(table, tuple(_diagnoses(context, job, kept)))


def agreement(printout: Printout, reading: PageReading) -> dict[str, float]:
    """How much of what is printed was read: snr_db, correlation and amplitude_error (share), over all segments.

    A shift of the whole page by up to 10 ms, and of the baseline of each segment, is no error; a segment of which a
    twentieth or more was not read counts as a flat line.
    """
    times = np.arange(printout.values.shape[1]) / printout.fs
    read_at = np.arange(reading.values.shape[1]) / reading.fs
    best = {"snr_db": -math.inf}
    # by whole samples: what lies between them would be smoothed
    for shift in np.arange(-round(SHIFT_S * reading.fs), round(SHIFT_S * reading.fs) + 1) / reading.fs:
        pairs = []
        for segment in printout.segments:
            span = slice(segment.start, segment.stop)
            truth = printout.values[printout.leads.index(segment.lead), span].astype(float)
            own = reading.values[reading.leads.index(segment.lead)].astype(float)
            read = np.interp(times[span] + shift, read_at, own, np.nan, np.nan)
            known = np.isfinite(truth) & np.isfinite(read)
            if known.mean() < 0.95:
                known, read = np.isfinite(truth), np.zeros_like(truth)
            pairs.append((truth[known] - truth[known].mean(), read[known] - read[known].mean()))
        truth, read = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        power, error = (truth**2).sum(), max(((truth - read) ** 2).sum(), 1e-12)
        if (snr := 10 * math.log10(max(power, 1e-12) / error)) > best["snr_db"]:
            spans = np.array([(np.ptp(one), np.ptp(other)) for one, other in pairs if np.ptp(one) > 0])
            level = math.sqrt(power * max((read**2).sum(), 1e-12))
            best = {"snr_db": snr, "correlation": float(truth @ read / max(level, 1e-12))}
            best["amplitude_error"] = float(np.median(np.abs(spans[:, 1] / spans[:, 0] - 1)))
    return best


def _diagnoses(context: Context, job: ImageJob, kept: Mapping[int, tuple[np.ndarray, float]]) -> list[Reading]:
    """Log odds by the model of the rhythm and the judged one, which have not seen the cohort, of pages that were read.

    A page that was refused gets the median of the others: it says nothing.
    """
    asked = pages_of(context, job.cohort)
    length = asked.values.shape[-1]
    values = np.full((len(asked.records), 12, length), np.nan, dtype=np.float32)
    for number, (read, fs) in kept.items():
        found = as_recorded(read, fs)[:, :length]
        values[number, :, : found.shape[1]] = found
    rows, shown = np.array([*kept]), np.isfinite(values)
    model, threshold = fibrillation_model(context, job.known, (), job.seed)
    odds = {IMAGE: model.score(rhythm_features(values[rows], shown[rows], FS))[:, None] - threshold}
    page, tasks = sheets(values[rows], shown[rows]), {IMAGE: [FIBRILLATES]}
    inputs, networks, made = torch.from_numpy(beats(page, r_peaks(page))), f"{BEST}_{IMAGE}", []
    seeds = range(job.seed, job.seed + recipe_of(context.profile, BEST).seeds)
    for network in [PageJob(job.known, job.cohort, BEST, (), seed) for seed in seeds]:
        judge, tasks[networks], _ = context.shared(network, lambda network=network: trained(context, network))
        odds[networks] = odds.get(networks, 0) + log_odds(judge, inputs).numpy() / len(seeds)
    for name, scores in odds.items():
        every = np.tile(np.median(scores, axis=0), (len(values), 1))
        every[rows] = scores
        made.append(Reading(asked.records[RECORD].tolist(), tasks[name], {(name, job.view): every}))
    return made


def as_recorded(read: np.ndarray, fs: float) -> np.ndarray:
    """Bring what was read of a page, (12, n) at `fs` Hz, to the models' rate, NaN where the page shows nothing."""
    found = resample(fill_gaps(read, fs)[0], fs, FS)
    nearest = np.minimum(np.rint(np.arange(found.shape[1]) * fs / FS).astype(int), read.shape[1] - 1)
    return np.where(np.isfinite(read[:, nearest]), found, np.float32(np.nan))


def digitise_results(values: Mapping[str, Digitised], jobs: Sequence[ImageJob], seed: int) -> pd.DataFrame:
    """Long table of what was read of pictures: one row a layout, severity and metric.

    Means over persons of snr_db, correlation and amplitude_error are over the pages that were read; `failed` is the
    share that was refused, `wrong` the share of those read that were read wrongly.
    """
    rows = []
    for job in jobs:
        if job.name not in values:
            continue
        pages = values[job.name].pages
        table = pages[pages["is_new"]]
        measured = table.assign(failed=(table["refusal"] != "").astype(float))
        columns = ["snr_db", "correlation", "amplitude_error", "failed", "wrong"]
        resamples = Resamples.draw(table["person"], seed)
        found = clustered_means(measured[columns], table["person"].to_numpy(), resamples, "no page was read")
        about: dict[str, Any] = {"cohort": job.cohort, "protocol": job.severity, "attacker": IMAGE, "view": job.view}
        for row in estimate_results(found, **about):
            unit = {"snr_db": "dB", "correlation": ""}.get(str(row["metric"]), row["unit"])
            rows.append(row | {"unit": unit, "name": f"digitise.{job.view}.{job.severity}.{row['metric']}"})
    return results_table(rows)


def diagnosed(values: Mapping[str, Digitised], jobs: Sequence[ImageJob], cohort: str) -> Scores:
    """Scores of the pages of a cohort that were diagnosed, as :func:`ecgstudy.layouts.results.scores_of` gives them."""
    readings = [
        each for job in jobs if job.cohort == cohort and job.name in values for each in values[job.name].readings
    ]
    return {
        cell: pd.DataFrame(scores, found.records, found.tasks)
        for found in readings
        for cell, scores in found.scores.items()
    }


def shared(profile: str, seed: int, device: str) -> Iterator[Work]:
    """Jobs of the stage that several processes may share."""
    context = open_context(profile, seed, device)
    yield diagnose, page_jobs(context, seed), context
    yield fibrillation, rhythm_jobs(context, seed), context
    yield digitised, image_jobs(context, seed), context
