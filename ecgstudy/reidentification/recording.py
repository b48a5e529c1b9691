"""What the re-identification stage hands on: metrics under their names, headlines, and findings in words."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import pandas as pd

from ecgstudy.evaluate.bootstrap import Estimate
from ecgstudy.experiment.evaluation import REFERENCE, Evaluation, tail_of
from ecgstudy.experiment.plan import MODELS
from ecgstudy.experiment.selection import BEST
from ecgstudy.reidentification.demographics import DemographicResult
from ecgstudy.reidentification.tables import HEADLINES, HONEST, LEAKY, of_best
from ecgstudy.study.stage import Stage

_COUNTS = {"persons": "persons", "enrolled": "persons", "probes": "probes"}
_UNITS = {"zebra_bits": "bits", "zebra_worst": "log10 LR", "cllr": "bits", "cllr_min": "bits", "d_sys": ""}
_LOOKED_FOR = ("rank1", "eer", "tar_at_far_1e-2", "d_sys")
_ONE_RECORD = "Not defined: every person of this cohort has one record, so nobody can be sought in another one."
_NO_CHOICE = "Not defined: the validation part is too small to choose an attacker."


def record_evaluations(stage: Stage, evaluations: Sequence[Evaluation]) -> None:
    """Record every metric as ``<cohort>.<protocol>.<model>.<metric>`` and the best attackers' as headlines.

    A cohort of one record a person gets its undefined ``cross_record`` figures with the sentence that says so.
    """
    for evaluation in evaluations:
        for name, estimate in evaluation.estimates.items():
            if isinstance(estimate, Estimate):
                _record(stage, f"{evaluation.key}.{name}", estimate, _unit(name))
        for name, contrast in evaluation.contrasts.items():
            _record(stage, f"{evaluation.key}.{name}_minus_{REFERENCE}", contrast, _unit(name))
        for name, unit in _COUNTS.items():
            stage.metric(f"{evaluation.key}.{name}", evaluation.estimates[name], unit=unit)
        stage.metric(f"{evaluation.key}.unscored", evaluation.unscored, unit="probes")
        for name, value in tail_of(evaluation).items():
            note = "" if math.isfinite(value) else "Not defined: nobody has a probe."
            stage.metric(f"{evaluation.key}.{name}", value, n=len(evaluation.risk), unit="share", note=note)
    for stem, note in _undefined(evaluations).items():
        for name in _LOOKED_FOR:
            stage.metric(f"{stem}.{name}", math.nan, unit=_unit(name), note=note)
    for evaluation in of_best(evaluations):
        if evaluation.protocol in HEADLINES:
            label = f"{evaluation.cohort}, {evaluation.protocol.replace('_', ' ')}"
            stage.headline(f"{evaluation.key}.rank1", f"{label}: persons recognised (rank-1)")
            stage.headline(f"{evaluation.key}.eer", f"{label}: equal error rate")


def _undefined(evaluations: Sequence[Evaluation]) -> dict[str, str]:
    """Stems of figures that a reader would look for in vain, each with the sentence that says why."""
    protocols: dict[str, set[str]] = {}
    for evaluation in evaluations:
        protocols.setdefault(evaluation.cohort, set()).add(evaluation.protocol)
    chosen = {(e.cohort, e.protocol) for e in of_best(evaluations)}
    missing = {
        f"{cohort}.{protocol}.{BEST}": _NO_CHOICE
        for cohort, names in protocols.items()
        for protocol in sorted(names)
        if (cohort, protocol) not in chosen
    }
    single = [cohort for cohort, names in protocols.items() if names == {LEAKY}]
    return missing | {f"{cohort}.cross_record.{BEST}": _ONE_RECORD for cohort in single}


def record_refusals(stage: Stage, refused: Mapping[tuple[str, str], str]) -> None:
    """Record the figures of protocols that a cohort's records refuse as undefined, with the sentence that says why."""
    for (cohort, protocol), sentence in refused.items():
        for model, name in product((*MODELS, BEST), _LOOKED_FOR):
            stage.metric(f"{cohort}.{protocol}.{model}.{name}", math.nan, unit=_unit(name), note=sentence)
        stage.finding(f"{cohort}, {protocol.replace('_', ' ')}: {sentence}")


def record_demographics(stage: Stage, results: Iterable[DemographicResult]) -> None:
    """Record sex and age as ``<cohort>.<sex|age>.<protocol>.<model>.<metric>``."""
    for result in results:
        for name, estimate in result.estimates.items():
            unit = "years" if name.startswith("mae") else "share"
            _record(stage, f"{result.key}.{name}", estimate, unit)


def record_extrapolation(stage: Stage, table: pd.DataFrame) -> None:
    """Record the extrapolated rank-1 as ``<cohort>.<protocol>.best.rank1_at_<people>``."""
    for row in table.to_dict("records"):
        name = f"{row['cohort']}.{row['protocol']}.{BEST}.rank1_at_{row['people']}"
        note = f"Not defined: {row['reason']}." if row["reason"] else ""
        stage.metric(name, row["rank1"], row["rank1_low"], row["rank1_high"], row["persons"], "share", note)


def _record(stage: Stage, name: str, estimate: Estimate, unit: str) -> None:
    """Record one estimate, with the reason where it or its interval is undefined."""
    notes = [f"Not defined: {estimate.reason}."] if math.isnan(estimate.value) else []
    if estimate.reason and not notes:
        notes.append(f"No interval: {estimate.reason}.")
    if estimate.undefined and not notes:
        notes.append(f"Undefined in {estimate.undefined} resamples, which the interval leaves out.")
    stage.metric(name, estimate.value, estimate.low, estimate.high, estimate.n, unit, " ".join(notes))


def _unit(name: str) -> str:
    """Return the unit of an attacker's metric."""
    return next((unit for stem, unit in _UNITS.items() if name.startswith(stem)), "share")


def inflation_finding(evaluations: Sequence[Evaluation]) -> str:
    """Say how much of TransECG's random-window accuracy survives under the protocols that hold."""
    rank1 = {(e.cohort, e.protocol): e.estimates["rank1"].value for e in evaluations if e.model == REFERENCE}
    parts = []
    for (cohort, protocol), leaky in rank1.items():
        if protocol != LEAKY:
            continue
        held = [(name, rank1[cohort, name]) for name in HONEST["person"] if (cohort, name) in rank1]
        told = [f"{name.replace('_', ' ')} {100 * value:.1f} %" for name, value in held]
        parts.append(f"{cohort}: {', '.join([f'random windows (leaky) {100 * leaky:.1f} %', *told])}")
    return f"TransECG's rank-1, from the leaky protocol to those that hold: {'; '.join(parts)}."


def best_finding(evaluations: Sequence[Evaluation]) -> str:
    """Name the best attacker's figures under each headline protocol."""
    parts = [
        f"{e.cohort} {e.protocol.replace('_', ' ')}: rank-1 {_percent(e.estimates['rank1'])}, "
        f"EER {_percent(e.estimates['eer'])} ({e.stands_for}, gallery of {e.estimates['enrolled']})"
        for e in of_best(evaluations)
        if e.protocol in HEADLINES
    ]
    return f"Best attackers, chosen on validation scores: {'; '.join(parts)}."


def chance_finding(controls: pd.DataFrame) -> str:
    """Say whether every claim stands above its shuffled control."""
    above = controls["rank1"] > controls["shuffled_high"]
    untrained = 100 * controls["untrained network"].max()
    return (
        f"{int(above.sum())} of {len(controls)} claims lie above the 97.5th percentile of their shuffled control. A "
        f"network with random weights, never trained, already recognises up to {untrained:.0f} % of the probes."
    )


def demographic_finding(results: Sequence[DemographicResult]) -> str:
    """Set sex and age group under random windows beside people never seen."""
    accuracy = {(r.cohort, r.task, r.protocol): r.estimates["accuracy"] for r in results if r.model == REFERENCE}
    parts = []
    for (cohort, task, protocol), leaky in accuracy.items():
        honest = next((name for name in HONEST[task] if (cohort, task, name) in accuracy), None)
        if protocol == LEAKY and honest and math.isfinite(leaky.value):
            held = accuracy[cohort, task, honest]
            parts.append(f"{task} on {cohort} {_percent(leaky)} of random windows, {_percent(held)} of unseen people")
    return f"TransECG reads {'; '.join(parts)}." if parts else "No cohort allows sex or age of unseen people."


def _percent(estimate: Estimate) -> str:
    """Write a share in per cent with its interval."""
    if math.isnan(estimate.value):
        return f"undefined ({estimate.reason})"
    text = f"{100 * estimate.value:.1f} %"
    return text if math.isnan(estimate.low) else f"{text} ({100 * estimate.low:.1f} to {100 * estimate.high:.1f})"
