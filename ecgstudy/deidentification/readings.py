"""What readers say of a release, as rows of the results table: sex, age, diagnoses, floors, and who was learnt from."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict

from ecgstudy.deidentification import plan
from ecgstudy.deidentification.attacks import REFERENCE, RHYTHM_ATTACKER
from ecgstudy.deidentification.attributes import BINARY, OUTPUTS_FLOOR, READER, ReadingJob, membership
from ecgstudy.deidentification.readers import FIBRILLATION
from ecgstudy.deidentification.release import RAW
from ecgstudy.deidentification.results import NOT_VALID, SHORT, STRONGEST, UTILITY, adaptive_rows
from ecgstudy.evaluate.bootstrap import (
    Resamples,
    Statistic,
    bootstrap,
    bootstrap_each,
    clustered_means,
    paired_difference,
)
from ecgstudy.evaluate.results import estimate_results, result, results_table
from ecgstudy.evaluate.trials import SortedScores, auroc
from ecgstudy.experiment.jobs import Context

SURELY = 1.645
"""Gates of who reads sex or age: raw records better than chance, by the interval; and its own people by so many
standard deviations of an AUROC without any skill (Mann & Whitney 1947), which chance reaches once in twenty times."""
LEAST_POSITIVES = 8
OUTPUT_FOLDS = 10
READING = ["view", "tier", "task"]
"""What one reader is the strongest of."""


def reading_results(
    values: Mapping[str, pd.DataFrame], jobs: Sequence[ReadingJob], told: Sequence[str], seed: int
) -> pd.DataFrame:
    """Long table of AUROC of sex, age and diagnoses by release and tier, and what is lost against raw records.

    The reader is the mean of its seeds; everybody is a victim of one rotation. ``superclass`` is the mean AUROC over
    the diagnoses `told` but for fibrillation. Losses are paired: raw minus protected on the same records and resamples.
    Of sex and age there is a row an attacker, with whether it is valid, and under the attacker "strongest" that of the
    valid one who reads most, by tier and for the tier "adaptive"; undefined where no network is valid.
    """
    cells: dict[tuple[str, str], list[ReadingJob]] = {}
    for job in jobs:
        if job.name in values:
            cells.setdefault((job.view, job.tier), []).append(job)
    on_raw = cells.get((RAW, REFERENCE), [])
    if not on_raw:  # nothing can be read of the records as they are
        return results_table([]).astype(object).assign(tier="", name="")
    everybody, learnt = _mean_reader([values[job.name] for job in on_raw]), {}
    resamples, targets, rows = Resamples.draw(everybody["person"], seed), _targets(everybody, told), []
    for (view, tier), asked in cells.items():
        about = {"cohort": jobs[0].cohort, "protocol": "strangers", "attacker": READER, "view": view, "tier": tier}
        made, seeds = [values[job.name] for job in asked], {job.seed for job in asked}
        table, by_rhythm = _mean_reader(made), _mean_reader(made, RHYTHM_ATTACKER)
        own_people = _mean_reader(made, own=True)
        learnt |= {(view, tier, task): _has_learnt(own_people, task) for task in BINARY}
        # a mean of several readers is stronger than one: losses are against readers of the same seeds
        reference = _mean_reader([values[job.name] for job in on_raw if job.seed in seeds] or [everybody])
        common = table.merge(reference[["record", "task"]])[["record", "task"]]
        pair = [one.merge(common) for one in (reference, table)]
        for target, tasks in targets.items():
            own, n = mean_auroc(table, tasks, resamples)
            estimates = {"auroc": bootstrap(own, resamples, n, f"{target} occurs too seldom among these people")}
            if view != RAW:
                both = (mean_auroc(one, tasks, resamples)[0] for one in pair)
                estimates["auroc_loss"] = paired_difference(*both, resamples, n, "one of the two is undefined")
            for row in estimate_results(estimates, **about, task=target):
                start = f"utility.{target}.{UTILITY[tier]}"
                if target in BINARY:
                    start = f"{SHORT[target]}.{tier}" + (f".{READER}" if row["metric"] == "auroc" else "")
                rows.append(row | {"name": f"deid.{view}.{start}.{row['metric']}"})
            if target in BINARY:
                peaks = about | {
                    "attacker": RHYTHM_ATTACKER,
                    "name": f"deid.{view}.{SHORT[target]}.{tier}.{RHYTHM_ATTACKER}.auroc",
                }
                statistic, n = mean_auroc(by_rhythm, tasks, resamples)
                found = bootstrap(statistic, resamples, n, f"{target} occurs too seldom among these people")
                rows += [row | peaks for row in estimate_results({"auroc": found}, **about, task=target)]
        if "expected_age" in table:
            rows += _age_error(table, resamples, about)
    return _with_strongest_reader(results_table(rows), learnt)


def _has_learnt(own: pd.DataFrame, task: str) -> bool:
    """Whether a reader tells its own people apart, those whom it has learnt from."""
    own = own[own["task"] == task].dropna(subset="truth")
    n_true, n_false = int(own["truth"].sum()), int((1 - own["truth"]).sum())
    if not n_true or not n_false:
        return False
    spread = math.sqrt((n_true + n_false + 1) / (12 * n_true * n_false))
    return bool(roc_auc_score(own["truth"], own["p"]) >= 0.5 + SURELY * spread)


def _with_strongest_reader(rows: pd.DataFrame, learnt: Mapping[tuple[str, str, str], bool]) -> pd.DataFrame:
    """Say of each reading of sex and age whether it is valid, and add rows of the strongest of each tier."""
    asked = rows["task"].isin([*BINARY]) & (rows["metric"] == "auroc")
    on_raw = rows[asked & (rows["view"] == RAW) & (rows["attacker"] == READER)].set_index("task")["low"].astype(float)
    reads_raw = rows["task"].map(on_raw > 0.5).eq(True)
    able = reads_raw & [learnt.get(tuple(cell), False) for cell in rows[READING].to_numpy()]
    rows = rows.assign(valid=asked & (able | (rows["attacker"] == RHYTHM_ATTACKER)), stands_for=None)
    strongest = []
    for cell, part in rows[asked].groupby(READING, sort=False):
        valid = part[part["valid"]].dropna(subset="value").astype({"value": float})
        if READER in set(valid["attacker"]):
            chosen = part.loc[[valid["value"].idxmax()]]
            strongest.append(chosen.assign(stands_for=chosen["attacker"]))
        else:
            none = results_table([result("auroc", math.nan, "share", note=NOT_VALID)])
            about = dict(zip(READING, cell, strict=True)) | {"cohort": part["cohort"].iloc[0], "protocol": "strangers"}
            strongest.append(none.assign(**about, valid=False, stands_for=None))
    if not strongest:
        return rows
    strongest = pd.concat(strongest, ignore_index=True)
    strongest = pd.concat([strongest, adaptive_rows(strongest, ["view", "task"], "auroc")], ignore_index=True)
    told = zip(strongest["view"], strongest["task"].map(SHORT), strongest["tier"], strict=True)
    named = [".".join(("deid", *each, "auroc")) for each in told]
    return pd.concat([rows, strongest.assign(attacker=STRONGEST, name=named)], ignore_index=True)


def _mean_reader(tables: Sequence[pd.DataFrame], attacker: str = READER, own: bool = False) -> pd.DataFrame:
    """Mean over seeds of what an attacker says of each record and task, of the people asked or of those learnt from."""
    table = pd.concat(tables, ignore_index=True)
    table = table[(table["attacker"] == attacker) & (table["own"] == own)]
    keep = {"person": "first", "truth": "first", "age": "first", "p": "mean"}
    keep |= {"expected_age": "mean", "median_age": "mean"} if "expected_age" in table else {}
    return table.groupby(["record", "task"], sort=False).agg(keep).reset_index()


def _targets(reference: pd.DataFrame, told: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """List what is reported: sex, age, every diagnosis that occurs enough, and the mean over the general ones."""
    counts = reference.dropna(subset="truth").groupby("task", sort=False)["truth"].agg(["sum", "size"])
    enough = counts[(counts["sum"] >= LEAST_POSITIVES) & (counts["size"] - counts["sum"] >= LEAST_POSITIVES)]
    found = {task: (task,) for task in enough.index if task != "age_group"}
    general = tuple(task for task in told if task in found and task != FIBRILLATION)
    return found | ({"superclass": general} if general else {})


def mean_auroc(table: pd.DataFrame, tasks: Sequence[str], resamples: Resamples) -> tuple[Statistic, int]:
    """Mean AUROC over some tasks of a table of readings as a function of multiplicities, and its number of persons."""
    known = table[table["task"].isin(tasks)].dropna(subset=["truth", "p"])
    parts = []
    for _, part in known.groupby("task", sort=False):
        person = resamples.index_of(part["person"])
        parts.append((SortedScores(part["p"].to_numpy(), part["truth"].to_numpy() == 1), person))

    def statistic(multiplicity: np.ndarray) -> float:
        found = [auroc(scores.levels(multiplicity[person][scores.order])) for scores, person in parts]
        return float(np.mean(found)) if len(found) == len(tasks) else math.nan

    return statistic, known["person"].nunique()


def _age_error(table: pd.DataFrame, resamples: Resamples, about: Mapping[str, str]) -> list[dict[str, object]]:
    """Rows of the mean error of age in years, beside that of always saying the median of those learnt from."""
    known = table.dropna(subset=["expected_age", "age"])
    person = resamples.index_of(known["person"])
    errors = [np.abs(known[said] - known["age"]).to_numpy() for said in ("expected_age", "median_age")]

    def means(drawn: np.ndarray) -> list[float]:
        weights = drawn[person]
        return [float(np.average(error, weights=weights)) if weights.any() else math.nan for error in errors]

    found = bootstrap_each(means, resamples, known["person"].nunique(), ["no age is known"] * len(errors))
    rows = estimate_results(dict(zip(("age_mae", "age_mae_of_median"), found, strict=True)), **about, task="age")
    start = f"deid.{about['view']}.age.{about['tier']}"
    return [row | {"unit": "years", "name": f"{start}.{row['metric']}"} for row in rows]


def floor_results(table: pd.DataFrame, cohort: str, seed: int) -> pd.DataFrame:
    """Long table of the AUROC of sex and age from what is known without a waveform, by floor."""
    rows = []
    for (floor, task), part in table.groupby(["floor", "task"], sort=False):
        about = {"cohort": cohort, "protocol": "strangers", "attacker": floor, "view": "floor"}
        about |= {"name": f"floor.{floor}.{SHORT[task]}.auroc"}
        rows += _auroc_results(part, task, f"{task} has one class only", seed, **about)
    return results_table(rows)


def _auroc_results(
    table: pd.DataFrame, task: str, if_undefined: str, seed: int, **about: str
) -> list[dict[str, object]]:
    """Row of the AUROC of a table of readings that are of one task, by resamples of its own."""
    resamples = Resamples.draw(table["person"], seed)
    statistic, n = mean_auroc(table, (task,), resamples)
    return estimate_results({"auroc": bootstrap(statistic, resamples, n, if_undefined)}, **about, task=task)


def outputs_floor(values: Mapping[str, pd.DataFrame], jobs: Sequence[ReadingJob], told: Sequence[str]) -> pd.DataFrame:
    """Predictions of sex and age from what classifiers of raw records say of the diagnoses told, out of fold by person.

    Rows like those of :func:`ecgstudy.deidentification.attributes.floors`: a bottleneck passes on no more than this.
    """
    raw = [values[job.name] for job in jobs if job.tier == REFERENCE and job.name in values]
    parts = [pd.DataFrame(columns=["person", "task", "floor"])]
    if not raw:
        return parts[0]
    table = _mean_reader(raw)
    said = table[table["task"].isin(told)].pivot_table("p", "record", "task").dropna()
    for task in BINARY:
        asked = table[(table["task"] == task) & table["record"].isin(said.index)].dropna(subset="truth")
        if asked.groupby("truth")["person"].nunique().min() < OUTPUT_FOLDS or asked["truth"].nunique() < 2:
            continue
        inputs, model = said.loc[asked["record"]].to_numpy(), LogisticRegression(max_iter=1000)
        split = GroupKFold(OUTPUT_FOLDS, shuffle=True, random_state=0)
        told_apart = {"groups": asked["person"], "cv": split, "method": "predict_proba"}
        chances = cross_val_predict(model, inputs, asked["truth"], **told_apart)
        parts.append(asked.assign(p=chances[:, 1], floor=OUTPUTS_FLOOR))
    return pd.concat(parts[1:] or parts, ignore_index=True)


def membership_results(context: Context, readable: Mapping[tuple[str, int], str], seed: int) -> pd.DataFrame:
    """Long table of how well the protector's own people are told from strangers (.5 is chance), by release.

    And how far shapes are moved: the root mean square distance between raw and released mean cycles of victims, in
    standard deviations of a lead.
    """
    (cohort, _), rows = plan.asked_cohorts(context), []
    for view in dict.fromkeys(view for view, _ in readable):
        # a person of several rotations is asked in each: as another person would be
        folders = {rotation: context.cache / folder for (own, rotation), folder in readable.items() if own == view}
        tables = [membership(context, folder, rotation) for rotation, folder in folders.items()]
        about = {"cohort": cohort, "protocol": "membership", "attacker": "distance", "view": view}
        about |= {"name": f"deid.{view}.membership.auroc"}
        table = pd.concat(tables, ignore_index=True).assign(task="member")
        rows += _auroc_results(table, "member", "there is nobody to tell apart", seed, **about)
        victims = table[table["truth"] == 0]
        resamples, moved = Resamples.draw(victims["person"], seed), -victims[["p"]].rename(columns={"p": "distance"})
        found = clustered_means(moved, victims["person"].to_numpy(), resamples, "no record of the victims is left")
        told = about | {"protocol": "fidelity", "name": f"deid.{view}.fidelity.shape.distance"}
        rows += [row | {"unit": "SD"} for row in estimate_results(found, **told, task="shape")]
    return results_table(rows)
