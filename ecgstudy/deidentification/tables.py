"""Tables and sentences of notebook 05, made of the rows of :mod:`ecgstudy.deidentification.results`."""

import math
import re
from collections.abc import Sequence
from dataclasses import fields

import pandas as pd

from ecgstudy.deidentification.attacks import ADAPTIVE, IGNORANT, LAZY, REFERENCE, RHYTHM_ATTACKER, SEMI
from ecgstudy.deidentification.attributes import BINARY, OUTPUTS_FLOOR, READER, RHYTHM_FLOOR, TOLD_FLOOR, TWO_FLOOR
from ecgstudy.deidentification.release import PROTECTIONS, RAW
from ecgstudy.deidentification.results import BEST, STRONGEST, UTILITY, strongest_of
from ecgstudy.evaluate.results import INTERVAL, pivot

PAPER = {"sex": (0.79, 0.59), "over_60": (0.78, 0.63), "LVEF reduced": (0.86, 0.82), "LVH": (0.75, 0.72)}
"""AUROC of PP-VAE (medRxiv 2026.01.28.26345049), original and protected; its cut-offs and people are not published."""

NEEDY = tuple(name for name, protection in PROTECTIONS.items() if protection.needs_labels)
"""Releases whose protection is told each record's own diagnoses: tables of their own."""
FLOORS = {
    TOLD_FLOOR: "the diagnoses told",
    TWO_FLOOR: "LVH and fibrillation alone",
    OUTPUTS_FLOOR: "what a classifier says of the diagnoses told",
    RHYTHM_FLOOR: "the R peaks",
}


def protection_table() -> pd.DataFrame:
    """Every protection: its kind, its parameters, and whether it is told the diagnoses of what it releases."""
    rows = []
    for name, protection in PROTECTIONS.items():
        kind = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(protection).__name__)
        values = {field.name: getattr(protection, field.name) for field in fields(protection)}
        told = values.pop("told", ())
        values |= {"retiming": f"to {values['retiming'].step:g}/min"} if values.get("retiming") else {}
        kept = [f"{key} {value}" for key, value in values.items() if key != "thorough" and pd.notna(value)]
        kept += [f"keeps {' and '.join(told)} only"] if told else []
        rows.append((name, kind, ", ".join(kept), "yes" if protection.needs_labels else "no"))
    return pd.DataFrame(rows, columns=["protection", "kind", "parameters", "needs_labels"])


def floor_table(rows: pd.DataFrame) -> pd.DataFrame:
    """AUROC of sex and age by what is known without a waveform, one row each."""
    return pivot(
        rows.assign(known=rows["attacker"].map(FLOORS)), ["known"], "task", {"sex": "sex", "over_60": "age"}, INTERVAL
    )


def floor_findings(rows: pd.DataFrame) -> list[str]:
    """Say what the diagnoses give away by themselves."""
    found = floor_table(rows).set_index("known")
    return [
        f"Whoever knows {known} and no waveform tells women from men with an AUROC of {row['sex']:.2f}, and people of "
        f"60 or more from younger ones with one of {row['age']:.2f} (0.5 is chance)."
        for known, row in found.iterrows()
        if {"sex", "age"} <= set(found) and row[["sex", "age"]].notna().all()
    ]


def in_two(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Part a table by whether protections are told each record's own diagnoses (:data:`NEEDY`), by a suffix."""
    told = table["view"].isin(NEEDY)
    parts = {"": table[~told], "_told_the_diagnoses": table[told]}
    return {suffix: part.reset_index(drop=True) for suffix, part in parts.items() if len(part) or not suffix}


def person_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Who is recognised by the strongest valid attacker of every release and tier: one row each."""
    shown, cell = ["rank1", "eer", "enrolled"], ["cohort", "protocol", "view", "tier"]
    mine = strongest_of(rows[rows["metric"].isin(shown)])
    table = pivot(mine, cell, "metric", shown, INTERVAL)
    attacker = mine.loc[mine["metric"] == "eer", [*cell, "stands_for"]].fillna({"stands_for": "none valid"})
    table["rank1_chance"] = 1 / table["enrolled"].astype(float)
    table = table.drop(columns=["enrolled", "enrolled_low", "enrolled_high"])
    return table.merge(attacker.rename(columns={"stands_for": "attacker"}), on=cell)


def risk_table(rows: pd.DataFrame) -> pd.DataFrame:
    """How unevenly the risk is spread over persons: semi-informed attackers, one row a cohort, protocol and release."""
    mine = strongest_of(rows[rows["tier"].isin([SEMI, REFERENCE])])
    risks = [name for name in dict.fromkeys(mine["metric"]) if name.startswith(("risk", "always"))]
    return pivot(mine, ["cohort", "protocol", "view"], "metric", risks)


def attribute_table_of(rows: pd.DataFrame) -> pd.DataFrame:
    """AUROC of sex and age by the strongest valid reader of every release and tier, one row each."""
    mine = rows[rows["task"].isin([*BINARY]) & (rows["metric"] == "auroc") & (rows["attacker"] == STRONGEST)]
    return pivot(mine, ["view", "tier"], "task", {"sex": "sex", "over_60": "age"}, INTERVAL)


def utility_table(rows: pd.DataFrame, told: Sequence[str]) -> pd.DataFrame:
    """AUROC of diagnoses by release and setting: the general ones, those told, and the mean of those not told."""
    mine = rows[(rows["metric"] == "auroc") & rows["tier"].isin([*UTILITY]) & ~rows["task"].isin([*BINARY])]
    mine = mine[mine["attacker"] == "reader"].assign(setting=lambda table: table["tier"].map(UTILITY))
    table = pivot(mine, ["view", "setting"], "task", ["superclass", *told])
    rest = mine[~mine["task"].isin(["superclass", *told])].astype({"value": float})
    means = rest.groupby(["view", "setting"], as_index=False)["value"].mean()
    return table.merge(means.rename(columns={"value": "not_told"}), on=["view", "setting"], how="left")


def person_findings(rows: pd.DataFrame) -> list[str]:
    """Say for each protocol how much privacy a frozen attacker pretends to see, and what adaptive attackers leave."""
    found, mine = [], strongest_of(rows[rows["metric"] == "eer"]).astype({"value": float})
    for protocol, part in mine.groupby("protocol", sort=False):
        by_tier = part[~part["view"].isin([RAW, *NEEDY])].pivot_table("value", "view", "tier", aggfunc="first")
        frozen, adaptive = (by_tier.get(tier, pd.Series(dtype=float)) for tier in (IGNORANT, ADAPTIVE))
        fall = (frozen - adaptive).dropna()
        if fall.empty:
            continue
        worst, spoken = fall.idxmax(), str(protocol).replace("_", " ")
        found.append(
            f"{spoken}: {worst.replace('_', ' ')} looks like an EER of {frozen[worst]:.2f} to an attacker who knows "
            f"raw recordings only, and is one of {adaptive[worst]:.2f} to the strongest who knows of the protection. "
            f"The highest EER that such attackers leave is {adaptive.max():.2f} "
            f"({adaptive.idxmax().replace('_', ' ')}; of protections that are not told a record's own diagnoses)."
        )
    return found


def rhythm_findings(rows: pd.DataFrame) -> list[str]:
    """Say for each protocol what heartbeat times alone give away, as they are and where they were drawn anew."""
    mine = rows[(rows["attacker"] == RHYTHM_ATTACKER) & (rows["metric"] == "eer")].astype({"value": float})
    found, steps = [], {name: each.retiming.step for name, each in PROTECTIONS.items() if each.retiming}
    for protocol, part in mine.dropna(subset="value").groupby("protocol", sort=False):
        raw = part.loc[part["view"] == RAW, "value"]
        redrawn = part[part["tier"] == SEMI].assign(step=part["view"].map(steps)).groupby("step")["value"].max()
        if len(raw) and len(redrawn):
            said = " and ".join(
                f"{eer:.2f} where the rate is rounded to {step:g} a minute" for step, eer in redrawn.items()
            )
            found.append(
                f"{str(protocol).replace('_', ' ')}: whoever knows heartbeat times alone reaches an EER of "
                f"{raw.iloc[0]:.2f} on raw recordings, of {said}: a protection of shapes leaves no more."
            )
    return found


def membership_table(rows: pd.DataFrame) -> pd.DataFrame:
    """AUROC of who the protector learnt from, and how far shapes were moved, one row a release."""
    return pivot(rows, ["view"], "metric", {"auroc": "membership", "distance": "distance"}, INTERVAL)


def fidelity_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Bias and limits of agreement of intervals, one row a release and interval."""
    return pivot(rows[rows["protocol"] == "fidelity"], ["view", "task", "n"], "metric")


def beat_table(rows: pd.DataFrame) -> pd.DataFrame:
    """AUROC of each class of beats against all others by release and setting, after its share of the beats."""
    mine = rows[rows["metric"].isin(["base_rate", "auroc"])].sort_values("metric", ascending=False, kind="stable")
    share = mine["metric"] == "base_rate"
    mine = mine.assign(setting=mine["tier"].map(UTILITY).mask(share, ""), view=mine["view"].mask(share, "base rate"))
    return pivot(mine, ["view", "setting"], "task", {f"aami_{name}": name for name in "NSVF"}, INTERVAL)


def beat_findings(rows: pd.DataFrame) -> list[str]:
    """Say of ventricular and of supraventricular beats what the releases leave to readers who were trained on them."""
    found, table = [], beat_table(rows).astype({"V": float, "S": float}).set_index("setting")
    for name, spoken in {"V": "Ventricular", "S": "Supraventricular"}.items():
        raw, protected = (table.loc[table.index == UTILITY[tier], name].dropna() for tier in (REFERENCE, SEMI))
        if len(raw) and len(protected):
            found.append(
                f"{spoken} beats of people never seen are told from all others with an AUROC of {raw.iloc[0]:.2f} on "
                f"raw records, and with {protected.min():.2f} to {protected.max():.2f} on the releases that keep the "
                "times of heartbeats, by readers who were trained on them (0.5 is chance)."
            )
    return found


def paper_table(rows: pd.DataFrame, two_diagnoses: Sequence[str]) -> pd.DataFrame:
    """PP-VAE's numbers beside ours, by releases in its setting and the judged one: raw, and against adaptive attackers.

    Diagnoses are read by classifiers of raw records.
    """
    made = [("PP-VAE (paper)", target, *pair) for target, pair in PAPER.items()]
    for view in (*two_diagnoses, BEST):
        for target in PAPER:
            by, tier = (STRONGEST, ADAPTIVE) if target in BINARY else (READER, LAZY)
            mine = rows[(rows["task"] == target) & (rows["metric"] == "auroc") & (rows["attacker"] == by)]
            ours = (mine["view"] == view) & (mine["tier"] == tier)
            pair = [next(iter(mine["value"][kept]), math.nan) for kept in (mine["view"] == RAW, ours)]
            if math.isfinite(pair[1]):
                made.append((f"ours, {view}", target, *pair))
    return pd.DataFrame(made, columns=["source", "target", "original", "protected"])


def verdict(best: pd.DataFrame) -> str:
    """Say to a data steward in one sentence what the judged setting reaches, with intervals."""
    values = best.set_index("name")[["value", "low", "high"]].astype(float)

    def said(name: str, factor: float = 1.0, digits: int = 2) -> str:
        if name not in values.index or not math.isfinite(values.loc[name, "value"]):
            return "not measured"
        value, low, high = factor * values.loc[name]
        between = f" ({low:.{digits}f} to {high:.{digits}f})" if math.isfinite(low) else ""
        return f"{value:.{digits}f}{between}"

    persons = [f"{name.split('.')[4].replace('_', ' ')} {said(name)}" for name in values.index if name.endswith(".eer")]
    sex, age = (said(f"deid.best.{task}.{SEMI}.auroc") for task in ("sex", "age"))
    loss = said("deid.best.utility.superclass.auroc_loss")
    within = [said(f"deid.best.fidelity.heart_rate.within_{limit}bpm", 100, 0) for limit in (1, 5)]
    return (
        f"{BEST.replace('_', ' ')}, against attackers who were trained on protected records of other people: "
        f"EER {'; '.join(persons) or 'not measured'}; AUROC of sex {sex}, of age {age}; diagnoses lose {loss} of AUROC "
        f"to classifiers of raw records; the heart rate is within one beat a minute in {within[0]} % of the records "
        f"and within five in {within[1]} %."
    )


HEADLINES = {
    "deid.best.person.semi_informed.cross_record.eer": "protected: person, another record, EER of adaptive attackers",
    "deid.best.sex.semi_informed.auroc": "protected: sex, AUROC of adaptive attackers",
    "deid.best.utility.superclass.auroc_loss": "protected: AUROC that diagnoses lose",
    f"deid.{BEST}.person.{SEMI}.mitdb.later_minutes.eer": "protected: person, minutes later, EER of adaptive attackers",
}
"""What the front page shows, by the metric's name."""
NOT_TESTED = (
    "What was not tested: attackers with more people to learn from than these cohorts have, with several protected "
    "recordings of each (nearly all of ours had one), or with other recordings of the victims beside the release; "
    "combinations of several releases of one record; recordings of more than five minutes, whose rhythm says more; "
    "diagnoses that are not in the tables; and, where no table of beats stands above, recordings of more than 20 s and "
    "beats that differ from the others, which whatever renders cycles removes."
)
"""Closing words of the notebook, which hold whatever the numbers are."""
