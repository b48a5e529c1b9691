"""What the attribution stage hands on: metrics under their names, headlines, and findings in words."""

import math
from collections.abc import Sequence

import pandas as pd

from ecgstudy.attribution.people_audits import PeopleAudit
from ecgstudy.attribution.scoreboard import MAIN_NETWORKS, trusted_methods
from ecgstudy.attribution.waves import WAVES
from ecgstudy.study.stage import Stage

CAUSAL_EFFECT = "replaced.eer"
"""The effect that `causal.<method>.rank_correlation` compares with: the rise of the EER when a wave is replaced.

Rank-1 falls for few waves only, and ties say nothing about order.
"""
_R_ALONE = "R wave"


def main_network(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the first of the study's networks that each method has a value for, or the first row."""
    order = table.assign(place=table["model"].map(MAIN_NETWORKS.index))
    return order.sort_values("place", kind="stable").drop(columns="place")


def record_planted(stage: Stage, planted: pd.DataFrame) -> None:
    """Record ``planted.<wave>.<method>.mass_in_wave`` and ``.pointing`` of each method's main network."""
    applicable = main_network(planted[planted["applies"]])
    for (wave, method), group in applicable.groupby(["wave", "method"], sort=False):
        row = group.iloc[0]
        for name in ("mass_in_wave", "pointing"):
            _record(stage, f"planted.{wave}.{method}.{name}", row, name)


def record_audits(stage: Stage, sanity: pd.DataFrame, audits: Sequence[PeopleAudit]) -> None:
    """Record sanity, faithfulness and causal agreement of each method's main network."""
    for method, group in main_network(sanity).groupby("method", sort=False):
        known = group.dropna(subset="randomised_correlation")
        row = (known if len(known) else group).iloc[0]
        _record(stage, f"sanity.{method}.randomised_correlation", row, "randomised_correlation")
    faithful = main_network(pd.concat([audit.faithful.table for audit in audits], ignore_index=True))
    for method, group in faithful.groupby("method", sort=False):
        own = group[group["model"] == group["model"].iloc[0]]
        row = own.loc[own["deletion_gap"].fillna(math.inf).idxmin()]
        _record(stage, f"faithfulness.{method}.deletion_gap", row, "deletion_gap")
    for method, row in causal_rows(audits).items():
        _record(stage, f"causal.{method}.rank_correlation", row, "correlation")


def causal_rows(audits: Sequence[PeopleAudit]) -> dict[str, pd.Series]:
    """Row of :data:`CAUSAL_EFFECT` of each method's main network."""
    table = pd.concat([audit.causal.assign(model=audit.model) for audit in audits], ignore_index=True)
    chosen = main_network(table[table["effect"] == CAUSAL_EFFECT])
    return {str(method): group.iloc[0] for method, group in chosen.groupby("method", sort=False)}


def record_shares(stage: Stage, rows: pd.DataFrame) -> None:
    """Record ``<cohort>.<task>.<method>.share.<wave>`` and ``.enrichment.<wave>``; R stands for the R wave alone.

    Parameters
    ----------
    stage : Stage
        Where to.
    rows : pandas.DataFrame
        From :func:`ecgstudy.attribution.tables.main_rows`.
    """
    chosen = rows[(rows["kind"] == "wave") | (rows["wave"] == _R_ALONE)]
    for _, row in chosen.iterrows():
        wave = row["wave"] if row["wave"] in WAVES else "R"
        task = str(row["task"]).split("_")[0]
        for name in ("share", "enrichment"):
            _record(stage, f"{row['cohort']}.{task}.{row['method']}.{name}.{wave}", row, name)


def record_trust(stage: Stage, board: pd.DataFrame) -> list[str]:
    """Record how many methods can be believed, and name them."""
    trusted = trusted_methods(board)
    judged = board[board["model"].notna()]
    stage.metric("methods.trusted", len(trusted), n=len(judged), unit="methods")
    stage.headline("methods.trusted", "attribution methods that find a planted answer in all three waves")
    return trusted


def trust_finding(board: pd.DataFrame) -> str:
    """Name the methods that passed, and the controls that passed too, if any."""
    trusted = trusted_methods(board)
    names = ", ".join(trusted).replace("_", " ") if trusted else "none"
    judged = int(board["model"].notna().sum())
    return (
        f"{len(trusted)} of {judged} methods and controls find the planted answer in all three waves: {names}. "
        "The study's conclusions rest on these only."
    )


def effect_finding(audits: Sequence[PeopleAudit]) -> str:
    """Say which wave's replacement costs each network most."""
    parts = []
    for audit in audits:
        own = audit.effects[(audit.effects["change"] == "replaced") & audit.effects["wave"].isin(WAVES)]
        if own["eer_rise"].isna().all():
            continue
        worst = own.loc[own["eer_rise"].idxmax()]
        parts.append(
            f"{audit.model}: {worst['wave']} (EER +{100 * worst['eer_rise']:.1f} points, "
            f"{100 * worst['eer_rise_low']:.1f} to {100 * worst['eer_rise_high']:.1f}; "
            f"rank-1 -{100 * worst['rank1_fall']:.1f} points)"
        )
    return f"Replacing one wave by other people's average, the dearest loss is that of {'; '.join(parts)}."


def _record(stage: Stage, name: str, row: pd.Series, column: str) -> None:
    """Record one number of a table's row with its interval, and the row's reason where it is undefined."""
    value = float(row[column])
    reason = row["reason"] if isinstance(row.get("reason"), str) else "the method gives no window any relevance"
    note = "" if math.isfinite(value) else f"Not defined: {reason}."
    low, high = (float(row[f"{column}_{end}"]) for end in ("low", "high"))
    n = int(row["persons"]) if "persons" in row and pd.notna(row["persons"]) else None
    stage.metric(name, value, low, high, n=n, unit="", note=note)
