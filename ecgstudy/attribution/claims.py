"""The paper's claims about waves, judged: do they hold, hold only because the wave is long, or not hold."""

from collections.abc import Sequence

import pandas as pd

from ecgstudy.attribution.cases import LEAKY, MODELS
from ecgstudy.attribution.tables import PAPER, PAPER_METHOD
from ecgstudy.attribution.waves import REGIONS, WAVES

HOLDS = "holds"
LONG = "holds only because the wave is long"
FAILS = "does not hold"
UNKNOWN = "cannot be judged"
RIVALS = {"R wave": ("P", "PR", "ST", "T", "TP"), "P-R interval": ("ST", "T", "TP")}
"""Waves that lie outside a claimed region, with which its share is compared."""


def judge(rows: pd.DataFrame, region: str) -> str:
    """Judge the claim that a region has the largest share.

    It *holds* where the region's share is larger than that of every wave outside it and its enrichment is above 1
    (the whole 95 % interval). Where its share is the largest though it is no denser than its length explains, the claim
    *holds only because the wave is long*. Otherwise it *does not hold*.

    Parameters
    ----------
    rows : pandas.DataFrame
        Rows of :func:`ecgstudy.attribution.tables.all_shares` of one cohort, protocol, network, task and method.
    region : str
        A key of :data:`RIVALS`.
    """
    claimed = rows[(rows["kind"] == "region") & (rows["wave"] == region)]
    rivals = rows[(rows["kind"] == "wave") & rows["wave"].isin(RIVALS[region])]
    if claimed.empty or claimed[["share", "enrichment_low"]].isna().to_numpy().any():
        return UNKNOWN
    largest = claimed["share"].item() > rivals["share"].max()
    if not largest:
        return FAILS
    return HOLDS if claimed["enrichment_low"].item() > 1 else LONG


def claim_table(shares: pd.DataFrame, trusted: Sequence[str]) -> pd.DataFrame:
    """Judge each claim by the paper's own method, and by the methods that the audits believe.

    Parameters
    ----------
    shares : pandas.DataFrame
        From :func:`ecgstudy.attribution.tables.all_shares`.
    trusted : sequence of str
        Methods that the conclusions may rest on; none is possible.

    Returns
    -------
    pandas.DataFrame
        One row a claim, cohort and protocol: task, region, published, cohort, protocol; by_attention (verdict on the
        paper's network and method); by_trusted (verdict on each trusted method's network, or why there is none).
    """
    rows = []
    for task, region, published in PAPER:
        own = shares[shares["task"] == task]
        for (cohort, protocol), part in own.groupby(["cohort", "protocol"], sort=False):
            by_attention = judge(part[(part["method"] == PAPER_METHOD) & (part["model"] == "transecg")], region)
            votes = [f"{name}: {judge(_main(part, name), region)}" for name in trusted]
            rows.append(
                {
                    "task": task,
                    "region": region,
                    "published": published / 100,
                    "cohort": cohort,
                    "protocol": protocol,
                    "leaky": "yes" if protocol == LEAKY else "no",
                    "by_attention": by_attention,
                    "by_trusted": "; ".join(votes) or "no method passed the audit on planted truth",
                }
            )
    return pd.DataFrame(rows)


def _main(part: pd.DataFrame, method: str) -> pd.DataFrame:
    """Rows of a method on the first network that it applies to."""
    own = part[part["method"] == method]
    model = next((name for name in MODELS if (own["model"] == name).any()), None)
    return own[own["model"] == model]


def claim_finding(claims: pd.DataFrame) -> str:
    """Count the verdicts of each claim over cohorts and protocols."""
    parts = []
    for (task, region), own in claims.groupby(["task", "region"], sort=False):
        counts = own["by_attention"].value_counts()
        told = ", ".join(f"{verdict} in {n}" for verdict, n in counts.items())
        parts.append(f"{region} for {task.replace('_', ' ')}: {told}")
    return (
        f"The paper's claims by its own method (last-layer attention), over cohorts and protocols: {'; '.join(parts)}."
    )


def shown_waves() -> dict[str, str]:
    """Wave and region keys of metric names: the six waves, and R for the R wave alone."""
    return {**{wave: wave for wave in WAVES}, **{region: region.split()[0] for region in REGIONS if region == "R wave"}}
