"""Tables of the attribution stage: shares by wave, claims of the paper, failures, boundaries compared."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ecgstudy.attribution.cases import LEAKY, MODELS, Case, by_place
from ecgstudy.attribution.methods import METHODS
from ecgstudy.attribution.shares import failure_table, region_shares, share_table, wave_shares
from ecgstudy.attribution.waves import on_common_samples
from ecgstudy.evaluate.bootstrap import Resamples

PAPER = (
    # task, region, share of attention in per cent (arXiv 2503.13495)
    ("sex", "R wave", 58.29),
    ("age_group", "P-R interval", 46.29),
)
"""Shares that TransECG's authors publish."""
PAPER_METHOD = "last_attention"
MOST_DELTA = 0.05
"""Relative convergence delta up to which a method counts as complete."""
SOURCES = ("automatic", "reference")
"""Who drew the boundaries: the delineator, or cardiologists and the simulator."""
KEYS = ("cohort", "protocol", "model", "task", "method")


def all_shares(cases: Sequence[Case], seed: int) -> pd.DataFrame:
    """Shares, times and enrichments of waves and of TransECG's regions, for every case and method.

    Parameters
    ----------
    cases : sequence of Case
        What was explained.
    seed : int
        Seed of the bootstrap over persons; a cohort's persons are drawn once for all methods.

    Returns
    -------
    pandas.DataFrame
        Columns :data:`KEYS`, accuracy (of the network on these windows), kind ("wave" or "region"), and those of
        :func:`ecgstudy.attribution.shares.share_table`.
    """
    resamples = cohort_resamples(cases, seed)
    parts = []
    for case in cases:
        for method, relevance in case.relevance.items():
            about = dict(zip(KEYS, (case.cohort, case.protocol, case.model, case.task, method), strict=True))
            for kind, shares in (
                ("wave", wave_shares(relevance, case.codes)),
                ("region", region_shares(relevance, case.regions, case.codes)),
            ):
                table = share_table(shares, case.persons, resamples[case.cohort])
                parts.append(table.assign(**about, accuracy=case.accuracy, kind=kind))
    table = pd.concat(parts, ignore_index=True)
    first = [*KEYS, "accuracy", "kind"]
    return table[[*first, *table.columns.drop(first)]]


def cohort_resamples(cases: Sequence[Case], seed: int) -> dict[str, Resamples]:
    """Draw each cohort's persons once for all of its cases."""
    persons: dict[str, list[np.ndarray]] = {}
    for case in cases:
        persons.setdefault(case.cohort, []).append(case.persons)
    return {cohort: Resamples.draw(np.concatenate(parts), seed) for cohort, parts in persons.items()}


def main_rows(shares: pd.DataFrame) -> pd.DataFrame:
    """Rows that stand for a cohort, task and method in metric names.

    They are of the first network of :data:`~ecgstudy.attribution.cases.MODELS` that the method applies to, and of
    the first protocol that holds (the leaky one only where a cohort allows nothing else).
    """
    ranked = shares.assign(leaky=shares["protocol"] == LEAKY, order=shares["model"].map(MODELS.index))
    best = ranked.groupby(["cohort", "task", "method"])[["leaky", "order"]].transform("min")
    held = ranked[(ranked["leaky"] == best["leaky"])]
    order = held.groupby(["cohort", "task", "method"])["order"].transform("min")
    held = held[held["order"] == order]
    first = held.groupby(["cohort", "task", "method"])["protocol"].transform("first")
    return held[held["protocol"] == first].drop(columns=["leaky", "order"]).reset_index(drop=True)


def paper_table(shares: pd.DataFrame) -> pd.DataFrame:
    """TransECG's published shares of attention beside ours, with what the region's length alone would give.

    Parameters
    ----------
    shares : pandas.DataFrame
        From :func:`all_shares`.

    Returns
    -------
    pandas.DataFrame
        One row a claim, cohort and protocol: task, region, published share, and share, time and enrichment of the
        paper's own method with intervals.
    """
    ours = shares[(shares["method"] == PAPER_METHOD) & (shares["kind"] == "region")]
    rows = []
    for task, region, published in PAPER:
        own = ours[(ours["task"] == task) & (ours["wave"] == region)]
        rows.append(own.assign(region=region, published=published / 100))
    table = pd.concat(rows, ignore_index=True)
    intervals = [f"{name}{end}" for name in ("share", "enrichment") for end in ("", "_low", "_high")]
    return table[["task", "region", "published", "cohort", "protocol", "persons", "accuracy", *intervals, "time"]]


def enrichment_table(rows: pd.DataFrame) -> pd.DataFrame:
    """Enrichment of each wave, one row a cohort, task and method; from :func:`main_rows`."""
    waves = rows[rows["kind"] == "wave"]
    wide = waves.pivot_table(
        index=["cohort", "protocol", "task", "method", "model"], columns="wave", values="enrichment", sort=False
    )
    return wide.reset_index().rename_axis(columns=None)


def failures(cases: Sequence[Case]) -> pd.DataFrame:
    """Count the windows that could not be delineated, by cohort, sex and age group, each window once."""
    attempts = pd.concat([case.attempts for case in cases], ignore_index=True)
    once = attempts.drop_duplicates(["record", "start"])
    table = failure_table(once)
    return table[table["class_of"] != "person"].reset_index(drop=True)


def boundary_table(cases: Sequence[Case], seed: int) -> pd.DataFrame:
    """Enrichment by automatic and by reference boundaries, on the samples that both sources know.

    Returns
    -------
    pandas.DataFrame
        One row a cohort, task, method and wave: enrichment by both with ``_low`` and ``_high`` (automatic, reference),
        the shares automatic_share and reference_share, persons; empty where no cohort has reference boundaries.
    """
    rows = []
    for case in cases:
        if case.reference_codes is None:
            continue
        pairs = on_common_samples(case.codes, case.reference_codes)
        resamples = Resamples.draw(case.persons, seed)
        for method, relevance in case.relevance.items():
            tables = [share_table(wave_shares(relevance, codes), case.persons, resamples) for codes in pairs]
            joined = tables[0].merge(tables[1], on="wave", suffixes=("_automatic", "_reference"))
            about = {"cohort": case.cohort, "model": case.model, "task": case.task, "method": method}
            rows.append(joined.assign(**about))
    if not rows:
        return pd.DataFrame()
    table = pd.concat(rows, ignore_index=True)
    renamed = {f"share_{source}": f"{source}_share" for source in SOURCES} | {"persons_automatic": "persons"}
    renamed |= {f"enrichment{end}_{source}": f"{source}{end}" for source in SOURCES for end in ("", "_low", "_high")}
    return table[["cohort", "model", "task", "method", "wave", *renamed]].rename(columns=renamed)


def case_table(cases: Sequence[Case]) -> pd.DataFrame:
    """List what is explained: windows, persons, how often each network is right, and what was left out."""
    rows = [
        {
            "cohort": cohort,
            "protocol": protocol,
            "task": task,
            "windows": len(found[0].windows),
            "persons": np.unique(found[0].persons).size,
            **{f"{case.model} right": case.accuracy for case in found},
            "not delineated": int(found[0].attempts["reason"].notna().sum()),
            "unlabelled": found[0].unlabelled,
        }
        for (cohort, protocol, task), found in by_place(cases)
    ]
    return pd.DataFrame(rows)


def refusal_table(refused: Mapping[str, str]) -> pd.DataFrame:
    """List what cannot be explained, and why: cohort, protocol, task, reason; each once, whatever the network."""
    rows = [(*name.split(".")[:2], name.split(".")[3], sentence) for name, sentence in refused.items()]
    return pd.DataFrame(rows, columns=["cohort", "protocol", "task", "reason"]).drop_duplicates(ignore_index=True)


def method_table() -> pd.DataFrame:
    """List the methods: what each needs, and where it is described."""
    return pd.DataFrame(
        [
            {
                "method": method.name,
                "needs": method.needs.value,
                "signed": "yes" if method.signed else "no",
                "promises completeness": "yes" if method.complete else "no",
                "source": method.reference,
            }
            for method in METHODS.values()
        ]
    )


def completeness_table(cases: Sequence[Case]) -> pd.DataFrame:
    """Say whether methods that promise completeness keep it, one row a network and method.

    Returns
    -------
    pandas.DataFrame
        model, method, cases (how many), median_delta and worst_delta (median and largest over the cases of the median
        relative convergence delta), kept (whether the worst is at most :data:`MOST_DELTA`).
    """
    rows = [
        {"model": case.model, "method": method, "delta": delta}
        for case in cases
        for method, delta in case.incompleteness.items()
    ]
    grouped = pd.DataFrame(rows).groupby(["model", "method"], sort=False)["delta"]
    table = grouped.agg(cases="size", median_delta="median", worst_delta="max").reset_index()
    return table.assign(kept=np.where(table["worst_delta"] <= MOST_DELTA, "yes", "no"))
