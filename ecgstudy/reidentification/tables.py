"""Tables and findings of the re-identification stage, made from its rows of results."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress

import numpy as np
import pandas as pd

from ecgstudy.errors import StudyError
from ecgstudy.evaluate.disclosure import zebra_tag
from ecgstudy.evaluate.protocols import CrossRecord
from ecgstudy.evaluate.results import INTERVAL, pivot, result, results_table, unit_of
from ecgstudy.evaluate.splits import SUBJECT
from ecgstudy.experiment.attackers import ATTACKERS, NETWORKS, UNTRAINED
from ecgstudy.experiment.attackers import FEATURES as FEATURE_MODEL
from ecgstudy.experiment.dataset import IDENTITY_LEAD
from ecgstudy.experiment.evaluation import REFERENCE, UNSEEN
from ecgstudy.experiment.jobs import Context, Job
from ecgstudy.experiment.selection import BEST, Choice
from ecgstudy.experiment.templates import MEAN
from ecgstudy.signals.features import FEATURES
from ecgstudy.study.cache import commit

CELL = ["cohort", "protocol"]
"""What most tables have a row of."""
LEAKY, LEAKIER = "random_windows", "overlapping_windows"
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
OURS = ("ours, random windows", "ours, held apart")
ONE_RECORD, NOT_STATED = "none: one record a person", "none: not stated, or the same for everybody"
EXPLAINED_WINDOWS = 100
_LOOKED_FOR = ("rank1", "eer", "tar_at_far_1e-2", "d_sys")
_ONE_RECORD = "Not defined: every person of this cohort has one record, so nobody can be sought in another one."
_NO_CHOICE = "Not defined: there is nobody to choose an attacker on."


def undefined_results(rows: pd.DataFrame, refused: pd.DataFrame) -> pd.DataFrame:
    """Rows of the metrics that a reader would look for in vain, each with the sentence that says why.

    `rows` are those of the evaluation, `refused` the runner's refusals.
    """
    named = rows.reindex(columns=[*CELL, "attacker"])
    measured = {*named.itertuples(index=False, name=None), *named[CELL].itertuples(index=False, name=None)}
    sentences = {
        (row.cohort, row.protocol, attacker): row.reason
        for row in refused.itertuples()
        # where some attackers were measured, the refusal is of one alone
        for attacker in ((row.attacker,) if (row.cohort, row.protocol) in measured else (*ATTACKERS, BEST))
        if (row.cohort, row.protocol, attacker) not in measured
    }
    for cohort, own in rows.groupby("cohort", sort=False):
        protocols, chosen = sorted(own["protocol"].unique()), set(own.loc[own["attacker"] == BEST, "protocol"])
        sentences |= {(cohort, protocol, BEST): _NO_CHOICE for protocol in protocols if protocol not in chosen}
        if protocols == [LEAKY]:
            sentences[cohort, "cross_record", BEST] = _ONE_RECORD
    return results_table(
        result(metric, math.nan, unit_of(metric), note=note, cohort=cohort, protocol=protocol, attacker=attacker)
        for (cohort, protocol, attacker), note in sentences.items()
        for metric in _LOOKED_FOR
    )


def headlines(rows: pd.DataFrame) -> dict[str, str]:
    """Names of the best attackers' headline metrics with their label in plain words."""
    told = {"rank1_per_person": "rank-1, every person counting once", "rank1": "rank-1, every probe counting once"}
    told["eer"] = "equal error rate"
    shown = rows[(rows["attacker"] == BEST) & rows["protocol"].isin(HEADLINES) & rows["metric"].isin(told)]
    names = shown["cohort"] + "." + shown["protocol"] + f".{BEST}." + shown["metric"]
    labels = shown["cohort"] + ", " + shown["protocol"].str.replace("_", " ") + ": " + shown["metric"].map(told)
    return dict(zip(names, labels, strict=True))


def protocol_table(context: Context, trialled: Sequence[Job], spans: pd.DataFrame) -> pd.DataFrame:
    """One row a cohort and protocol: what it claims, whom it probes how much later, whether it leaks."""
    rows, yes = [], {True: "yes", False: "no"}
    for job in trialled:
        splits, protocol = context.splits(job), job.protocol
        probed = pd.concat([split.probe for split in splits])
        row = {"cohort": job.cohort, "protocol": protocol.name, "leaky": yes[protocol.leaky]}
        row |= {"people unseen in training": yes[splits[0].unseen_persons], "folds": len(splits)}
        row |= {"persons probed": probed[SUBJECT].nunique(), "probes": len(probed), "claim": protocol.claim}
        rows.append(row)
    return pd.DataFrame(rows).merge(spans[[*CELL, "gap"]], how="left")


def choice_table(choices: Mapping[tuple[str, str], Sequence[Choice]]) -> pd.DataFrame:
    """One row a choice: who was chosen, for how many, judged on whom, and the next three (rank-1 / EER in %).

    Protocols for which the same was chosen stand on one row; `protocols` is "all" where they are all of the cohort's.
    """
    rows, cohorts = [], [cohort for cohort, _ in choices]
    for (cohort, protocol), made in choices.items():
        for fold, one in enumerate(made, start=1):
            first = one.ranking.head(4)
            shown = [f"{name} {100 * row.rank1:.1f} / {100 * row.eer:.1f}" for name, row in first.iterrows()]
            row = {
                "cohort": cohort,
                "fold": fold,
                "chosen for": str(len(one.persons) or "all"),
                "judged on": one.judged,
            }
            row |= {"persons judged": int(one.ranking["persons"].max() if len(first) else 0)}
            row |= {"chosen": (shown or ["none"])[0], "next": "; ".join(shown[1:])}
            rows.append(row | {"protocols": protocol.replace("_", " ")})
    table = pd.DataFrame(rows)
    same = [column for column in table if column != "protocols"]
    found = table.groupby(same, sort=False)["protocols"].agg(protocols=", ".join, n="size").reset_index()
    everywhere = found["n"] == found["cohort"].map(cohorts.count)
    return found.assign(protocols=found["protocols"].mask(everywhere, "all")).drop(columns="n")


def best_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the attackers that were chosen on other people."""
    return rows[rows["attacker"] == BEST]


def best_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Identification by the best attackers, and who they are."""
    best = best_of(rows).assign(attacker=best_of(rows).get("stands_for"))
    ranks = ("rank1", "rank1_per_person", "rank1_returners")
    found = pivot(best, [*CELL, "attacker"], shown=ranks, ends=INTERVAL)
    return found.merge(pivot(best, CELL, shown=("persons", "enrolled", "probes", "resolution")))


def verification_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Verification and open set by the best attackers."""
    rates = ("eer", "eer_per_person", "tar_at_far_1e-2", "dir_at_far_1e-2")
    return pivot(best_of(rows), CELL, shown=rates, ends=INTERVAL)


def tail_table(rows: pd.DataFrame) -> pd.DataFrame:
    """How the risk is spread over persons, by the best attackers."""
    return pivot(best_of(rows), CELL, shown=("risk_median", "risk_p95", "risk_worst", "always_first", "never_first"))


def disclosure_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Linkability and disclosure by the best attackers."""
    shown = {"d_sys": "d_sys", "d_sys_null": "null", "zebra_bits": "zebra_bits"}
    plain = pivot(best_of(rows), CELL, shown={"zebra_worst": "zebra_tag", "cllr_min": "cllr_min"})
    tagged = plain.assign(zebra_tag=plain["zebra_tag"].map(zebra_tag))
    return pivot(best_of(rows), CELL, shown=shown, ends=INTERVAL).merge(tagged)


def attacker_table(rows: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One metric of every attacker, enrolment by its mean, a column an attacker."""
    return pivot(rows[(rows["metric"] == metric) & rows["attacker"].isin((*ATTACKERS, BEST))], CELL, "attacker")


def enrolment_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Rank-1 and EER of every attacker, a column a rule of enrolment."""
    own = rows.reindex(columns=[*CELL, "attacker", "metric", "value", "base", "rule"])
    own = own[own["metric"].isin(("rank1", "eer")) & (own["attacker"].isin(own["base"].dropna()) | own["rule"].notna())]
    rule = own["metric"] + ", " + own["rule"].fillna(MEAN).astype(str).str.replace("_", " ")
    return pivot(own.assign(attacker=own["base"].fillna(own["attacker"]), rule=rule), [*CELL, "attacker"], "rule")


def pooled_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Accuracies of people of several cohorts together, what was published first."""
    found = pivot(rows, ["attacker"], ends=INTERVAL)
    published = {f"{task}_accuracy": values["TransECG"] for task, values in PAPER.items()}
    return pd.concat([pd.DataFrame([{"attacker": "TransECG, published"} | published]), found])[[*found]]


def contrast_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Every attacker minus the reference on identical trials, under the headline protocols."""
    shown = {f"{metric}_minus_{REFERENCE}": metric for metric in ("rank1", "eer")}
    own = rows[
        rows["metric"].isin(shown) & rows["protocol"].isin(HEADLINES) & ~rows["attacker"].isin((UNTRAINED, BEST))
    ]
    table = pivot(own, [*CELL, "attacker"], shown=shown, ends=INTERVAL | {"p": " p"})
    return table.rename(columns={f"{metric} p": f"p {metric}" for metric in shown.values()})


def seed_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Spread over the training seeds of every network, beside their ensemble."""
    networks = rows[rows["attacker"].isin(NETWORKS) & rows["metric"].isin(("rank1", "eer"))]
    ends = {"lowest": " lowest", "highest": " highest", "value": " ensemble"}
    return pivot(networks, [*CELL, "attacker", "seeds"], ends=ends)


def paper_table(rows: pd.DataFrame, demographics: pd.DataFrame) -> pd.DataFrame:
    """Set published accuracies beside ours: under random windows, and under a protocol that holds."""
    persons = rows[rows["metric"] == "rank1"].assign(task="person")
    both = pd.concat([persons, demographics[demographics["metric"] == "accuracy"]])
    ours = both[both["attacker"] == REFERENCE].set_index(["task", *CELL])
    table = []
    for task, published in PAPER.items():
        for cohort in rows["cohort"].unique():
            honest = next((name for name in HONEST[task] if (task, cohort, name) in ours.index), "")
            row: dict[str, object] = {"task": task, "cohort": cohort, **published}
            for name, protocol in zip(OURS, (LEAKY, honest), strict=True):
                key = (task, cohort, protocol)
                row |= {name + end: ours[part].get(key, math.nan) for part, end in INTERVAL.items()}
            reason = ONE_RECORD if task == "person" or math.isfinite(row[OURS[0]]) else NOT_STATED
            table.append(row | {"protocol held apart": honest or reason})
    return pd.DataFrame(table)


def papers_and_honest(demographics: pd.DataFrame) -> pd.DataFrame:
    """Keep labelled results under random windows and for people unseen in training; others answer neither question."""
    asked = (demographics["protocol"] == LEAKY) | demographics["protocol"].astype(str).str.startswith(UNSEEN)
    return demographics[asked & (demographics["n"] > 0)]


def demographic_table(demographics: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One metric of sex and age group by every attacker with such heads, a column an attacker."""
    keys, own = ["task", *CELL], papers_and_honest(demographics)
    own = own.assign(persons=own.groupby(keys)["n"].transform("first"))
    shown = own[own["metric"] == metric]
    if metric == "accuracy":
        shown = pd.concat([shown, own[own["metric"] == "majority"].assign(attacker="most frequent class")])
    return pivot(shown, [*keys, "persons"], "attacker").sort_values("task", ascending=False, kind="stable")


def reporting_table(context: Context, trialled: Sequence[Job]) -> pd.DataFrame:
    """Fill in the minimum reporting list of ecg-biometrics-bench (arXiv 2605.01548), eight points."""
    names = list(dict.fromkeys(job.protocol.name for job in trialled))
    unseen = [name for name in names if name.startswith(UNSEEN)]
    sessions = [name for name in names if name.endswith("_day")]
    counts = [
        f"{name}: {store.records[SUBJECT].nunique()} people, {len(store.records)} records, content digest "
        f"{store.manifest['cohort_digest'][:8]}"
        for name, store in context.stores.items()
    ]
    trained = ", ".join(f"{name} {one.seeds}" for name, one in context.attackers.items() if name in NETWORKS)
    points = {
        "people unseen in training beside the closed set": ", ".join(unseen) or "not possible with these cohorts",
        "another session as the headline": ", ".join(sessions) or "not possible: no cohort has a second day",
        "EER and TAR at a stated FAR": "EER, TAR at FAR 1e-2 and 1e-3, DET curves; rank-1 always with its gallery",
        "data sets and people after filtering": "; ".join(counts),
        "preprocessing": f"0.5-40 Hz without phase shift, {context.dataset.fs:g} Hz, lead {IDENTITY_LEAD}, else the "
        "record's reference lead; windows standardised; R peaks at the record's own rate",
        "seeds, intervals, paired tests": f"trained {trained} times (demo, first look: once); 95 % "
        f"intervals from {context.n_resamples} resamples of persons; paired bootstrap on identical trials",
        "enrolment and probe held apart": "split objects refuse shared samples, records, waveforms and, where claimed, "
        "persons; every trial is listed in trials/",
        "code and configuration": f"commit {commit()[:10]}; one cell of parameters; recipes in the package",
    }
    return pd.DataFrame({"point": range(1, len(points) + 1), "asked": points.keys(), "here": points.values()})


def shap_table(context: Context, seed: int) -> pd.DataFrame:
    """Mean absolute SHAP value of each feature for recognising persons in another recording.

    The feature model learns from first records of the first cohort with several records a person, and is explained
    on windows of second records.

    Returns
    -------
    pandas.DataFrame
        Columns feature, unit, mean_abs_shap (log-odds, averaged over windows and persons), largest first;
        empty where no cohort has several records a person.
    """
    for cohort in context.stores:
        job = Job(cohort, CrossRecord(), FEATURE_MODEL, seed)
        # what the records refuse is named by the runner
        with suppress(StudyError):
            features, _ = context.dataset.features(context.splits(job)[0].probe)
            model = context.fitted(job).boosters["person"]
            break
    else:
        return pd.DataFrame(columns=["feature", "unit", "mean_abs_shap"])
    rows = np.random.default_rng(seed).permutation(len(features))[:EXPLAINED_WINDOWS]
    strength = np.abs(model.shap_values(features.iloc[np.sort(rows)])).mean(axis=(0, 2))
    table = pd.DataFrame({"feature": list(FEATURES), "unit": list(FEATURES.values()), "mean_abs_shap": strength})
    return table.sort_values("mean_abs_shap", ascending=False, ignore_index=True)


def inflation_finding(rows: pd.DataFrame) -> str:
    """Say how much of TransECG's random-window accuracy survives the protocols that hold, all else being equal."""
    told = {LEAKIER: "overlapping windows of 5 s (leakier)", LEAKY: "random windows of 5 s (leaky)"}
    for name in HONEST["person"]:
        told |= {f"{name}_5s": f"{name.replace('_', ' ')} 5 s", name: f"{name.replace('_', ' ')} whole records"}
    parts = []
    ours = rows[(rows["attacker"] == REFERENCE) & (rows["metric"] == "rank1_equal_gallery")]
    for cohort, own in ours.groupby("cohort", sort=False):
        value = own.set_index("protocol")["value"]
        if LEAKY in value:
            shares = [f"{words} {100 * value[name]:.1f} %" for name, words in told.items() if name in value]
            parts.append(f"{cohort}: {', '.join(shares)}")
    found = "; ".join(parts) or "not measured under the leaky one"
    return f"TransECG's rank-1 in galleries of one size a cohort, from the leaky protocol to those that hold: {found}."


def best_finding(best: pd.DataFrame, verification: pd.DataFrame) -> str:
    """Name the best attacker's figures under each headline protocol, from the two tables of them."""
    parts = [
        f"{row['cohort']} {row['protocol'].replace('_', ' ')}: rank-1 {_percent(row, 'rank1')}, each of "
        f"{row['persons']:.0f} persons counting once {_percent(row, 'rank1_per_person')}, "
        f"EER {_percent(row, 'eer')} ({row['attacker']}, gallery of {row['enrolled']})"
        for row in best.merge(verification).to_dict("records")
        if row["protocol"] in HEADLINES
    ]
    told = "; ".join(parts) or "no headline protocol has one"
    return f"Best attackers, chosen on other people: {told}."


def demographic_finding(paper: pd.DataFrame) -> str:
    """Set sex and age group under random windows beside people never seen, from :func:`paper_table`."""
    parts = []
    for row in paper[paper["task"] != "person"].to_dict("records"):
        if math.isfinite(row[OURS[0]]) and row["protocol held apart"] != ONE_RECORD:
            leaky, held = (_percent(row, name) for name in OURS)
            parts.append(f"{row['task']} on {row['cohort']} {leaky} of random windows, {held} of unseen people")
    return f"TransECG reads {'; '.join(parts)}." if parts else "No cohort allows sex or age of unseen people."


def _percent(row: dict[str, float], name: str) -> str:
    """Write a share in per cent with its interval."""
    value, low, high = (100 * row[name + end] for end in INTERVAL.values())
    if math.isnan(value):
        return "undefined (metrics.json says why)"
    return f"{value:.1f} %" if math.isnan(low) else f"{value:.1f} % ({low:.1f} to {high:.1f})"
