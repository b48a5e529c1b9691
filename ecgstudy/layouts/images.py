"""From pictures of paper: pages of a cohort in mV are drawn, scanned and digitised, and what is read is held to truth.

Anchors: the winner of the PhysioNet Challenge 2024 had 12.15 dB on hidden scans, the best open system 21.39 dB on pages
drawn of LUDB. A page is refused, or it is read; one that is read wrongly is the worst, and is counted for itself.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.bootstrap import Resamples, clustered_means
from ecgstudy.evaluate.results import estimate_results, results_table
from ecgstudy.evaluate.splits import RECORD, SUBJECT
from ecgstudy.experiment.jobs import Context, Work
from ecgstudy.layouts import plan
from ecgstudy.layouts.beats import SECONDS, as_recorded, beats, r_peaks, sheets
from ecgstudy.layouts.digitise import Reading, read_page
from ecgstudy.layouts.layout import assigned
from ecgstudy.layouts.models import log_odds
from ecgstudy.layouts.pages import FIBRILLATES, asked_cohorts, cohort_of, open_context, pages_of
from ecgstudy.layouts.plan import BEST, IMAGE, VIEWS, PageJob
from ecgstudy.layouts.printout import Printout, draw, random_style
from ecgstudy.layouts.results import Scores
from ecgstudy.layouts.rhythm import rhythm_features
from ecgstudy.layouts.scan import SEVERITIES, scan
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
MEASURES = ("snr_db", "correlation", "amplitude_error")
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
        return self.cell | {"seed": self.seed}

    @property
    def cell(self) -> dict[str, str]:
        """What a row of results is about."""
        return {"cohort": self.cohort, "protocol": self.severity, "attacker": IMAGE, "view": self.view}

    def made_from(self, context: Context) -> dict[str, object]:
        """JSON values of everything that the reading depends on, besides code."""
        recipe = repr(plan.recipe_of(context.profile, BEST))
        return {"job": [self.known, self.name], "effort": effort(context.profile), "recipe": recipe}


@dataclass(frozen=True)
class Digitised:
    """What became of pages (a row a record of `pages`), and diagnoses of those that were read, where they were asked.

    Columns of `pages`: record, person, layout, is_new (to the digitiser), refusal (a sentence or ""), snr_db,
    correlation, amplitude_error, wrong.
    """

    pages: pd.DataFrame
    readings: tuple[plan.Reading, ...] = ()


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
        signal, rng = cohort.signal(asked.ids[number]), np.random.default_rng([job.seed, number])
        record = signal.values[:, : round(SECONDS * signal.fs)]
        printout = draw(record, signal.leads, signal.fs, layouts[number], DPI, random_style(rng))
        about = {"record": asked.records[RECORD][number], "person": asked.records[SUBJECT][number]}
        about |= {"layout": layouts[number].name, "is_new": new[number], "refusal": ""}
        found = dict.fromkeys((*MEASURES, "wrong"), math.nan)
        try:
            reading = read_page(scan(printout, job.severity, job.seed + number).image)
        except StudyError as refusal:
            about["refusal"] = str(refusal)
        else:
            found |= agreement(printout, reading)
            found["wrong"] = float(reading.layout.name != layouts[number].name or not found["snr_db"] >= WRONG_DB)
            kept[number] = reading.values, reading.fs  # a reading holds its whole page
        rows.append(about | found)
    is_asked = job.severity == DIAGNOSED and job.cohort != job.known and kept
    return Digitised(pd.DataFrame(rows), tuple(_diagnoses(context, job, kept)) if is_asked else ())


def agreement(printout: Printout, reading: Reading) -> dict[str, float]:
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
            truth = printout.values[printout.leads.index(segment.lead), segment.span].astype(float)
            own = reading.values[STANDARD_LEADS.index(segment.lead)].astype(float)
            read = np.interp(times[segment.span] + shift, read_at, own, np.nan, np.nan)
            known = np.isfinite(truth) & np.isfinite(read)
            if known.mean() < 0.95:
                known, read = np.isfinite(truth), np.zeros_like(truth)
            pairs.append((truth[known] - truth[known].mean(), read[known] - read[known].mean()))
        truth, read = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        power, error = (truth**2).sum(), max(((truth - read) ** 2).sum(), 1e-12)
        if (snr := 10 * math.log10(max(power, 1e-12) / error)) > best["snr_db"]:
            spans = np.array([(np.ptp(one), np.ptp(other)) for one, other in pairs if np.ptp(one) > 0])
            level = math.sqrt(power * max((read**2).sum(), 1e-12))
            off = float(np.median(np.abs(spans[:, 1] / spans[:, 0] - 1)))
            best = {"snr_db": snr, "correlation": float(truth @ read / max(level, 1e-12)), "amplitude_error": off}
    return best


def _diagnoses(context: Context, job: ImageJob, kept: Mapping[int, tuple[np.ndarray, float]]) -> Iterator[plan.Reading]:
    """Log odds by the model of the rhythm and the judged one, which have not seen the cohort, of pages that were read.

    A page that was refused gets the median of the others: it says nothing.
    """
    asked = pages_of(context, job.cohort)
    rows, values = [*kept], np.full_like(asked.values[[*kept]], np.nan)
    for own, (read, fs) in zip(values, kept.values(), strict=True):
        found = as_recorded(read, fs)[:, : values.shape[-1]]
        own[:, : found.shape[1]] = found
    page = sheets(values)
    model, threshold = plan.fibrillation_model(context, job.known, (), job.seed)
    odds = {IMAGE: model.score(rhythm_features(page))[:, None] - threshold}
    inputs, networks, tasks = beats(page, r_peaks(page)), f"{BEST}_{IMAGE}", {IMAGE: [FIBRILLATES]}
    seeds = range(job.seed, job.seed + plan.recipe_of(context.profile, BEST).seeds)
    for network in [PageJob(job.known, job.cohort, BEST, (), seed) for seed in seeds]:
        judge, tasks[networks], _ = context.shared(network, lambda network=network: plan.trained(context, network))
        odds[networks] = odds.get(networks, 0) + log_odds(judge, inputs) / len(seeds)
    for name, scores in odds.items():
        every = np.tile(np.median(scores, axis=0), (len(asked.values), 1))
        every[rows] = scores
        yield plan.Reading(asked.records[RECORD].tolist(), tasks[name], {(name, job.view): every})


def digitise_results(values: Mapping[str, Digitised], jobs: Sequence[ImageJob], seed: int) -> pd.DataFrame:
    """Long table of what was read of pictures: one row a layout, severity and metric.

    Means over persons of snr_db, correlation and amplitude_error are over the pages that were read; `failed` is the
    share that was refused, `wrong` the share of those read that were read wrongly.
    """
    rows = []
    for job in jobs:
        if job.name not in values:
            continue
        table = values[job.name].pages.query("is_new")
        measured = table.assign(failed=(table["refusal"] != "").astype(float))[[*MEASURES, "failed", "wrong"]]
        resamples = Resamples.draw(table["person"], seed)
        found = clustered_means(measured, table["person"].to_numpy(), resamples, "no page was read")
        for row in estimate_results(found, **job.cell):
            unit = {"snr_db": "dB", "correlation": ""}.get(str(row["metric"]), row["unit"])
            rows.append(row | {"unit": unit, "name": f"digitise.{job.view}.{job.severity}.{row['metric']}"})
    return results_table(rows)


def diagnosed(values: Mapping[str, Digitised], jobs: Sequence[ImageJob], cohort: str) -> Scores:
    """Scores of the pages of a cohort that were diagnosed, as :func:`ecgstudy.layouts.results.scores_of` gives them."""
    mine = [job.name for job in jobs if job.cohort == cohort and job.name in values]
    return {cell: table for name in mine for each in values[name].readings for cell, table in each.tables.items()}


def shared(profile: str, seed: int, device: str) -> Iterator[Work]:
    """Jobs of the stage that several processes may share."""
    context = open_context(profile, seed, device)
    yield plan.diagnose, plan.page_jobs(context, seed), context
    yield plan.fibrillation, plan.rhythm_jobs(context, seed), context
    yield digitised, image_jobs(context, seed), context
