"""Do methods point to what a network reads? Networks whose answer is known, and the audit on them.

The simulator draws persons who are alike in everything but one cue: the shape of waves, an interval, or the height of
the whole signal. Every record is rendered twice with the same random numbers, with the cue and without it, so that
the exact counterfactual of each window is known; exchanged wave by wave it gives the exact effect of each wave on the
network at hand. How far two such persons differ is chance, so several cohorts are drawn, each read by networks of its
own seed. To add a cue, register it in :data:`CUES`.

Two things that the study does to real records would carry the cue out of its wave and are left out here: the band-pass
filter, which rings, and the standardisation of each window, after which a tall R wave makes the P wave small. Windows
are raw samples less the median and over the standard deviation of ALL training records. And since a network may lean
on waves without learning anything from them (to find the T wave after a QRS complex), every wave of a training record
that has no part in the cue is scaled by a random factor. Records with the same number share rate and drift, whoever's
they are, so that persons' averages differ by the cue alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy.ndimage import binary_dilation

from ecgstudy.attribution.exchange import DONOR, EVERYBODY, FACTORS, OWN_TIMING, Windows
from ecgstudy.attribution.methods import METHODS, NONE, PAIRS, ZERO, Answers, Method, Question, ask
from ecgstudy.attribution.shares import drawn_shares, estimates, over_controls, pooled, spoken
from ecgstudy.attribution.waves import WAVES, fiducials_of_boundaries, wave_codes
from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.data.simulator import people
from ecgstudy.data.simulator.heart import COMPONENT_WAVE, NORMAL, SINUS_RHYTHM
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.bootstrap import Resamples
from ecgstudy.evaluate.results import intervals
from ecgstudy.experiment.jobs import Context, Outcome, run
from ecgstudy.learn.base import PERSON, SignalModel
from ecgstudy.learn.batches import Augmentation, WindowSet
from ecgstudy.learn.models import create_model
from ecgstudy.learn.train import TrainingSettings, fit
from ecgstudy.study.config import effort

SHAPE, TIMING = "shape", "timing"
FS = 100.0
SECONDS, RECORD_SECONDS = 4.0, 8.0
LEAD = "II"
"""All waves are large in it."""
PERSONS = 4
NOISE_MV = 0.01
HIGHEST = 1.5
"""In training records every wave without a part in the cue is scaled by a random factor from 0 to this."""
MARGIN_S = 0.02
"""A wave's edge is a contrast between samples inside and outside of it, so the waves of a cue reach so far beyond their
boundaries where samples are added up by wave."""
LEAST_MASS, MOST_ELSEWHERE = 0.80, 0.10
"""Mass that a trusted method has where the cue is, and that one trusted for timing has in intervals where it is not."""
NUMBERS = ("evidence_removed", "mass_in_cue", "margin_over_control", "in_intervals")
"""What is removed by the baseline; the sum over factors of the smaller of the method's share and the exact one; by how
much that exceeds the highest of the controls', paired by person; the share of all intervals."""
PART = 0.01
"""Share of what a cue changes in the samples from which on a wave is part of it."""


@dataclass(frozen=True)
class Cue:
    """What tells planted persons apart: the shape of `waves` (the simulator's), an `interval`, or the `height` of all.

    Persons are spread evenly over `spread` either side of the mean: of an interval in the units of its field in the
    simulator, of heights in natural logarithms, of ST deviations in multiples of the mean one. Shapes are drawn.
    """

    waves: tuple[str, ...] = ()
    interval: str = ""
    field: str = ""
    spread: float = 0.0


CUES = {
    "P": Cue(("P",)),
    "QRS": Cue(("QRS",)),
    "T": Cue(("T",)),
    "ST": Cue(("ST",), spread=10.0),
    "P+T": Cue(("P", "T")),
    "amplitude": Cue(("P", "QRS", "ST", "T"), spread=0.35),
    "PR": Cue(interval="PR interval", field="pr", spread=0.045),
    "QT": Cue(interval="QT interval", field="qtc", spread=0.042),
    "RR": Cue(interval="RR interval", field="heart_rate", spread=20.0),
}
"""Cues by name."""
FINE = "transecg_40ms"
NETWORKS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "resnet1d": ("resnet1d", {"learning_rate": 5e-3}),
    "transecg": ("transecg", {"learning_rate": 3e-3}),
    FINE: ("transecg", {"learning_rate": 3e-3, "patch_seconds": 0.04}),
}
"""Networks and their arguments; the last has the patches that the paper's claims need."""


@dataclass(frozen=True)
class Size:
    """How large a planted experiment is: cues, cohorts of each, records of a person to learn and to explain.

    And the networks, with the epochs of each and sizes that are not its own.
    """

    cues: tuple[str, ...]
    cohorts: int
    records: int
    held_out: int
    networks: Mapping[str, tuple[int, dict[str, Any]]]


SIZES = {
    "demo": Size(
        ("T", "P+T", "PR"), 1, 60, 3, {"resnet1d": (8, {}), "transecg": (14, {"n_layers": 2, "dropout": 0.0})}
    ),
    "real": Size(tuple(CUES), 3, 120, 6, {"resnet1d": (15, {}), "transecg": (30, {}), FINE: (20, {})}),
}
"""By profile. The demo's TransECG has two blocks instead of four, to learn within seconds."""


@dataclass(frozen=True)
class PlantedJob:
    """One cohort of planted persons, every network on it; `seed` is that of networks and methods."""

    cue: str
    cohort_seed: int
    seed: int

    @property
    def name(self) -> str:
        """Name for files and logs."""
        return f"{self.cue}.{self.cohort_seed}.{self.seed}"

    def about(self) -> dict[str, object]:
        """First columns of a row about this job."""
        return asdict(self)

    def made_from(self, context: Context) -> dict[str, object]:
        """JSON values that an audit depends on, besides code."""
        return {"job": self.name, "size": asdict(SIZES[effort(context.profile)])}


@dataclass(frozen=True)
class Audit:
    """What every method says about windows of one network, and the truth.

    `truth` is the exact effect, (n, n_factors). `right` says where the network names the person, `persons` are named
    after their cohort.
    """

    cue: str
    model: str
    persons: np.ndarray
    right: np.ndarray
    truth: np.ndarray
    answers: Answers = field(default_factory=Answers)

    @property
    def found(self) -> bool:
        """Whether the network has found the cue: it is right halfway from chance to always or more often."""
        return self.right.mean() >= (1 + 1 / np.unique(self.persons).size) / 2


def audit_planted(context: Context, seed: int) -> tuple[pd.DataFrame, Outcome]:
    """Audit every method on every cue, cohort and network, on all processor cores: :func:`planted_table`."""
    size = SIZES[effort(context.profile)]
    jobs = [PlantedJob(cue, number, seed + number) for cue in size.cues for number in range(size.cohorts)]
    outcome = run(audit_cohort, jobs, context, "planted truth")
    if len(outcome.refusals):
        raise StudyError(outcome.refusals["reason"].iloc[0])
    return planted_table([audit for audits in outcome.values.values() for audit in audits], seed), outcome


def audit_cohort(context: Context, job: PlantedJob) -> list[Audit]:
    """Train every network on persons who differ in one cue, and ask every method where it has found the cue."""
    size, cue = SIZES[effort(context.profile)], CUES[job.cue]
    train, windows, without = plant(cue, job, size)
    shape = {"classes": {PERSON: np.unique(train.subjects)}, "lead_names": ["identity"]}
    asked, audits = widened(windows, cue), []
    for name, (epochs, sizes) in size.networks.items():
        settings = TrainingSettings(epochs, 32, job.seed, Augmentation(gain=0.0, noise=0.05, wander=0.0))
        question = Question(trained(context, name, train, settings, FS, **shape, **sizes), PERSON, windows)
        right = question.probabilities(windows.samples).argmax(axis=1) == windows.targets
        audit = Audit(job.cue, name, windows.persons, right, exact_effects(question, without, cue))
        audits.append(replace(audit, answers=ask(replace(question, windows=asked))) if audit.found else audit)
    return audits


def draw(cue: Cue, n: int, seed: int) -> tuple[people.People, people.People]:
    """Draw persons who are all the same, and the same persons with a cue."""
    nobody = people.draw_people(np.random.default_rng([seed, 0]), n, "none")
    places = np.linspace(-1, 1, n)[np.random.default_rng([seed, 1]).permutation(n)]
    if cue.interval:
        own = replace(nobody, **{cue.field: getattr(nobody, cue.field) + cue.spread * places})
        # QT follows the cube root of RR in the simulator; with this it stays where it is when the rate is the cue
        return nobody, replace(own, qtc=own.qtc * np.cbrt(own.heart_rate / nobody.heart_rate))
    if cue.spread:
        factor = 1 + cue.spread * places if cue.waves == ("ST",) else np.exp(cue.spread * places)
        factor = np.where(np.isin(COMPONENT_WAVE, cue.waves), factor[:, None], 1)
        return nobody, replace(nobody, amplitude=nobody.amplitude * factor)
    # each draw leaves all waves but one as nobody has them: with turns and edges of 0
    drawn = [people.draw_people(np.random.default_rng([seed, 2]), n, wave) for wave in cue.waves]
    shapes = {name: sum(getattr(one, name) for one in drawn) for name in ("turn", "edges")}
    factors = np.prod([one.amplitude / nobody.amplitude for one in drawn], axis=0)
    return nobody, replace(nobody, amplitude=nobody.amplitude * factors, **shapes)


def plant(cue: Cue, job: PlantedJob, size: Size) -> tuple[WindowSet, Windows, np.ndarray]:
    """Make persons who differ in a cue only: training records, windows of held-out ones, and these without the cue.

    Training records are longer than the networks' windows; of each held-out record there is one window from its middle
    with its true waves.
    """
    each, seed = size.records + size.held_out, job.cohort_seed
    person, number = (axis.ravel() for axis in np.indices((PERSONS, each)))
    drift = people.draw_drift(np.random.default_rng([seed, 3]), each + 1, 10.0)
    # the last record is as fast as any can be: as many beats, and random numbers, are drawn with the cue as without it
    drift.heart_rate[-1] = 200.0
    n = len(person) + 1
    state = (np.full(n, name, dtype=object) for name in ("rest", SINUS_RHYTHM, NORMAL))
    plan = people.Plan(np.r_[person, 0], np.r_[number, each], *state)
    both = [
        people.render(np.random.default_rng([seed, 4]), own, drift, plan, FS, round(RECORD_SECONDS * FS), noise=False)
        for own in draw(cue, PERSONS, seed)
    ]
    fiducials = [fiducials_of_boundaries(both[1].boundaries(row, FS), 1.0, 0.0) for row in range(n - 1)]
    without, values = (one.signals[:-1, [STANDARD_LEADS.index(LEAD)]] for one in both)
    codes = np.stack([wave_codes(points, values.shape[-1])[0] for points in fiducials])
    learnt, rng = number < size.records, np.random.default_rng([seed, 5])
    values[learnt] *= _heights(codes[learnt], cue, rng)[:, None]
    noise, names = rng.normal(0, NOISE_MV, values.shape), np.array([f"{seed}/{who}" for who in range(PERSONS)])
    centre, scale = np.median(values[learnt]), values[learnt].std()
    values, without = (((part + noise - centre) / scale).astype(np.float32) for part in (values, without))
    records = np.array([f"{row}" for row in range(n - 1)])
    train = WindowSet(values[learnt], {PERSON: person[learnt]}, names[person[learnt]], records[learnt])
    more, held = round((RECORD_SECONDS - SECONDS) / 2 * FS), ~learnt
    window = slice(more, more + round(SECONDS * FS))
    points = np.fromiter((fiducials[row] - more for row in np.flatnonzero(held)), dtype=object)
    known = codes[held, window], names[person[held]], points
    return train, Windows(values[held], person[held], FS, job.seed, more, *known), without[held][..., window]


def _heights(codes: np.ndarray, cue: Cue, rng: np.random.Generator) -> np.ndarray:
    """Random factor on each sample, shape (n, n_samples): one a wave of a record, 1 in the cue and where unknown."""
    factors = rng.uniform(0, HIGHEST, (len(codes), len(WAVES) + 1))
    factors[:, [WAVES.index(wave) for wave in cue.waves] + [-1]] = 1  # the unknown wave's code is -1
    if len(cue.waves) > 2:  # a height is read against the others
        factors[:] = 1
    return np.take_along_axis(factors, codes.astype(np.int64), axis=1).astype(np.float32)


def widened(windows: Windows, cue: Cue) -> Windows:
    """Let the waves of a cue reach :data:`MARGIN_S` into neighbours that have no part in it."""
    waves, reach = [WAVES.index(wave) for wave in cue.waves], np.ones((1, 2 * round(MARGIN_S * FS) + 1), dtype=bool)
    wide, free = windows.codes.copy(), ~np.isin(windows.codes, waves)
    for wave in waves:
        wide[binary_dilation(windows.codes == wave, reach) & free] = wave
    return replace(windows, codes=wide)


def trained(
    context: Context, name: str, train: WindowSet, settings: TrainingSettings, fs: float, **shape: object
) -> SignalModel:
    """Train one of :data:`NETWORKS` on windows of :data:`SECONDS`, or load the run that did so before.

    `shape` are its classes, lead_names and sizes that are not its own.
    """
    network, given = NETWORKS[name]
    window = {"n_leads": train.samples.shape[1], "n_samples": round(SECONDS * fs), "fs": fs}
    model = create_model(network, settings.seed, **window, **given, **shape)
    return fit(model, train, None, settings, context.runs, context.device).model


def exact_effects(question: Question, without: np.ndarray, cue: Cue) -> np.ndarray:
    """Exact effect of every factor: what the contrast loses with each wave for that of the same record without the cue.

    Shape (n, n_factors). The mean of what is lost where the wave goes first and where it goes last: of two waves that
    is their Shapley value. A cue in an interval is one factor, which takes the whole difference.
    """
    own, codes, found = question.windows.samples, question.windows.codes, np.zeros((len(without), len(FACTORS)))
    whole, none, changed = question.scores(own), question.scores(without), np.abs(own - without).sum(axis=1)
    parts = {wave: codes == at for at, wave in enumerate(WAVES)}
    for factor, part in ({cue.interval: np.ones(codes.shape, dtype=bool)} if cue.interval else parts).items():
        if changed[part].sum() > PART * changed.sum():
            first, last = (np.where(part[:, None], *pair) for pair in ((without, own), (own, without)))
            lost = (whole - question.scores(first)) + (question.scores(last) - none)
            found[:, FACTORS.index(factor)] = lost / 2
    return found


def planted_table(audits: Sequence[Audit], seed: int) -> pd.DataFrame:
    """How much of each method's effects lies where the exact ones do, over the persons of all cohorts of a cue.

    One row a cue, network, method and baseline: cue, kind, model, method, baseline, control; accuracy (of the network
    on all held-out windows), cohorts (whose cue the network found: the others are not explained), persons, windows
    (named rightly, which alone are explained), incomplete (largest convergence delta), :data:`NUMBERS` with ``_low``
    and ``_high``, and the reason why they are NaN, else None.
    """
    rows, groups = [], {}
    for audit in audits:
        groups.setdefault((audit.cue, audit.model), []).append(audit)
    for (cue, model), own in groups.items():
        accuracy = np.concatenate([audit.right for audit in own]).mean()
        found = [audit for audit in own if audit.found]
        unfound = None if found else f"{model} has not found the cue: it names {accuracy:.0%} of the windows"
        whole = _joined(found or own)
        kind = TIMING if CUES[cue].interval else SHAPE
        about = {"cue": cue, "kind": kind, "model": model, "accuracy": accuracy, "cohorts": len(found)}
        for method, baseline in PAIRS:
            row = about | {"method": method.name, "baseline": baseline, "control": method.control, "persons": 0}
            row |= intervals(dict.fromkeys(NUMBERS)) | {"reason": unfound or whole.answers.refusals.get(method.name)}
            rows.append(row if row["reason"] else row | _measured(method, baseline, whole, seed))
    return pd.DataFrame(rows)


def _joined(audits: Sequence[Audit]) -> Audit:
    """Audits of one cue and network on several cohorts as one."""
    parts = {part: np.concatenate([getattr(a, part) for a in audits]) for part in ("persons", "right", "truth")}
    return replace(audits[0], **parts, answers=pooled([audit.answers for audit in audits]))


def _measured(method: Method, baseline: str, audit: Audit, seed: int) -> dict[str, object]:
    """Numbers of one method and baseline on one network and cue."""
    persons, right = audit.persons[audit.right], audit.right
    resamples, n_persons = Resamples.draw(persons, seed), np.unique(persons).size
    found = spoken(audit.answers, method, baseline, right, audit.persons, resamples)
    row = {"persons": n_persons, "windows": int(right.sum()), "reason": found.reason}
    row |= {"incomplete": audit.answers.incomplete.get((method.name, baseline), np.nan)}
    row |= intervals({"evidence_removed": found.removed})
    if found.reason:
        return row
    exact = drawn_shares(audit.truth[right], persons, resamples)
    mass, *others = (np.minimum(shares, exact).sum(axis=1) for shares in (found.own, *found.controls))
    numbers = {"mass_in_cue": mass, "in_intervals": found.own[:, len(WAVES) :].sum(axis=1)}
    if others:
        numbers["margin_over_control"] = over_controls(mass, others)
    return row | intervals(estimates(numbers, n_persons))


def verdicts(planted: pd.DataFrame) -> pd.DataFrame:
    """Say which methods can be believed, on which network, for which kind of cue.

    A method with a baseline is trusted for a kind where, on every cue of that kind, it has :data:`LEAST_MASS` of its
    effects where the exact ones are and more than each control (the whole paired interval), and, for timing, no more
    than :data:`MOST_ELSEWHERE` in intervals where the cue is a shape. It is a near miss where it beats the controls on
    every cue, with too little mass. Controls, and for timing methods that know no intervals, are not judged.

    One row a kind, network, method and baseline: kind, model, method, baseline, cues, lowest mass_in_cue and
    margin_over_control, trusted, near, reason (why not, else None).
    """
    rows = []
    judged = planted[~planted["control"]]
    for (model, name, baseline), own in judged.groupby(["model", "method", "baseline"], sort=False):
        shapes = own[(own["kind"] == SHAPE) & own["mass_in_cue"].notna()]
        strays = shapes[~(shapes["in_intervals"] <= MOST_ELSEWHERE)]
        for kind, cues in own.groupby("kind", sort=False):
            if kind == TIMING and not METHODS[name].by_factor:
                continue
            failed = [failure for row in cues.to_dict("records") if (failure := _failure(row))]
            if kind == TIMING:
                failed += [f"{row.cue}: {row.in_intervals:.2f} in intervals" for row in strays.itertuples()]
            beaten, lowest = (cues["margin_over_control_low"] > 0).all(), cues[["mass_in_cue", "margin_over_control"]]
            row = {"kind": kind, "model": model, "method": name, "baseline": baseline, "cues": len(cues)}
            row |= {**lowest.min(skipna=False), "trusted": not failed, "near": bool(beaten and failed)}
            rows.append(row | {"reason": "; ".join(failed) or None})
    return pd.DataFrame(rows)


def _failure(row: dict[str, object]) -> str | None:
    """Why a method fails on one cue; None where it passes."""
    if row["reason"]:
        return f"{row['cue']}: {row['reason']}"
    if not row["margin_over_control_low"] > 0:
        return f"{row['cue']}: no better than a control"
    return None if row["mass_in_cue"] >= LEAST_MASS else f"{row['cue']}: mass {row['mass_in_cue']:.2f}"


def trusted_methods(verdicts: pd.DataFrame, model: str) -> list[tuple[str, str]]:
    """Methods and baselines that are trusted for shapes on a network, the one that speaks for all first.

    That is one that is trusted for timing too where there is any, whose baseline removes most.
    """
    own = verdicts[verdicts["trusted"] & (verdicts["model"] == model)]
    kinds = own.groupby(["method", "baseline"])["kind"].agg(set).to_dict()
    found = [pair for method, of in PAIRS if SHAPE in kinds.get(pair := (method.name, of), ())]
    removing = (DONOR, EVERYBODY, OWN_TIMING, ZERO, NONE)
    return sorted(found, key=lambda pair: (TIMING not in kinds[pair], removing.index(pair[1])))
