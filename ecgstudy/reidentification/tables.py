"""Tables, results and findings of the re-identification stage."""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd

from ecgstudy.evaluate.bootstrap import Estimate, Resamples
from ecgstudy.evaluate.extrapolation import TAILS, extrapolate_rank1
from ecgstudy.evaluate.results import estimate_results, interval, result, results_table
from ecgstudy.experiment.attackers import ATTACKERS, NETWORKS, UNTRAINED
from ecgstudy.experiment.dataset import IDENTITY_LEAD
from ecgstudy.experiment.evaluation import REFERENCE, RESAMPLES, UNSEEN, Evaluation, chance_level, tail_of
from ecgstudy.experiment.selection import BEST
from ecgstudy.reidentification.demographics import DemographicResult
from ecgstudy.reidentification.plan import DEMO_SEEDS, SEEDS, Trialled
from ecgstudy.signals.store import RecordStore
from ecgstudy.study.cache import commit

LEAKY = "random_windows"
HEADLINES = ("cross_record", "cross_day", "time_separated", "cross_activity", "subject_disjoint_cross_record")
HONEST = {
    "person": ("cross_day", "cross_record", "time_separated", "cross_activity"),
    "sex": ("subject_disjoint_cross_record", "subject_disjoint_cross_day", "cross_cohort_time_separated"),
}
HONEST["age"] = HONEST["sex"]
"""Protocols that hold, the first that a cohort has: another recording of a person; for sex and age unseen people."""
PAPER = {
    "person": {"TransECG": 0.886, "ECG Unveiled": 0.82},
    "sex": {"TransECG": 0.899, "ECG Unveiled": 0.76},
    "age": {"TransECG": 0.899, "ECG Unveiled": 0.67},
}
"""Published accuracies: arXiv 2503.13495 (87 people, four data sets) and arXiv 2408.10228 (223 people, five)."""
EXTRAPOLATED = ("cross_record", "cross_day")
SIZES = (100, 1_000, 10_000, 1_000_000, 100_000_000)
"""Gallery sizes of the extrapolation, persons."""
_UNITS = {"zebra_bits": "bits", "zebra_worst": "log10 LR", "cllr": "bits", "d_sys": "", "mae": "years"}
_LOOKED_FOR = ("rank1", "eer", "tar_at_far_1e-2", "d_sys")
_ONE_RECORD = "Not defined: every person of this cohort has one record, so nobody can be sought in another one."
_NO_CHOICE = "Not defined: the validation part is too small to choose an attacker."


def _unit(name: str) -> str:
    """Return the unit of a metric."""
    return next((unit for stem, unit in _UNITS.items() if name.startswith(stem)), "share")


def _spoken(protocol: str) -> str:
    """Protocol name in words."""
    return protocol.replace("_", " ")


def evaluation_results(evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """Rows of every metric of every attacker; what a reader would look for in vain says why it is undefined."""
    rows = []
    for e in evaluations:
        about = {"cohort": e.cohort, "protocol": e.protocol, "attacker": e.attacker}
        estimates = {name: found for name, found in e.estimates.items() if isinstance(found, Estimate)}
        estimates |= {f"{name}_minus_{REFERENCE}": contrast for name, contrast in e.contrasts.items()}
        rows += estimate_results(estimates, _unit, **about)
        counts = {"persons": "persons", "enrolled": "persons", "probes": "probes"}
        rows += [result(name, e.estimates[name], unit, **about) for name, unit in counts.items()]
        rows.append(result("unscored", e.unscored, "probes", **about))
        for name, value in tail_of(e).items():
            note = "" if math.isfinite(value) else "Not defined: nobody has a probe."
            rows.append(result(name, value, "share", n=len(e.risk), note=note, **about))
    for (cohort, protocol), note in _undefined(evaluations).items():
        rows += _nothing(cohort, protocol, BEST, note)
    return results_table(rows)


def _nothing(cohort: str, protocol: str, attacker: str, note: str) -> list[dict[str, object]]:
    """Rows of the metrics that a reader looks for, undefined."""
    about = {"cohort": cohort, "protocol": protocol, "attacker": attacker}
    return [result(name, math.nan, _unit(name), note=note, **about) for name in _LOOKED_FOR]


def _undefined(evaluations: Sequence[Evaluation]) -> dict[tuple[str, str], str]:
    """Cohorts and protocols without a best attacker, each with the sentence that says why."""
    protocols: dict[str, set[str]] = {}
    for evaluation in evaluations:
        protocols.setdefault(evaluation.cohort, set()).add(evaluation.protocol)
    chosen = {(e.cohort, e.protocol) for e in of_best(evaluations)}
    cells = [(cohort, protocol) for cohort, names in protocols.items() for protocol in sorted(names)]
    missing = {cell: _NO_CHOICE for cell in cells if cell not in chosen}
    single = [cohort for cohort, names in protocols.items() if names == {LEAKY}]
    return missing | {(cohort, "cross_record"): _ONE_RECORD for cohort in single}


def refusals(refused: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Sentence by cohort and protocol that the records refuse, from the runner's refusals."""
    return {(row.cohort, row.protocol): row.reason for row in refused.itertuples()}


def refusal_results(refused: pd.DataFrame) -> pd.DataFrame:
    """Rows of the metrics of protocols that a cohort's records refuse, undefined."""
    rows = []
    for ((cohort, protocol), sentence), attacker in product(refusals(refused).items(), (*ATTACKERS, BEST)):
        rows += _nothing(cohort, protocol, attacker, sentence)
    return results_table(rows)


def demographic_results(results: Iterable[DemographicResult]) -> pd.DataFrame:
    """Rows of sex and age: accuracy, balanced accuracy, AUROC, error in years, share of the most frequent class."""
    rows = []
    for r in results:
        about = {"cohort": r.cohort, "protocol": r.protocol, "attacker": r.attacker, "task": r.task}
        rows += estimate_results(r.estimates, _unit, **about)
    return results_table(rows)


def extrapolation_results(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the extrapolated rank-1, ``rank1_at_<people>``, from :func:`extrapolation_table`."""
    rows = []
    for row in table.to_dict("records"):
        about = {"cohort": row["cohort"], "protocol": row["protocol"], "attacker": BEST}
        note = f"Not defined: {row['reason']}." if row["reason"] else ""
        numbers = (row["rank1"], "share", row["rank1_low"], row["rank1_high"], row["persons"], note)
        rows.append(result(f"rank1_at_{row['people']}", *numbers, **about))
    return results_table(rows)


def headlines(evaluations: Sequence[Evaluation]) -> dict[str, str]:
    """Names of the best attackers' headline metrics with their label in plain words."""
    found = {}
    for e in of_best(evaluations):
        if e.protocol in HEADLINES:
            label = f"{e.cohort}, {_spoken(e.protocol)}"
            found[f"{e.cohort}.{e.protocol}.{BEST}.rank1"] = f"{label}: persons recognised (rank-1)"
            found[f"{e.cohort}.{e.protocol}.{BEST}.eer"] = f"{label}: equal error rate"
    return found


def protocol_table(trialled: Sequence[Trialled]) -> pd.DataFrame:
    """One row a cohort and protocol: what it claims, whom it probes, whether it leaks."""
    rows = []
    for one in trialled:
        probed, yes = pd.concat([split.probe for split in one.splits]), {True: "yes", False: "no"}
        row = {"cohort": one.cohort, "protocol": one.protocol.name, "leaky": yes[one.protocol.leaky]}
        row |= {"people unseen in training": yes[one.splits[0].unseen_persons], "folds": len(one.splits)}
        row |= {"persons probed": probed["subject_id"].nunique(), "probes": len(probed)}
        rows.append(row | {"claim": one.protocol.claim})
    return pd.DataFrame(rows)


def of_best(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """Pick the evaluations of the attackers that were chosen on validation scores."""
    return [evaluation for evaluation in evaluations if evaluation.attacker == BEST]


def _about(evaluation: Evaluation) -> dict[str, object]:
    """First columns of a row."""
    return {"cohort": evaluation.cohort, "protocol": evaluation.protocol}


def best_tables(evaluations: Sequence[Evaluation]) -> dict[str, pd.DataFrame]:
    """Tabulate the best attackers: best (identification), verification, disclosure, tail (of the persons' risks)."""
    asked = {
        "best": {name: name for name in ("rank1", "rank1_per_person")},
        "verification": {name: name for name in ("eer", "eer_per_person", "tar_at_far_1e-2", "dir_at_far_1e-2")},
        "disclosure": {"d_sys": "d_sys", "null": "d_sys_null", "zebra_bits": "zebra_bits"},
        "tail": {},
    }
    rows: dict[str, list[dict[str, object]]] = {table: [] for table in asked}
    for e in of_best(evaluations):
        counts = {name: e.estimates[name] for name in ("persons", "enrolled", "probes")}
        zebra = {"zebra_tag": e.estimates["zebra_tag"] or "-", "cllr_min": e.estimates["cllr_min"].value}
        first = {"best": {"attacker": e.stands_for}}
        last = {"best": counts, "disclosure": zebra, "tail": tail_of(e)}
        for table, columns in asked.items():
            row = _about(e) | first.get(table, {})
            for shown, name in columns.items():
                row |= interval(shown, e.estimates[name])
            rows[table].append(row | last.get(table, {}))
    return {table: pd.DataFrame(found) for table, found in rows.items()}


def attacker_table(evaluations: Sequence[Evaluation], metric: str) -> pd.DataFrame:
    """One metric of every attacker, a row a cohort and protocol, a column an attacker."""
    rows: dict[tuple[str, str], dict[str, object]] = {}
    for evaluation in evaluations:
        row = rows.setdefault((evaluation.cohort, evaluation.protocol), _about(evaluation))
        row[evaluation.attacker] = evaluation.estimates[metric].value
    return pd.DataFrame(rows.values())


def contrast_table(evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """Every attacker minus the reference on identical trials, under the headline protocols."""
    rows = []
    for e in evaluations:
        if e.contrasts and e.attacker not in (UNTRAINED, BEST) and e.protocol in HEADLINES:
            row = _about(e) | {"attacker": e.attacker}
            for name, contrast in e.contrasts.items():
                row |= interval(name, contrast) | {f"p {name}": contrast.p}
            rows.append(row)
    return pd.DataFrame(rows)


def seed_table(evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """Spread over the training seeds of every network, beside their ensemble."""
    rows = []
    for e in evaluations:
        if e.attacker in NETWORKS:
            row = _about(e) | {"attacker": e.attacker, "seeds": len(e.per_seed)}
            for name in ("rank1", "eer"):
                row |= {f"{name} lowest": e.per_seed[name].min(), f"{name} highest": e.per_seed[name].max()}
                row[f"{name} ensemble"] = e.estimates[name].value
            rows.append(row)
    return pd.DataFrame(rows)


def control_table(evaluations: Sequence[Evaluation], seed: int) -> pd.DataFrame:
    """Claims beside their controls: shuffled names, chance, and a network that was never trained."""
    untrained = {(e.cohort, e.protocol): e.estimates for e in evaluations if e.attacker == UNTRAINED}
    nothing = Estimate(math.nan, math.nan, math.nan, 0)
    rows = []
    for e in of_best(evaluations):
        chance = chance_level(e.attack, np.random.default_rng(seed))
        control = untrained.get((e.cohort, e.protocol), {})
        row = _about(e) | {"rank1": e.estimates["rank1"].value} | interval("shuffled", chance["rank1"])
        row["one in N"] = float(np.mean([1 / np.unique(fold.gallery_persons).size for fold in e.attack.folds]))
        row |= {"untrained network": control.get("rank1", nothing).value, "eer": e.estimates["eer"].value}
        row |= interval("eer shuffled", chance["eer"])
        rows.append(row | {"eer untrained": control.get("eer", nothing).value})
    return pd.DataFrame(rows)


def paper_table(evaluations: Sequence[Evaluation], results: Sequence[DemographicResult]) -> pd.DataFrame:
    """Set published accuracies beside ours: under random windows, and under a protocol that holds."""
    ours = {(e.cohort, "person", e.protocol): e.estimates["rank1"] for e in evaluations if e.attacker == REFERENCE}
    ours |= {(r.cohort, r.task, r.protocol): r.estimates["accuracy"] for r in results if r.attacker == REFERENCE}
    rows = []
    for task, published in PAPER.items():
        for cohort in dict.fromkeys(e.cohort for e in evaluations):
            honest = next((name for name in HONEST[task] if (cohort, task, name) in ours), None)
            row: dict[str, object] = {"task": task, "cohort": cohort, **published}
            row |= interval("ours, random windows", ours.get((cohort, task, LEAKY)))
            row |= interval("ours, held apart", ours.get((cohort, task, honest)))
            rows.append(row | {"protocol held apart": honest or "none: one record a person"})
    return pd.DataFrame(rows)


def papers_and_honest(results: Sequence[DemographicResult]) -> list[DemographicResult]:
    """Keep labelled results under random windows and for people unseen in training; others answer neither question."""
    return [r for r in results if r.probes and (r.protocol == LEAKY or r.protocol.startswith(UNSEEN))]


def demographic_table(results: Sequence[DemographicResult], metric: str) -> pd.DataFrame:
    """One metric of sex and age group by every attacker with such heads, a column an attacker."""
    rows: dict[tuple[str, ...], dict[str, object]] = {}
    majority = {}
    for r in papers_and_honest(results):
        if metric in r.estimates:
            cell = r.task, r.cohort, r.protocol
            about = {"task": r.task, "cohort": r.cohort, "protocol": r.protocol, "persons": r.estimates[metric].n}
            rows.setdefault(cell, about)[r.attacker] = r.estimates[metric].value
            majority[cell] = r.estimates["majority"].value
    table = pd.DataFrame(rows.values())
    if metric == "accuracy":
        table["most frequent class"] = list(majority.values())
    return table.sort_values("task", ascending=False, kind="stable") if len(table) else table


def extrapolation_table(evaluations: Sequence[Evaluation], resamples: Mapping[str, Resamples]) -> pd.DataFrame:
    """Rank-1 of the best attacker extrapolated to :data:`SIZES` people, with the tails behind the interval."""
    rows = []
    for e in of_best(evaluations):
        if e.protocol not in EXTRAPOLATED:
            continue
        (fold,) = e.attack.folds
        trials = (fold.scores, fold.probe_persons, fold.gallery_persons)
        for size, tails in extrapolate_rank1(*trials, resamples[e.cohort], SIZES).items():
            row = _about(e) | {"persons": tails["envelope"].n, "people": size} | interval("rank1", tails["envelope"])
            row |= {f"{tail} tail": tails[tail].value for tail in TAILS}
            rows.append(row | {"reason": tails["envelope"].reason or ""})
    return pd.DataFrame(rows)


def reporting_table(trialled: Sequence[Trialled], stores: Mapping[str, RecordStore]) -> pd.DataFrame:
    """Fill in the minimum reporting list of ecg-biometrics-bench (arXiv 2605.01548), eight points."""
    names = list(dict.fromkeys(one.protocol.name for one in trialled))
    unseen = [name for name in names if name.startswith(UNSEEN)]
    sessions = [name for name in names if name.endswith("_day")]
    counts = [
        f"{name}: {store.records['subject_id'].nunique()} people, {len(store.records)} records, content digest "
        f"{store.manifest['cohort_digest'][:8]}"
        for name, store in stores.items()
    ]
    fs = next(iter(stores.values())).fs
    points = {
        "people unseen in training beside the closed set": ", ".join(unseen) or "not possible with these cohorts",
        "another session as the headline": ", ".join(sessions) or "not possible: no cohort has a second day",
        "EER and TAR at a stated FAR": "EER, TAR at FAR 1e-2 and 1e-3, DET curves; rank-1 always with its gallery",
        "data sets and people after filtering": "; ".join(counts),
        "preprocessing": f"0.5-40 Hz without phase shift, {fs:g} Hz, lead {IDENTITY_LEAD}, else the "
        "record's reference lead; windows standardised; R peaks at the record's own rate",
        "seeds, intervals, paired tests": f"networks: mean over {SEEDS} seeds (demo: {DEMO_SEEDS}); 95 % intervals "
        f"from {RESAMPLES} resamples of persons; paired bootstrap on identical trials",
        "enrolment and probe held apart": "split objects refuse shared samples, records, waveforms and, where claimed, "
        "persons; every trial is listed in trials/",
        "code and configuration": f"commit {commit()[:10]}; one cell of parameters; recipes in the package",
    }
    rows = enumerate(points.items(), start=1)
    return pd.DataFrame([{"point": n, "asked": asked, "here": here} for n, (asked, here) in rows])


def inflation_finding(evaluations: Sequence[Evaluation]) -> str:
    """Say how much of TransECG's random-window accuracy survives under the protocols that hold."""
    rank1 = {(e.cohort, e.protocol): e.estimates["rank1"].value for e in evaluations if e.attacker == REFERENCE}
    parts = []
    for (cohort, protocol), leaky in rank1.items():
        if protocol == LEAKY:
            held = [(name, rank1[cohort, name]) for name in HONEST["person"] if (cohort, name) in rank1]
            told = [f"{_spoken(name)} {100 * value:.1f} %" for name, value in held]
            parts.append(f"{cohort}: {', '.join([f'random windows (leaky) {100 * leaky:.1f} %', *told])}")
    return f"TransECG's rank-1, from the leaky protocol to those that hold: {'; '.join(parts)}."


def best_finding(evaluations: Sequence[Evaluation]) -> str:
    """Name the best attacker's figures under each headline protocol."""
    parts = [
        f"{e.cohort} {_spoken(e.protocol)}: rank-1 {_percent(e.estimates['rank1'])}, "
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
    accuracy = {(r.cohort, r.task, r.protocol): r.estimates["accuracy"] for r in results if r.attacker == REFERENCE}
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
