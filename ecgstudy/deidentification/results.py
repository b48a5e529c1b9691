"""What attacks on a release say, what became of intervals, and the judged setting, as rows of the results table."""

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial

import numpy as np
import pandas as pd

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
from ecgstudy.deidentification.attributes import TOLD_FLOOR
from ecgstudy.deidentification.readers import FIBRILLATION
from ecgstudy.deidentification.release import RAW
from ecgstudy.evaluate.bootstrap import (
    Resamples,
    bootstrap_each,
)
from ecgstudy.evaluate.results import estimate_results, result, results_table
from ecgstudy.evaluate.trials import rank1_and_eer
from ecgstudy.experiment.evaluation import evaluate
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
NOT_VALID = "Attack not valid: no attacker reached its known strength and beat chance on its own people."
SHOWN = ("rank1", "eer", "d_sys")
EACH = ("rank1", "eer", "tar_at_far_1e-2")
"""What is measured of every attacker."""
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
    rows, reached = [], {}
    for cell, found in _evaluated(cells, drawn, EACH).items():
        (view, tier), asked = cell[:2], cell[2:]
        if tier == REFERENCE:
            reached[asked] = next(row["value"] for row in found if row["metric"] == "eer")
        valid = _passes(asked[-1], reached.get(asked, math.nan), cells[cell])
        rows += [row | {"view": view, "tier": tier, "valid": valid} for row in found]
    table = results_table(rows)
    if table.empty:  # nobody was recorded again
        return table.astype(object).assign(tier="", valid=False, name="", stands_for=None)
    chosen = _lowest_eers(table)
    whole = _evaluated({(*cell, who): cells[*cell, who] for cell, who in chosen.items() if who}, drawn)
    strongest = pd.concat([*_strongest(table, chosen, whole)], ignore_index=True)
    strongest = pd.concat(
        [strongest, adaptive_rows(strongest, ["view", "cohort", "protocol"], "eer")], ignore_index=True
    )
    each = table[table["metric"].isin(["rank1", "eer"])]
    named = _named(each, "cohort", "protocol", "attacker"), _named(strongest, "cohort", "protocol")
    return pd.concat([*named, _named(_worst_protocol(strongest))], ignore_index=True)


def _evaluated(
    cells: Mapping[tuple[str, ...], Sequence[ScoreSet]],
    drawn: Mapping[tuple[str, ...], Resamples],
    only: Sequence[str] = (),
) -> dict[tuple[str, ...], list[dict[str, object]]]:
    """Rows of each attacker, with all metrics or `only` some: that takes a fraction of the time."""
    items = [(sets, drawn[cell[2:4]], None, None, only) for cell, sets in cells.items()]
    found = in_parallel(evaluate, items, "cpu", "evaluation")
    return {cell: rows for cell, (rows, _) in zip(cells, found, strict=True)}


def _lowest_eers(table: pd.DataFrame) -> dict[tuple[str, ...], str | None]:
    """Name the valid attacker with the lowest EER of each release, tier, cohort and protocol; None without any."""
    chosen = {}
    for cell, part in table.groupby(CELL, sort=False):
        eers = part[(part["metric"] == "eer") & part["valid"]].dropna(subset="value")
        chosen[cell] = eers.loc[eers["value"].astype(float).idxmin(), "attacker"] if len(eers) else None
    return chosen


def _named(rows: pd.DataFrame, *told: str) -> pd.DataFrame:
    """Give rows about persons the names of their metrics, which tell some of their columns."""
    texts = rows[["view", "tier", *told, "metric"]].to_numpy().tolist()
    return rows.assign(name=[".".join(("deid", view, "person", *others)) for view, *others in texts])


def _strongest(
    table: pd.DataFrame,
    chosen: Mapping[tuple[str, ...], str | None],
    whole: Mapping[tuple[str, ...], Sequence[Mapping[str, object]]],
) -> Iterable[pd.DataFrame]:
    """Rows of the `chosen` attacker of each release, tier, cohort and protocol, which are `whole` with all metrics."""
    for cell, part in table.groupby(CELL, sort=False):
        if attacker := chosen[cell]:
            rows = results_table(whole[*cell, attacker]).assign(view=cell[0], tier=cell[1], valid=True)
            rows = rows[rows["metric"].isin(KEPT)]
            most = part[part["valid"] & part["metric"].isin(MOST)].dropna(subset="value").astype({"value": float})
            most = part.loc[most.groupby("metric")["value"].idxmax()]
            rows = pd.concat([rows[~rows["metric"].isin(most["metric"])], most])
            rows = rows.assign(stands_for=rows["attacker"])
        else:
            rows = pd.DataFrame([result(metric, math.nan, "share", note=NOT_VALID) for metric in SHOWN])
            rows = rows.assign(**dict(zip(CELL, cell, strict=True)), valid=False, stands_for=None)
        yield rows.assign(attacker=STRONGEST)


def adaptive_rows(strongest: pd.DataFrame, asked: Sequence[str], metric: str) -> pd.DataFrame:
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
