"""Tables of the re-identification stage."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ecgstudy.evaluate.bootstrap import Estimate, Resamples
from ecgstudy.evaluate.extrapolation import TAILS, extrapolate_rank1
from ecgstudy.experiment.dataset import IDENTITY_LEAD
from ecgstudy.experiment.evaluation import REFERENCE, RESAMPLES, Evaluation, chance_level, tail_of
from ecgstudy.experiment.plan import DEMO_SEEDS, SEEDS, UNTRAINED
from ecgstudy.experiment.recipes import NETWORKS
from ecgstudy.experiment.selection import BEST
from ecgstudy.reidentification.demographics import DemographicResult
from ecgstudy.reidentification.trials import Trialled
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


def protocol_table(trialled: Sequence[Trialled]) -> pd.DataFrame:
    """One row a cohort and protocol: what it claims, whom it probes, whether it leaks."""
    rows = []
    for one in trialled:
        probed = pd.concat([split.probe for split in one.splits])
        rows.append(
            {
                "cohort": one.cohort,
                "protocol": one.protocol.name,
                "leaky": "yes" if one.protocol.leaky else "no",
                "people unseen in training": "yes" if one.splits[0].unseen_persons else "no",
                "folds": len(one.splits),
                "persons probed": probed["subject_id"].nunique(),
                "probes": len(probed),
                "claim": one.protocol.claim,
            }
        )
    return pd.DataFrame(rows)


def of_best(evaluations: Sequence[Evaluation]) -> list[Evaluation]:
    """Pick the evaluations of the attackers that were chosen on validation scores."""
    return [evaluation for evaluation in evaluations if evaluation.model == BEST]


def best_table(evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """Identification by the best attacker: rank-1 over probes and over persons, with intervals."""
    rows = []
    for evaluation in of_best(evaluations):
        row = _about(evaluation) | {"attacker": evaluation.stands_for}
        for name in ("rank1", "rank1_per_person"):
            row |= _triple(name, evaluation.estimates[name])
        rows.append(row | {name: evaluation.estimates[name] for name in ("persons", "enrolled", "probes")})
    return pd.DataFrame(rows)


def verification_table(evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """Verification and the open set by the best attacker, with intervals."""
    rows = []
    for evaluation in of_best(evaluations):
        row = _about(evaluation)
        for name in ("eer", "eer_per_person", "tar_at_far_1e-2", "dir_at_far_1e-2"):
            row |= _triple(name, evaluation.estimates[name])
        rows.append(row)
    return pd.DataFrame(rows)


def attacker_table(evaluations: Sequence[Evaluation], metric: str) -> pd.DataFrame:
    """One metric of every attacker, a row a cohort and protocol, a column an attacker."""
    rows: dict[tuple[str, str], dict[str, object]] = {}
    for evaluation in evaluations:
        row = rows.setdefault((evaluation.cohort, evaluation.protocol), _about(evaluation))
        row[evaluation.model] = evaluation.estimates[metric].value
    return pd.DataFrame(rows.values())


def disclosure_table(evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """Linkability, its null, and disclosure by the best attacker."""
    rows = []
    for evaluation in of_best(evaluations):
        estimates = evaluation.estimates
        row = _about(evaluation) | _triple("d_sys", estimates["d_sys"]) | _triple("null", estimates["d_sys_null"])
        row |= _triple("zebra_bits", estimates["zebra_bits"])
        row |= {"zebra_tag": estimates["zebra_tag"] or "-", "cllr_min": estimates["cllr_min"].value}
        rows.append(row)
    return pd.DataFrame(rows)


def tail_table(evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """Spread of the best attacker's risk over the persons."""
    return pd.DataFrame([_about(evaluation) | tail_of(evaluation) for evaluation in of_best(evaluations)])


def contrast_table(evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """Every attacker minus the reference on identical trials, under the headline protocols."""
    rows = []
    for evaluation in evaluations:
        if not evaluation.contrasts or evaluation.model in (UNTRAINED, BEST):
            continue
        if evaluation.protocol not in HEADLINES:
            continue
        row = _about(evaluation) | {"attacker": evaluation.model}
        for name, contrast in evaluation.contrasts.items():
            row |= _triple(name, contrast) | {f"p {name}": contrast.p}
        rows.append(row)
    return pd.DataFrame(rows)


def seed_table(evaluations: Sequence[Evaluation]) -> pd.DataFrame:
    """Spread over the training seeds of every network, beside their ensemble."""
    rows = []
    for evaluation in evaluations:
        if evaluation.model not in NETWORKS:
            continue
        row = _about(evaluation) | {"attacker": evaluation.model, "seeds": len(evaluation.per_seed)}
        for name in ("rank1", "eer"):
            alone = evaluation.per_seed[name]
            row |= {f"{name} lowest": alone.min(), f"{name} highest": alone.max()}
            row[f"{name} ensemble"] = evaluation.estimates[name].value
        rows.append(row)
    return pd.DataFrame(rows)


def control_table(evaluations: Sequence[Evaluation], seed: int) -> pd.DataFrame:
    """Claims beside their controls: shuffled names, chance, and a network that was never trained."""
    untrained = {(e.cohort, e.protocol): e for e in evaluations if e.model == UNTRAINED}
    rows = []
    for evaluation in of_best(evaluations):
        chance = chance_level(evaluation.attack, np.random.default_rng(seed))
        row = _about(evaluation) | {"rank1": evaluation.estimates["rank1"].value}
        row |= dict(zip(("shuffled", "shuffled_low", "shuffled_high"), chance.rank1, strict=True))
        row["one in N"] = chance.expected_rank1
        control = untrained.get((evaluation.cohort, evaluation.protocol))
        row["untrained network"] = control.estimates["rank1"].value if control else math.nan
        row["eer"] = evaluation.estimates["eer"].value
        row |= dict(zip(("eer shuffled", "eer shuffled_low", "eer shuffled_high"), chance.eer, strict=True))
        row["eer untrained"] = control.estimates["eer"].value if control else math.nan
        rows.append(row)
    return pd.DataFrame(rows)


def paper_table(evaluations: Sequence[Evaluation], results: Sequence[DemographicResult]) -> pd.DataFrame:
    """Set published accuracies beside ours: under random windows, and under a protocol that holds."""
    rows = []
    for task, published in PAPER.items():
        for cohort in dict.fromkeys(e.cohort for e in evaluations):
            found = _accuracies(task, cohort, evaluations, results)
            honest = next((name for name in HONEST[task] if name in found), None)
            row: dict[str, object] = {"task": task, "cohort": cohort, **published}
            row |= _triple("ours, random windows", found.get(LEAKY)) | _triple("ours, held apart", found.get(honest))
            rows.append(row | {"protocol held apart": honest or "none: one record a person"})
    return pd.DataFrame(rows)


def papers_and_honest(results: Sequence[DemographicResult]) -> list[DemographicResult]:
    """Keep labelled results under random windows and for people unseen in training; others answer neither question."""
    unseen = ("subject_disjoint_", "cross_cohort_")
    return [r for r in results if r.probes and (r.protocol == LEAKY or r.protocol.startswith(unseen))]


def demographic_table(results: Sequence[DemographicResult], metric: str) -> pd.DataFrame:
    """One metric of sex and age group by every attacker with such heads, a column an attacker."""
    rows: dict[tuple[str, ...], dict[str, object]] = {}
    majority = {}
    for r in papers_and_honest(results):
        if metric in r.estimates:
            cell = r.task, r.cohort, r.protocol
            about = {"task": r.task, "cohort": r.cohort, "protocol": r.protocol, "persons": r.estimates[metric].n}
            rows.setdefault(cell, about)[r.model] = r.estimates[metric].value
            majority[cell] = r.estimates["majority"].value
    table = pd.DataFrame(rows.values())
    if metric == "accuracy":
        table["most frequent class"] = list(majority.values())
    return table.sort_values("task", ascending=False, kind="stable") if len(table) else table


def extrapolation_table(evaluations: Sequence[Evaluation], resamples: Mapping[str, Resamples]) -> pd.DataFrame:
    """Rank-1 of the best attacker extrapolated to :data:`SIZES` people, with the tails behind the interval."""
    rows = []
    for evaluation in of_best(evaluations):
        if evaluation.protocol not in EXTRAPOLATED:
            continue
        (fold,) = evaluation.attack.folds
        found = extrapolate_rank1(
            fold.scores, fold.probe_persons, fold.gallery_persons, resamples[evaluation.cohort], SIZES
        )
        for size, tails in found.items():
            row = (
                _about(evaluation)
                | {"persons": tails["envelope"].n, "people": size}
                | _triple("rank1", tails["envelope"])
            )
            row |= {f"{tail} tail": tails[tail].value for tail in TAILS}
            rows.append(row | {"reason": tails["envelope"].reason or ""})
    return pd.DataFrame(rows)


def reporting_table(trialled: Sequence[Trialled], stores: Mapping[str, RecordStore]) -> pd.DataFrame:
    """Fill in the minimum reporting list of ecg-biometrics-bench (arXiv 2605.01548), eight points."""
    names = list(dict.fromkeys(one.protocol.name for one in trialled))
    unseen = [name for name in names if name.startswith(("subject_disjoint", "cross_cohort"))]
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


def _accuracies(
    task: str, cohort: str, evaluations: Sequence[Evaluation], results: Sequence[DemographicResult]
) -> dict[str, Estimate]:
    """TransECG's accuracy of a task by protocol (rank-1 for persons)."""
    if task == "person":
        return {e.protocol: e.estimates["rank1"] for e in evaluations if (e.cohort, e.model) == (cohort, REFERENCE)}
    wanted = (cohort, REFERENCE, task)
    return {r.protocol: r.estimates["accuracy"] for r in results if (r.cohort, r.model, r.task) == wanted}


def _about(evaluation: Evaluation) -> dict[str, object]:
    """First columns of a row."""
    return {"cohort": evaluation.cohort, "protocol": evaluation.protocol}


def _triple(name: str, estimate: Estimate | None) -> dict[str, float]:
    """Value and interval under names that are shown as one column."""
    values = (estimate.value, estimate.low, estimate.high) if estimate else (math.nan,) * 3
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
