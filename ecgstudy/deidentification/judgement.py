"""What an audit concludes: the worst that a valid attack reached, beside chance, floor and limits."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd

from ecgstudy.deidentification.attacks import LAZY, REFERENCE, RHYTHM_ATTACKER, SEMI, TIERS
from ecgstudy.deidentification.attributes import BINARY, READER
from ecgstudy.deidentification.release import RAW
from ecgstudy.deidentification.results import STRONGEST, UTILITY, strongest_of
from ecgstudy.deidentification.tables import risk_table
from ecgstudy.evaluate.results import INTERVAL, pivot


class Question(NamedTuple):
    """What limits are about: in words, and by metric and task of the rows of results."""

    words: str
    metric: str
    task: str = ""


QUESTIONS = {
    "max_rank1": Question("persons: named right (rank-1)", "rank1"),
    "max_eer_gap": Question("persons: EER below that of the heart rate alone", "eer"),
    "max_sex_auroc": Question("sex (AUROC)", "auroc", "sex"),
    "max_age_auroc": Question("60 years or older (AUROC)", "auroc", "over_60"),
}
"""By the name of the limit's option."""
NO_ATTACK = "no valid attack"
MEAN = {"superclass": "mean of those stated"}
"""What a page calls the mean over the diagnoses that a record table states."""


class Answer(NamedTuple):
    """The worst that a valid attack reached (`by` whom), and what is had by guessing and without any waveform."""

    value: float
    low: float
    high: float
    n: int
    chance: float
    floor: float
    by: str


def answers_of(rows: pd.DataFrame, view: str) -> dict[str, Answer | str]:
    """Answer each of :data:`QUESTIONS` for a view; "not asked" and :data:`NO_ATTACK` are no answers."""
    found: dict[str, Answer | str] = {}
    for name, (_, metric, task) in QUESTIONS.items():
        asked = rows["task"].eq(task) if task else rows["attacker"] != READER
        mine = rows[asked & (rows["attacker"] != STRONGEST) & (rows["metric"] == metric)].astype(
            {"value": float, "low": float, "high": float}
        )
        if mine[mine["view"] == RAW].empty:
            found[name] = "not asked"
        else:
            found[name] = (_read(mine, view) if task else _recognised(mine, rows, view)) or NO_ATTACK
    return found


def _recognised(mine: pd.DataFrame, rows: pd.DataFrame, view: str) -> Answer | None:
    """Worst of the rows of rank-1 or EER, which counts from the floor down.

    One attack that reads shapes and was trained for the view must be valid under every protocol: that R peaks alone say
    little proves nothing.
    """
    gap = mine["metric"].eq("eer").any()
    floors = mine[(mine["view"] == RAW) & (mine["attacker"] == RHYTHM_ATTACKER)].set_index("protocol")["value"]
    valid = mine[(mine["view"] == view) & mine["valid"].eq(True)].dropna(subset="value")
    shapes = valid[(valid["tier"] == (REFERENCE if view == RAW else SEMI)) & (valid["attacker"] != RHYTHM_ATTACKER)]
    if set(shapes["protocol"]) != set(mine["protocol"]):
        return None
    floor = valid["protocol"].map(floors)
    if gap:
        valid = valid.assign(value=floor - valid["value"], low=math.nan, high=math.nan)
    worst = valid.loc[valid["value"].fillna(math.inf).idxmax()]
    enrolled = rows[(rows["metric"] == "enrolled") & (rows["protocol"] == worst["protocol"])]["value"].max()
    return _answer(worst, *((math.nan, 0.0) if gap else (1 / enrolled, floor[worst.name])))


def _read(mine: pd.DataFrame, view: str) -> Answer | None:
    """Worst of the readers' rows; an AUROC under one half is the other answer.

    A network that was trained for the view must be valid: that R peaks, or a reader of raw records, say little proves
    nothing.
    """
    valid = mine[(mine["view"] == view) & mine["valid"].eq(True) & mine["tier"].isin([*TIERS])].dropna(subset="value")
    if not ((valid["tier"] == (REFERENCE if view == RAW else SEMI)) & (valid["attacker"] == READER)).any():
        return None
    turned = valid.assign(value=1 - valid["value"], low=1 - valid["high"], high=1 - valid["low"])
    valid = valid.where(valid["value"] >= 0.5, turned)
    floor = mine.loc[mine["view"] == "floor", "value"].max()
    return _answer(valid.loc[valid["value"].idxmax()], 0.5, floor if floor > 0.5 else 0.5)


def _answer(worst: pd.Series, chance: float, floor: float) -> Answer:
    """Answer that a row of results gives."""
    by = f"{worst['attacker']} ({worst['tier'].replace('_', ' ')})"
    return Answer(worst["value"], worst["low"], worst["high"], int(worst["n"]), chance, floor, by)


def missed(answers: Mapping[str, Answer | str], limits: Mapping[str, float]) -> list[str]:
    """Say which limits are not kept (one without an answer never is), and that no attack at all was valid."""
    if not limits and NO_ATTACK in answers.values() and all(isinstance(answer, str) for answer in answers.values()):
        return ["no attack was valid, which proves nothing"]
    found = []
    for name, limit in limits.items():
        answer, asked = answers[name], f"{QUESTIONS[name].words} at most {limit:g}"
        if isinstance(answer, str):
            found.append(f"{asked}: {answer}")
        elif not answer.value <= limit:
            found.append(f"{asked}: {answer.value:.3f}")
    return found


def judgement_of(answers: Mapping[str, Answer | str], limits: Mapping[str, float], over: Sequence[str]) -> str:
    """Judge the limits in one sentence; `over` is what :func:`missed` says of them."""
    if over:
        return f"MISSED: {'; '.join(over)}."
    if not limits:
        return "No limit was set."
    unsure = [QUESTIONS[name].words for name, limit in limits.items() if answers[name].high > limit]
    told = f" The intervals of these reach over theirs: {'; '.join(unsure)}." if unsure else ""
    return f"Every limit that was set is kept.{told}"


def worst_off(rows: pd.DataFrame, view: str) -> dict[str, float]:
    """Risks of single persons under the attack that recognises people best, by metric; none where there is none."""
    mine = strongest_of(rows[(rows["view"] == view) & rows["valid"].eq(True)])
    eers = mine[mine["metric"] == "eer"].astype({"value": float})["value"]
    if eers.empty:
        return {}
    best = mine.loc[eers.idxmin()]
    mine = mine[(mine["protocol"] == best["protocol"]) & (mine["tier"] == best["tier"])]
    return mine.set_index("metric")["value"].to_dict()


def losses(rows: pd.DataFrame) -> pd.DataFrame:
    """AUROC that classifiers of raw records lose on the release: a row a diagnosis."""
    lost = rows[(rows["metric"] == "auroc_loss") & (rows["tier"] == LAZY) & ~rows["task"].isin([*BINARY])]
    return lost[["task", "value", "low", "high"]].replace({"task": MEAN}).dropna(subset="value")


def tables_of(
    rows: pd.DataFrame, answers: Mapping[str, Answer | str], limits: Mapping[str, float]
) -> dict[str, pd.DataFrame]:
    """Tables of an audit by their captions."""
    told = pd.DataFrame(
        {"question": QUESTIONS[name].words, "limit": limits.get(name, math.nan)}
        | ({"by": answer} if isinstance(answer, str) else answer._asdict())
        for name, answer in answers.items()
    )
    told = told.reindex(columns=["question", *Answer._fields, "limit"]).astype({"n": "Int64"})
    told = told.rename(columns={"low": "value_low", "high": "value_high"})
    protocol = rows["protocol"].str.removeprefix("subject_disjoint_").str.replace("_", " ")
    rows = rows.assign(view=rows["view"].replace({RAW: "raw"}), protocol=protocol)
    binary, auroc = rows["task"].isin([*BINARY]), rows["metric"].isin(["auroc", "auroc_loss"])
    persons = rows[rows["metric"].isin(["rank1", "eer"]) & (rows["attacker"] != STRONGEST)]
    attributes = rows[binary & (rows["metric"] == "auroc") & rows["tier"].isin([*TIERS, math.nan])]
    attributes = attributes[attributes["attacker"] != STRONGEST]
    useful = rows[~binary & auroc].replace({"task": MEAN}).assign(trained=lambda table: table["tier"].map(UTILITY))
    which = ["view", "tier", "attacker", "valid", "n"]
    return {
        "The worst that a valid attack reached; chance is guessing, the floor needs no waveform.": told,
        "Persons, every attack: what is not valid says nothing.": pivot(
            persons, ["protocol", *which], "metric", ["rank1", "eer"], INTERVAL
        ),
        "Persons: how unevenly the risk is spread under the strongest valid attack; 0.5 is chance.": risk_table(rows),
        "Sex, and 60 years or older: AUROC of every attack, and of the floors.": pivot(
            attributes, ["task", *which], "metric", ["auroc"], INTERVAL
        ),
        "Diagnoses: AUROC by what a classifier was trained on, and what is lost against raw records.": pivot(
            useful, ["task", "view", "trained", "n"], "metric", ["auroc", "auroc_loss"], INTERVAL
        ),
    }
