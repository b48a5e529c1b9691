"""What attacks on a release and readings of it say, as rows of the results table."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_predict

from ecgstudy.deidentification import plan
from ecgstudy.deidentification.attacks import (
    ADAPTIVE,
    INVERSION,
    INVERSION_ATTACKER,
    LAZY,
    NETWORKS,
    REFERENCE,
    RHYTHM_ATTACKER,
    SEMI,
    AttackJob,
)
from ecgstudy.deidentification.attributes import BINARY, OUTPUTS_FLOOR, READER, TOLD_FLOOR, ReadingJob, membership
from ecgstudy.deidentification.readers import FIBRILLATION
from ecgstudy.deidentification.release import RAW
from ecgstudy.evaluate.bootstrap import (
    Resamples,
    Statistic,
    bootstrap,
    bootstrap_each,
    clustered_means,
    paired_difference,
)
from ecgstudy.evaluate.results import estimate_results, result, results_table
from ecgstudy.evaluate.trials import SortedScores, auroc, rank1_and_eer
from ecgstudy.experiment.evaluation import evaluate
from ecgstudy.experiment.jobs import Context
from ecgstudy.experiment.scores import ScoreSet
from ecgstudy.study.parallel import in_parallel

BEST = "bottleneck_retimed.128"
"""The setting that is judged, fixed before the stage ran (its parts were tried on PTB-XL's folds 9 and 10)."""
STRONGEST, WORST = "strongest", "worst"
"""Attacker and protocol of rows about whatever recognises most."""
KNOWN_STRENGTH = 0.15
"""First gate: EER on raw records that an attacker with something to learn or to compare reaches at most."""
BEATS_CHANCE = 1.645 * 0.5
"""Second gate: EER on people of its own side lies so far below one half, over the root of their number, that chance
would reach it once in twenty times. Who misses a gate does not count, whatever it fails to recognise."""
SURELY = 1.645
"""Gates of who reads sex or age: raw records better than chance, by the interval; and its own people by so many
standard deviations of an AUROC without any skill (Mann & Whitney 1947), which chance reaches once in twenty times."""
NOT_VALID = "Attack not valid: no attacker reached its known strength and beat chance on its own people."
LEAST_POSITIVES = 8
OUTPUT_FOLDS = 10
SHOWN = ("rank1", "eer", "d_sys")
KEPT = (*SHOWN, "d_sys_null", "tar_at_far_1e-2", "risk_median", "risk_p90", "risk_p95", "risk_worst", "always_first")
KEPT += ("persons", "enrolled", "probes", "unscored")
"""Metrics of the strongest attacker that are published; of the others rank-1 and EER are."""
MOST = ("rank1", "tar_at_far_1e-2")
"""Of these the valid attacker with the most stands, whoever has the lowest EER."""
UTILITY = {
    REFERENCE: "raw",
    LAZY: "trained_on_raw",
    SEMI: "both_protected",
    "trained_on_protected": "trained_on_protected",
}
"""Names of the readers' settings where they say what a release is good for."""
WITHIN_BPM = (1, 5)
SHORT = {"sex": "sex", "over_60": "age"}
"""Tasks of persons as names of metrics tell them."""
CELL = ["view", "tier", "cohort", "protocol"]
"""What one attacker is the strongest of."""
READING = ["view", "tier", "task"]
"""What one reader is the strongest of."""
RELATIONS = {"heart_rate": "1/min", "pr": "ms", "qrs": "ms", "qtc": "ms"}


def attack_results(values: Mapping[str, ScoreSet], jobs: Sequence[AttackJob], seed: int) -> pd.DataFrame:
    """Long table of who is recognised: one row a release, tier, cohort, protocol, attacker and metric.

    Beside the columns of :mod:`ecgstudy.evaluate.results`: tier, valid (whether the attacker passes the gates) and
    name. Under the attacker "strongest" stands the valid one with the lowest EER, of rank-1 and TAR the one with the
    highest (`stands_for` says whom); nobody where none is valid. Under the tier "adaptive" stands the worst of those
    that know of the protection.
    """
    cells: dict[tuple[str, ...], list[ScoreSet]] = {}
    for job in jobs:
        if job.name in values:
            cell = job.view, job.tier, job.cohort, job.protocol.name, job.attacker
            cells.setdefault(cell, []).append(values[job.name])
    drawn: dict[tuple[str, ...], Resamples] = {}
    for cell, sets in cells.items():
        people = [side for fold in sets[0].folds for side in (fold.trials.probe, fold.trials.gallery)]
        drawn.setdefault(cell[2:4], Resamples.draw(np.concatenate(people), seed))
    items = [(sets, drawn[cell[2:4]]) for cell, sets in cells.items()]
    rows, reached = [], {}
    for cell, (found, _) in zip(cells, in_parallel(evaluate, items, "cpu", "evaluation"), strict=True):
        (view, tier), asked = cell[:2], cell[2:]
        if tier == REFERENCE:
            reached[asked] = next(row["value"] for row in found if row["metric"] == "eer")
        valid = _passes(asked[-1], reached.get(asked, math.nan), cells[cell])
        rows += [row | {"view": view, "tier": tier, "valid": valid} for row in found]
    table = results_table(rows)
    if table.empty:  # nobody was recorded again
        return table.astype(object).assign(tier="", valid=False, name="", stands_for=None)
    strongest = pd.concat([*_strongest(table)], ignore_index=True)
    strongest = pd.concat([strongest, _adaptive(strongest, ["view", "cohort", "protocol"], "eer")], ignore_index=True)
    each = table[table["metric"].isin(["rank1", "eer"])]
    named = _named(each, "cohort", "protocol", "attacker"), _named(strongest, "cohort", "protocol")
    return pd.concat([*named, _named(_worst_protocol(strongest))], ignore_index=True)


def _named(rows: pd.DataFrame, *told: str) -> pd.DataFrame:
    """Give rows about persons the names of their metrics, which tell some of their columns."""
    texts = rows[["view", "tier", *told, "metric"]].to_numpy().tolist()
    return rows.assign(name=[".".join(("deid", view, "person", *others)) for view, *others in texts])


def _strongest(table: pd.DataFrame) -> Iterable[pd.DataFrame]:
    """Rows of the strongest attacker of each release, tier, cohort and protocol, under its own name."""
    for cell, part in table.groupby(CELL, sort=False):
        eers = part[(part["metric"] == "eer") & part["valid"]].dropna(subset="value")
        if len(eers):
            chosen = eers.loc[eers["value"].astype(float).idxmin(), "attacker"]
            rows = part[(part["attacker"] == chosen) & part["metric"].isin(KEPT)]
            most = part[part["valid"] & part["metric"].isin(MOST)].dropna(subset="value").astype({"value": float})
            most = part.loc[most.groupby("metric")["value"].idxmax()]
            rows = pd.concat([rows[~rows["metric"].isin(most["metric"])], most])
            rows = rows.assign(stands_for=rows["attacker"])
        else:
            rows = pd.DataFrame([result(metric, math.nan, "share", note=NOT_VALID) for metric in SHOWN])
            rows = rows.assign(**dict(zip(CELL, cell, strict=True)), valid=False, stands_for=None)
        yield rows.assign(attacker=STRONGEST)


def _adaptive(strongest: pd.DataFrame, asked: Sequence[str], metric: str) -> pd.DataFrame:
    """Rows of that tier which, of those that know of the protection, reaches most; none without a semi-informed one."""
    knows = strongest[strongest["tier"].isin([LAZY, SEMI, INVERSION])]
    reached = knows[knows["metric"] == metric].dropna(subset="value").astype({"value": float})
    reached = reached.merge(reached.loc[reached["tier"] == SEMI, asked])
    worst = reached.sort_values("value", ascending=metric == "eer", kind="stable").drop_duplicates(asked)
    return knows.merge(worst[[*asked, "tier"]]).assign(tier=ADAPTIVE)


def _worst_protocol(strongest: pd.DataFrame) -> pd.DataFrame:
    """Numbers of each release and tier under the protocol with the lowest EER, of the first cohort asked."""
    mine = _of_first_cohort(strongest[strongest["metric"] == "eer"])
    worst = mine.dropna(subset="value").astype({"value": float}).sort_values("value", kind="stable")
    worst = worst.drop_duplicates(["view", "tier"])[CELL]
    return strongest[strongest["metric"].isin(SHOWN)].merge(worst, on=CELL).assign(protocol=WORST)


def strongest_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the strongest attacker under every protocol, without those under the worst, which are among them."""
    return rows[(rows["attacker"] == STRONGEST) & (rows["protocol"] != WORST)]


def _of_first_cohort(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the cohort that the first row is of."""
    return rows[rows["cohort"].isin(rows["cohort"][:1])]


def _passes(attacker: str, on_raw: float, sets: Sequence[ScoreSet]) -> bool:
    """Whether an attacker counts: strong on raw records, and better than chance on its own side's people."""
    if attacker == RHYTHM_ATTACKER:
        return True  # it has learnt nothing that could be weak: what R peaks say, they say
    strong = on_raw <= KNOWN_STRENGTH
    held = [fold.validation.without_gaps() for one in sets for fold in one.folds if fold.validation.scores.size]
    if not held:
        return bool(strong and attacker not in (*NETWORKS, INVERSION_ATTACKER))  # who knows what that has learnt
    own_people = float(np.nanmean([rank1_and_eer([one])[1] for one in held]))
    n_people = np.unique(np.concatenate([one.probe for one in held])).size
    return bool(strong and own_people <= 0.5 - BEATS_CHANCE / math.sqrt(n_people))


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
        about = {"cohort": jobs[0].cohort, "protocol": "strangers", "attacker": "reader", "view": view, "tier": tier}
        made, seeds = [values[job.name] for job in asked], {job.seed for job in asked}
        table, by_rhythm = _mean_reader(made), _mean_reader(made, RHYTHM_ATTACKER)
        learnt |= {(view, tier, task): _has_learnt(made, task) for task in BINARY}
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
                    "name": f"deid.{view}.{SHORT[target]}.{tier}.rhythm.auroc",
                }
                statistic, n = mean_auroc(by_rhythm, tasks, resamples)
                found = bootstrap(statistic, resamples, n, f"{target} occurs too seldom among these people")
                rows += [row | peaks for row in estimate_results({"auroc": found}, **about, task=target)]
        if "expected_age" in table:
            rows += _age_error(table, resamples, about)
    return _with_strongest_reader(results_table(rows), learnt)


def _has_learnt(tables: Sequence[pd.DataFrame], task: str) -> bool:
    """Whether a reader tells its own people apart, those whom it has learnt from."""
    own = _mean_reader(tables, own=True)
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
    able = [learnt.get(tuple(cell), False) for cell in rows[READING].to_numpy()] & rows["task"].map(on_raw > 0.5).eq(
        True
    )
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
    strongest = pd.concat([strongest, _adaptive(strongest, ["view", "task"], "auroc")], ignore_index=True)
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


def fidelity_results(
    raw: pd.DataFrame, released: Mapping[str, pd.DataFrame], persons: pd.Series, cohort: str, seed: int
) -> pd.DataFrame:
    """Long table of what became of the intervals: bias, limits of agreement, share of records within 1 and 5 beats/min.

    `raw` and `released` (by protection) are tables of :func:`ecgstudy.deidentification.attributes.intervals`; `persons`
    are the records' owners. Bland & Altman 1986, Lancet 1:307.
    """
    rows, resamples = [], Resamples.draw(persons.loc[raw.index], seed)
    for view, table in released.items():
        differences = table.sub(raw.reindex(table.index))
        for interval, unit in RELATIONS.items():
            known = differences[interval].dropna()
            owner = resamples.index_of(persons.loc[known.index])
            units = {"bias": unit, "loa": unit}
            units |= {f"within_{limit}bpm": "share" for limit in WITHIN_BPM} if interval == "heart_rate" else {}
            reasons = ["the interval was found in fewer than two records"] * len(units)
            statistics = partial(_agreement, known.to_numpy(), owner, len(units))
            estimates = bootstrap_each(statistics, resamples, np.unique(owner).size, reasons)
            about = {"cohort": cohort, "protocol": "fidelity", "view": view, "task": interval}
            for row in estimate_results(dict(zip(units, estimates, strict=True)), **about):
                name = f"deid.{view}.fidelity.{interval}.{row['metric']}"
                rows.append(row | {"unit": units[row["metric"]], "name": name})
    return results_table(rows)


def _agreement(differences: np.ndarray, owner: np.ndarray, n_numbers: int, multiplicity: np.ndarray) -> list[float]:
    """Bias, half the width of the limits of agreement, and the shares within :data:`WITHIN_BPM`, the first so many."""
    weights = multiplicity[owner]
    n = weights.sum()
    if n < 2:
        return [math.nan] * n_numbers
    bias = float(np.average(differences, weights=weights))
    spread = math.sqrt(np.average((differences - bias) ** 2, weights=weights) * n / (n - 1))
    within = [float(np.average(np.abs(differences) <= limit, weights=weights)) for limit in WITHIN_BPM]
    return [bias, 1.96 * spread, *within][:n_numbers]


def best_results(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the judged setting under ``deid.best``, and what it gives away beyond the floors; none if it did not run.

    Persons are those of the first cohort that was asked; losses are of diagnoses read by classifiers of raw records.
    """
    mine = rows[rows["view"] == BEST]
    if mine.empty:
        return mine
    person = _of_first_cohort(strongest_of(mine[(mine["tier"] == SEMI) & mine["metric"].isin(SHOWN)]))
    person = person.assign(name="deid.best.person." + SEMI + "." + person["protocol"] + "." + person["metric"])
    others = mine[~mine["name"].str.startswith(f"deid.{BEST}.person.")]
    name = others["name"].str.replace(f"deid.{BEST}.", "deid.best.", regex=False)
    name = name.str.replace(f".{UTILITY[LAZY]}.auroc_loss", ".auroc_loss", regex=False)
    others = others.assign(name=name.str.replace(f".{FIBRILLATION}.", ".af.", regex=False))
    return pd.concat([person, others, results_table(_excesses(rows, person, others))], ignore_index=True)


def _excesses(rows: pd.DataFrame, person: pd.DataFrame, others: pd.DataFrame) -> list[dict[str, object]]:
    """Rows of what the judged setting gives away beyond the floors: what a better one would save."""
    on_raw = rows[(rows["view"] == RAW) & (rows["attacker"] == RHYTHM_ATTACKER) & (rows["metric"] == "eer")]
    floors = on_raw.drop_duplicates("protocol").set_index("protocol")["value"]
    reached = person[person["metric"] == "eer"].set_index("protocol")["value"]
    gaps = (floors.reindex(reached.index) - reached).astype(float).dropna()
    found = {"person": float(gaps.max()) if len(gaps) else math.nan}
    for task, label in SHORT.items():
        told = rows.loc[rows["name"] == f"floor.{TOLD_FLOOR}.{label}.auroc", "value"].astype(float)
        mine = others[(others["task"] == task) & (others["tier"] == SEMI) & (others["metric"] == "auroc")]
        mine = mine.loc[mine["attacker"] == STRONGEST, "value"].dropna()
        # an AUROC under one half is the other answer
        found[label] = float(mine.iloc[0]) - max(told.iloc[0], 0.5) if len(told) and len(mine) else math.nan
    made = []
    for label, value in found.items():
        note = "" if math.isfinite(value) else "Not defined: no valid attack, no floor, or not asked of these records."
        row = result("excess_over_floor", value, "share", note=note, view=BEST, task=label)
        made.append(row | {"name": f"deid.best.{label}.excess_over_floor"})
    return made


def rhythm_floor_results(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the attacker who knows R peaks alone, on raw records, under ``floor.rr.person``."""
    mine = rows[(rows["view"] == RAW) & (rows["attacker"] == RHYTHM_ATTACKER) & rows["metric"].isin(SHOWN)]
    mine = _of_first_cohort(mine)
    return mine.assign(view="floor", name="floor.rr.person." + mine["protocol"] + "." + mine["metric"])


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
