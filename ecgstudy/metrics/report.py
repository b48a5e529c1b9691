"""Everything the study reports about one attacker under one protocol, from its score matrix."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ecgstudy.metrics.bootstrap import Estimate, Resamples, Statistic, bootstrap, bootstrap_each
from ecgstudy.metrics.disclosure import cllr_min, logistic_llr, weighted_cllr, zebra_bits, zebra_tag, zebra_worst_case
from ecgstudy.metrics.identification import Searches, dir_at_far, rank_k, search_gallery
from ecgstudy.metrics.levels import ScoreLevels
from ecgstudy.metrics.linkability import Linkability
from ecgstudy.metrics.trials import Trials
from ecgstudy.metrics.verification import eer, tar_at_far, threshold_at_far

_Metrics = dict[str, tuple[Callable[[ScoreLevels], float], str]]
"""Metric name -> the metric and why it would be undefined."""
FARS = {"1e-2": 1e-2, "1e-3": 1e-3}
N_PERMUTATIONS = 200
"""Permutations behind the D_sys null."""


def biometric_report(
    scores: ArrayLike,
    probe_persons: ArrayLike,
    gallery_persons: ArrayLike,
    resamples: Resamples,
    rng: np.random.Generator,
) -> dict[str, Estimate | str | int | None]:
    """Identification, verification, linkability and disclosure, each with its interval.

    Parameters
    ----------
    scores : array_like
        Shape (n_probe, n_gallery), higher = more similar.
    probe_persons, gallery_persons : array_like
        Person ids of the rows and of the columns.
    resamples : Resamples
        The persons to resample; the same object for every system that is compared.
    rng : numpy.random.Generator
        Draws the label permutations of the D_sys null and the halves of the calibration.

    Returns
    -------
    dict
        Estimates: ``rank1``, ``rank5``, ``dir_at_far_1e-2``, ``eer``, ``tar_at_far_1e-2``, ``tar_at_far_1e-3``,
        ``d_sys``; each of these again with ``_per_person`` (persons, or pairs of persons, weigh the same however
        many records they have); ``d_sys_null`` (over label permutations, not persons), ``zebra_bits``,
        ``zebra_worst``, ``cllr`` (calibrated on other persons), ``cllr_min``. Text: ``zebra_tag``. Counts:
        ``persons`` with a genuine trial, ``enrolled`` persons, ``probes``, ``genuine_trials``, ``impostor_trials``.
        What is undefined is NaN with its reason.

    Raises
    ------
    StudyError
        Shapes disagree, a score is not a number, or a person is not among `resamples`.
    """
    trials = Trials(scores, probe_persons, gallery_persons, resamples)
    searches = search_gallery(scores, probe_persons, gallery_persons)
    probe = resamples.index_of(probe_persons)
    verification = _verification(trials, resamples)
    return {
        **_identification(searches, probe, resamples),
        **verification,
        **_linkability(trials, resamples, rng),
        "zebra_tag": zebra_tag(verification["zebra_worst"].value),
        "cllr": _cross_calibrated_cllr(trials, resamples, rng),
        "persons": trials.n_persons,
        "enrolled": searches.n_enrolled,
        "probes": probe.size,
        "genuine_trials": trials.n_genuine,
        "impostor_trials": trials.n_impostor,
    }


def per_person_risk(scores: ArrayLike, probe_persons: ArrayLike, gallery_persons: ArrayLike) -> pd.DataFrame:
    """How exposed each enrolled person is.

    Returns
    -------
    pandas.DataFrame
        A row for each person with an enrolled probe: ``person``, ``probes``, ``rank1`` (share of the person's
        probes that rank first), ``tar_at_far_1e-2`` (share of genuine trials above the threshold that holds
        over all persons; NaN where the FAR cannot be resolved) and ``eer`` (of the person's own probes; above
        0.5 the person's scores are inverted).
    """
    matrix = np.asarray(scores)
    probe, gallery = np.asarray(probe_persons).astype(str), np.asarray(gallery_persons).astype(str)
    searches = search_gallery(matrix, probe, gallery)
    genuine = probe[:, None] == gallery[None, :]
    threshold = threshold_at_far(matrix[~genuine], FARS["1e-2"])
    rows = []
    for person in np.unique(probe[searches.enrolled]):
        own = probe == person
        own_scores, impostor_scores = matrix[own][genuine[own]], matrix[own][~genuine[own]]
        accepted = math.nan if math.isnan(threshold) else float(np.mean(own_scores > threshold))
        own_eer = eer(ScoreLevels.from_scores(own_scores, impostor_scores))
        rank1 = rank_k(searches, 1, own.astype(np.float64))
        rows.append((person, int(own.sum()), rank1, accepted, own_eer))
    return pd.DataFrame(rows, columns=["person", "probes", "rank1", "tar_at_far_1e-2", "eer"])


def risk_tail(risk: ArrayLike) -> dict[str, float]:
    """Median, 95th percentile and worst of a per-person risk (higher = more exposed; pass ``1 - eer`` for EER).

    Persons whose risk is undefined are left out; all three are NaN where nobody's is defined.
    """
    values = np.asarray(risk, dtype=np.float64)
    values = values[~np.isnan(values)]
    if not values.size:
        return dict.fromkeys(("median", "p95", "worst"), math.nan)
    return {
        "median": float(np.median(values)),
        "p95": float(np.quantile(values, 0.95)),
        "worst": float(values.max()),
    }


def rank_statistic(searches: Searches, probe: np.ndarray, k: int, balanced: bool = False) -> Statistic:
    """Rank-k as a function of the persons' multiplicities, for the bootstrap and for paired differences.

    Parameters
    ----------
    searches : Searches
        The searches.
    probe : numpy.ndarray
        Position of each probe's person among the resampled persons, shape (n_probe,).
    k : int
        Rank.
    balanced : bool
        Average over persons instead of over probes.
    """
    weight = _probe_weights(probe, balanced)
    return lambda multiplicity: rank_k(searches, k, multiplicity[probe] * weight)


def _probe_weights(probe: np.ndarray, balanced: bool) -> np.ndarray:
    """Weight of each probe; balanced, those of one person add up to the mean number of probes a person."""
    if not balanced or not probe.size:
        return np.ones(probe.size)
    count = np.bincount(probe)[probe]
    return probe.size / np.unique(probe).size / count


def _identification(searches: Searches, probe: np.ndarray, resamples: Resamples) -> dict[str, Estimate]:
    """Rank-1, rank-5 and open-set DIR over probes and per person."""
    n_persons = np.unique(probe[searches.enrolled]).size
    far = FARS["1e-2"]
    estimates = {}
    for suffix, balanced in (("", False), ("_per_person", True)):
        for k in (1, 5):
            statistic = rank_statistic(searches, probe, k, balanced)
            reason = _rank_problem(searches, k)
            estimates[f"rank{k}{suffix}"] = bootstrap(statistic, resamples, n_persons, reason)
        weight = _probe_weights(probe, balanced)
        estimates[f"dir_at_far_1e-2{suffix}"] = bootstrap(
            lambda multiplicity, weight=weight: dir_at_far(searches, far, multiplicity[probe] * weight),
            resamples,
            n_persons,
            _rank_problem(searches, 1) or f"{probe.size} searches cannot resolve a FAR of {far:g}",
        )
    return estimates


def _rank_problem(searches: Searches, k: int) -> str:
    """Why rank-k is undefined; empty where it is not."""
    if not searches.enrolled.any():
        return "no probe's person is in the gallery"
    if searches.n_enrolled < max(k, 2):
        return f"the gallery holds {searches.n_enrolled} person(s), too few for rank {k}"
    return ""


def _verification(trials: Trials, resamples: Resamples) -> dict[str, Estimate]:
    """EER and TAR over trials and per person, ZEBRA and minimal Cllr: whatever the score levels determine."""
    problem = trials.problem() or ""
    rates: _Metrics = {"eer": (eer, problem)}
    for name, far in FARS.items():
        rates[f"tar_at_far_{name}"] = (partial(tar_at_far, far=far), trials.problem(far) or "")
    disclosure = {"zebra_bits": zebra_bits, "zebra_worst": zebra_worst_case, "cllr_min": cllr_min}
    over_trials = rates | {name: (metric, problem) for name, metric in disclosure.items()}
    per_person = {f"{name}_per_person": metric for name, metric in rates.items()}
    estimates = {}
    for metrics, balanced in ((over_trials, False), (per_person, True)):

        def statistics(multiplicity: np.ndarray, metrics: _Metrics = metrics, balanced: bool = balanced) -> list[float]:
            levels = trials.levels(multiplicity, balanced)
            return [metric(levels) for metric, _ in metrics.values()]

        reasons = [reason for _, reason in metrics.values()]
        found = bootstrap_each(statistics, resamples, trials.n_persons, reasons)
        estimates |= dict(zip(metrics, found, strict=True))
    return estimates


def _linkability(trials: Trials, resamples: Resamples, rng: np.random.Generator) -> dict[str, Estimate]:
    """D_sys over trials and per person, and its null."""
    linkability = Linkability(trials.scores, trials.genuine)
    reason = linkability.problem() or ""
    estimates = {}
    for suffix, balanced in (("", False), ("_per_person", True)):
        estimates[f"d_sys{suffix}"] = bootstrap(
            lambda multiplicity, balanced=balanced: linkability.d_sys(trials.weights(multiplicity, balanced)),
            resamples,
            trials.n_persons,
            reason,
        )
    null = linkability.null(N_PERMUTATIONS, rng)
    return estimates | {"d_sys_null": replace(null, n=trials.n_persons)}


def _cross_calibrated_cllr(trials: Trials, resamples: Resamples, rng: np.random.Generator) -> Estimate:
    """Cllr of scores calibrated by logistic regression on the other half of the persons.

    Persons are halved at random; a trial counts when both its persons are in one half and is calibrated
    on the trials within the other half.
    """
    persons = rng.permutation(np.unique(np.concatenate([trials.probe, trials.gallery])))
    first_half = np.isin(np.arange(resamples.persons.size), persons[: persons.size // 2])
    in_first = first_half[trials.probe] & first_half[trials.gallery]
    in_second = ~first_half[trials.probe] & ~first_half[trials.gallery]
    for half in (in_first, in_second):
        if np.unique(trials.genuine[half]).size < 2:
            reason = "too few persons to calibrate the scores on other persons"
            return Estimate(math.nan, math.nan, math.nan, trials.n_persons, len(resamples.indices), reason)
    llr = np.zeros(trials.scores.size)
    for half, other in ((in_first, in_second), (in_second, in_first)):
        llr[half] = logistic_llr(trials.scores[other], trials.genuine[other], trials.scores[half])
    used = in_first | in_second
    genuine, impostor = used & trials.genuine, used & ~trials.genuine

    def statistic(multiplicity: np.ndarray) -> float:
        weights = trials.weights(multiplicity, balanced=False)
        return weighted_cllr(llr[genuine], llr[impostor], weights[genuine], weights[impostor])

    return bootstrap(statistic, resamples, trials.n_persons, "no trial was drawn")
