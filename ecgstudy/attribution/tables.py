"""What the stage tells: tables of cases and shares, results, the verdict on every method, and on the paper's claims."""

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd

from ecgstudy.attribution.cases import LEAKY, NETWORKS, Case
from ecgstudy.attribution.methods import METHODS
from ecgstudy.attribution.planted import PLANTED_WAVES
from ecgstudy.attribution.shares import NO_RELEVANCE, failure_table, region_shares, share_table, wave_shares
from ecgstudy.attribution.waves import WAVES, on_common_samples, region_masks
from ecgstudy.evaluate.bootstrap import Resamples
from ecgstudy.evaluate.results import result

LEAST_MASS = 0.80
"""Share of its mass that a method has to put in the planted wave."""
LEAST_HIGHEST = 0.95
"""Or else the share of windows in which the planted wave has to have the highest enrichment."""
MOST_DELTA = 0.05
"""Relative convergence delta up to which a method counts as complete."""
SOURCES = ("automatic", "reference")
"""Who drew the boundaries: the delineator, or cardiologists and the simulator."""
PAPER = (("sex", "R wave", 58.29), ("age_group", "P-R interval", 46.29))
"""Task, region and share of attention in per cent that TransECG's authors publish (arXiv 2503.13495)."""
PAPER_METHOD = "last_attention"
HOLDS, LONG = "holds", "holds only because the wave is long"
FAILS, UNKNOWN = "does not hold", "cannot be judged"
OUTSIDE = {"R wave": ("P", "PR", "ST", "T", "TP"), "P-R interval": ("ST", "T", "TP")}
"""Waves that lie outside a claimed region, with which its share is compared."""
CONTROL = "a control: it cannot know the network"
CAUSAL_EFFECT = "replaced.eer"
"""The effect that `causal.<method>.rank_correlation` compares with: the rise of the EER when a wave is replaced.

Rank-1 falls for few waves only, and ties say nothing about order.
"""


def by_place(cases: Sequence[Case]) -> Iterator[tuple[tuple[str, str, str], list[Case]]]:
    """Cases of one cohort, protocol and task, a case a network."""
    grouped: dict[tuple[str, str, str], list[Case]] = {}
    for case in cases:
        grouped.setdefault((case.cohort, case.protocol, case.task), []).append(case)
    yield from grouped.items()


def case_table(cases: Sequence[Case]) -> pd.DataFrame:
    """List what is explained, how often each network is right, and what was left out."""
    rows = []
    for (cohort, protocol, task), found in by_place(cases):
        windows, attempts = found[0].windows, found[0].attempts
        row: dict[str, object] = {"cohort": cohort, "protocol": protocol, "task": task, "windows": len(windows)}
        row |= {"persons": np.unique(windows.persons).size} | {f"{case.model} right": case.accuracy for case in found}
        left_out = {"not delineated": int(attempts["reason"].notna().sum()), "unlabelled": found[0].unlabelled}
        rows.append(row | left_out)
    return pd.DataFrame(rows)


def refusal_table(refusals: pd.DataFrame) -> pd.DataFrame:
    """List what cannot be explained, and why; each case once, whatever the network."""
    return refusals.reindex(columns=["cohort", "protocol", "task", "reason"]).drop_duplicates(ignore_index=True)


def method_table() -> pd.DataFrame:
    """List the methods: what each needs, and where it is described."""
    told = {True: "yes", False: "no"}
    rows = [(m.name, m.needs.value, told[m.signed], told[m.complete], m.reference) for m in METHODS.values()]
    return pd.DataFrame(rows, columns=["method", "needs", "signed", "promises completeness", "source"])


def completeness_table(cases: Sequence[Case]) -> pd.DataFrame:
    """Say whether methods that promise completeness keep it, over cases: median and largest relative delta."""
    rows = [(case.model, method, delta) for case in cases for method, delta in case.incompleteness.items()]
    grouped = pd.DataFrame(rows, columns=["model", "method", "delta"]).groupby(["model", "method"], sort=False)["delta"]
    table = grouped.agg(cases="size", median_delta="median", worst_delta="max").reset_index()
    return table.assign(kept=np.where(table["worst_delta"] <= MOST_DELTA, "yes", "no"))


def failures(cases: Sequence[Case]) -> pd.DataFrame:
    """Count the windows that could not be delineated, by cohort, sex and age group, each window once."""
    attempts = pd.concat([case.attempts for case in cases], ignore_index=True)
    table = failure_table(attempts.drop_duplicates(["record", "start"]))
    return table[table["class_of"] != "person"].reset_index(drop=True)


def all_shares(cases: Sequence[Case], seed: int) -> pd.DataFrame:
    """Shares, times and enrichments of waves and of TransECG's regions, for every case and method.

    Columns cohort, protocol, model, task, method, accuracy (of the network on these windows), kind ("wave", "region"),
    and those of :func:`ecgstudy.attribution.shares.share_table`; a cohort's persons are drawn once for all methods.
    """
    persons: dict[str, list[np.ndarray]] = {}
    for case in cases:
        persons.setdefault(case.cohort, []).append(case.windows.persons)
    resamples = {cohort: Resamples.draw(np.concatenate(parts), seed) for cohort, parts in persons.items()}
    parts = []
    for case in cases:
        codes = case.windows.codes
        masks = np.stack([region_masks(points, codes.shape[1]) for points in case.windows.fiducials])
        about = {name: getattr(case, name) for name in ("cohort", "protocol", "model", "task")}
        for method, relevance in case.relevance.items():
            kinds = {"wave": wave_shares(relevance, codes), "region": region_shares(relevance, masks, codes)}
            for kind, shares in kinds.items():
                table = share_table(shares, case.windows.persons, resamples[case.cohort])
                parts.append(table.assign(**about, method=method, accuracy=case.accuracy, kind=kind))
    table = pd.concat(parts, ignore_index=True)
    first = ["cohort", "protocol", "model", "task", "method", "accuracy", "kind"]
    return table[[*first, *table.columns.drop(first)]]


def main_rows(shares: pd.DataFrame) -> pd.DataFrame:
    """Rows that stand for a cohort, task and method in metric names.

    They are of the first of the networks that the method applies to, and of
    the first protocol that holds (the leaky one only where a cohort allows nothing else).
    """
    ranked = shares.assign(leaky=shares["protocol"] == LEAKY, order=shares["model"].map(NETWORKS.index))
    for column, best in (("leaky", "min"), ("order", "min"), ("protocol", "first")):
        ranked = ranked[ranked[column] == ranked.groupby(["cohort", "task", "method"])[column].transform(best)]
    return ranked.drop(columns=["leaky", "order"]).reset_index(drop=True)


def boundary_table(cases: Sequence[Case], seed: int) -> pd.DataFrame:
    """Enrichment and shares by automatic and by reference boundaries, on the samples that both sources know.

    One row a cohort, task, method and wave; empty where no cohort has reference boundaries.
    """
    rows = []
    for case in cases:
        if case.reference_codes is None:
            continue
        persons, pairs = case.windows.persons, on_common_samples(case.windows.codes, case.reference_codes)
        resamples = Resamples.draw(persons, seed)
        for method, relevance in case.relevance.items():
            both = [share_table(wave_shares(relevance, codes), persons, resamples) for codes in pairs]
            joined = both[0].merge(both[1], on="wave", suffixes=("_automatic", "_reference"))
            rows.append(joined.assign(cohort=case.cohort, model=case.model, task=case.task, method=method))
    if not rows:
        return pd.DataFrame()
    renamed = {f"share_{source}": f"{source}_share" for source in SOURCES} | {"persons_automatic": "persons"}
    renamed |= {f"enrichment{end}_{source}": f"{source}{end}" for source in SOURCES for end in ("", "_low", "_high")}
    table = pd.concat(rows, ignore_index=True)[["cohort", "model", "task", "method", "wave", *renamed]]
    return table.rename(columns=renamed)


def by_source(boundaries: pd.DataFrame, method: str) -> pd.DataFrame:
    """Enrichments of one method in a :func:`boundary_table`."""
    return boundaries[boundaries["method"] == method].drop(
        columns=["method", "persons", "automatic_share", "reference_share"]
    )


def first_network(table: pd.DataFrame, *keys: str) -> pd.DataFrame:
    """Rows of the first of the networks that each group of `keys` has: a method's figures are those."""
    order = table["model"].map(NETWORKS.index)
    return table[order == order.groupby([table[key] for key in keys]).transform("min")]


def results(table: pd.DataFrame, name: str, *columns: str) -> pd.DataFrame:
    """Rows for ``Stage.results``: one a row and column of a table, its metric named by filling the row into `name`."""
    rows = []
    for row in table.to_dict("records"):
        for column in columns:
            reason = row["reason"] if isinstance(row.get("reason"), str) else NO_RELEVANCE
            value, low, high = (float(row[f"{column}{end}"]) for end in ("", "_low", "_high"))
            note = "" if math.isfinite(value) else f"Not defined: {reason}."
            n = int(row["persons"]) if pd.notna(row.get("persons")) else None
            about = {key: row[key] for key in ("cohort", "protocol", "task") if key in row}
            metric = ".".join(str(part) for part in (row["method"], column, row.get("wave")) if part)
            found = result(metric, value, "", low, high, n, note, attacker=row["model"], **about)
            rows.append(found | {"name": name.format(column=column, **row)})
    return pd.DataFrame(rows, dtype=object)


def planted_results(planted: pd.DataFrame, by_seed: pd.DataFrame) -> pd.DataFrame:
    """``planted.<wave>.<method>.mass_in_wave``, ``.pointing`` and ``.lowest_cohort`` of each method's first network."""
    keys = ["wave", "method", "model"]
    lowest = by_seed.sort_values("mass_in_wave", kind="stable").drop_duplicates(keys)
    named = {f"mass_in_wave{end}": f"lowest_cohort{end}" for end in ("", "_low", "_high")}
    chosen = first_network(planted[planted["applies"]], "wave", "method")
    chosen = chosen.merge(lowest.rename(columns=named)[[*keys, *named.values()]], on=keys)
    return results(chosen, "planted.{wave}.{method}.{column}", "mass_in_wave", "pointing", "lowest_cohort")


def share_results(main: pd.DataFrame) -> pd.DataFrame:
    """``<cohort>.<task>.<method>.share.<wave>`` and ``.enrichment.<wave>``; R stands for the R wave alone."""
    chosen = main[(main["kind"] == "wave") | (main["wave"] == "R wave")]
    named = {"wave": chosen["wave"].replace("R wave", "R"), "task": chosen["task"].str.split("_").str[0]}
    return results(chosen.assign(**named), "{cohort}.{task}.{method}.{column}.{wave}", "share", "enrichment")


def audit_results(sanity: pd.DataFrame, audits: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Sanity, faithfulness (the lower gap of the infills) and causal agreement of each method's first network."""
    known = sanity.dropna(subset="randomised_correlation")
    known = pd.concat([known, sanity[~sanity["method"].isin(known["method"])]])  # undefined on every network
    faithful = first_network(audits["faithfulness"], "method").sort_values("deletion_gap", kind="stable")
    causal = causal_rows(audits).rename(columns=lambda name: name.replace("correlation", "rank_correlation"))
    parts = [
        results(first_network(known, "method"), "sanity.{method}.{column}", "randomised_correlation"),
        results(faithful.drop_duplicates("method"), "faithfulness.{method}.{column}", "deletion_gap"),
        results(causal, "causal.{method}.{column}", "rank_correlation"),
    ]
    return pd.concat(parts, ignore_index=True)


def causal_rows(audits: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Row of :data:`CAUSAL_EFFECT` of each method's first network."""
    return first_network(audits["causal"].query("effect == @CAUSAL_EFFECT"), "method")


def spread_table(by_seed: pd.DataFrame, most: int = 5) -> pd.DataFrame:
    """Mass in the planted wave of the methods that are best on average, a column a cohort."""
    best = by_seed.groupby("method")["mass_in_wave"].mean().nlargest(most).index
    own = by_seed[by_seed["method"].isin(best)].dropna(subset="mass_in_wave")
    wide = own.pivot_table(index=["wave", "model", "method"], columns="cohort_seed", values="mass_in_wave", sort=False)
    return wide.rename(columns=lambda seed: f"cohort {seed}").reset_index().rename_axis(columns=None)


def verdicts(planted: pd.DataFrame) -> pd.DataFrame:
    """Judge every method on every network it was audited on (:func:`ecgstudy.attribution.planted.planted_table`).

    A method is trusted where, for every planted wave, it puts :data:`LEAST_MASS` of its mass in that wave or that
    wave has the highest enrichment in :data:`LEAST_HIGHEST` of the windows. Controls are never trusted.

    One row a method and network: method, model, applies, planted (lowest mass over the waves), planted_wave (where),
    highest and pointing (lowest over the waves), passes (holds for controls too, which shows whether the test can be
    passed without knowing), trusted, reason (why not, else None).
    """
    rows = []
    for (model, method), group in planted.groupby(["model", "method"], sort=False):
        by_wave = group.set_index("wave").reindex(PLANTED_WAVES)
        failed = [why for wave, row in by_wave.iterrows() if (why := _failure(str(wave), row))]
        if not (applies := bool(group["applies"].all())):
            failed = [str(group["reason"].iloc[0])]
        known, control = bool(by_wave["mass_in_wave"].notna().all()), bool(group["control"].iloc[0])
        least = by_wave[["mass_in_wave", "highest", "pointing"]].astype(float).min() * (1.0 if known else np.nan)
        row = {"method": method, "model": model, "applies": applies, "planted": least["mass_in_wave"]}
        row |= {"planted_wave": by_wave["mass_in_wave"].idxmin() if known else None, **least[["highest", "pointing"]]}
        row |= {"passes": not failed, "trusted": not failed and not control}
        rows.append(row | {"reason": CONTROL if control else "; ".join(failed) or None})
    return pd.DataFrame(rows)


def _failure(wave: str, row: pd.Series) -> str | None:
    """Why a method fails on one planted wave; None where it passes."""
    if pd.isna(row["mass_in_wave"]):
        return f"{wave}: {row['reason'] if isinstance(row['reason'], str) else 'not audited'}"
    if row["mass_in_wave"] >= LEAST_MASS or row["highest"] >= LEAST_HIGHEST:
        return None
    return f"{wave}: mass {row['mass_in_wave']:.2f}, highest enrichment in {row['highest']:.0%} of windows"


def scoreboard(
    planted: pd.DataFrame, sanity: pd.DataFrame, audits: dict[str, pd.DataFrame], methods: Iterable[str] = METHODS
) -> pd.DataFrame:
    """Lay all audits of every method side by side.

    One row a method: method, model (the first network it applies to), planted, planted_wave, highest and pointing
    (:func:`verdicts`), randomised_correlation, permuted, deletion_gap and insertion_gap (lowest over the infills),
    causal, trusted, reason (why not), elsewhere (what the other network says: trusted, or why not). NaN: not measured.
    """
    verdict = verdicts(planted)
    causal = causal_rows(audits).set_index("method")["correlation"]
    measured = {
        name: table.groupby(["method", "model"])[name].min()
        for table, names in (
            (sanity, ("randomised_correlation", "permuted")),
            (audits["faithfulness"], ("deletion_gap", "insertion_gap")),
        )
        for name in names
    }
    rows = []
    for method in methods:
        of_method = verdict[verdict["method"] == method].set_index("model")
        model = next((m for m in NETWORKS if m in of_method.index and of_method.loc[m, "applies"]), None)
        row: dict[str, object] = {"method": method, "model": model}
        if model is None:
            reasons = of_method["reason"].dropna().unique()
            rows.append(row | {"trusted": False, "reason": "; ".join(reasons) or "not audited"})
            continue
        row |= of_method.loc[model].to_dict()
        row |= {name: values.get((method, model), np.nan) for name, values in measured.items()}
        others = of_method.drop(index=model).iterrows()
        told = [f"{name}: {'trusted' if other['trusted'] else other['reason']}" for name, other in others]
        rows.append(row | {"causal": causal.get(method, np.nan), "elsewhere": "; ".join(told) or None})
    columns = ["method", "model", "planted", "planted_wave", "highest", "pointing", *measured, "causal"]
    return pd.DataFrame(rows, columns=[*columns, "trusted", "reason", "elsewhere"])


def shown_board(board: pd.DataFrame) -> pd.DataFrame:
    """Columns of a :func:`scoreboard` that fit a page."""
    shown = ["method", "model", "planted", "highest", "pointing", "randomised_correlation", "deletion_gap", "causal"]
    return board[shown].assign(trusted=board["trusted"].map({True: "yes", False: "no"}))


def trusted_methods(board: pd.DataFrame) -> list[str]:
    """Names of the methods that the study's conclusions may rest on."""
    return board.loc[board["trusted"].astype(bool), "method"].tolist()


def trust_finding(board: pd.DataFrame) -> str:
    """Name the methods that passed."""
    trusted, judged = trusted_methods(board), int(board["model"].notna().sum())
    return (
        f"{len(trusted)} of {judged} methods and controls find the planted answer in all three waves: "
        f"{', '.join(trusted).replace('_', ' ') or 'none'}. The study's conclusions rest on these only."
    )


def effect_finding(effects: pd.DataFrame) -> str:
    """Say which wave's replacement costs each network most."""
    parts = []
    own = effects[(effects["change"] == "replaced") & effects["wave"].isin(WAVES)].dropna(subset="eer_rise")
    for model, found in own.groupby("model", sort=False):
        worst = found.loc[found["eer_rise"].idxmax()]
        rise, low, high = (100 * worst[f"eer_rise{end}"] for end in ("", "_low", "_high"))
        told = f"EER +{rise:.1f} points, {low:.1f} to {high:.1f}; rank-1 -{100 * worst['rank1_fall']:.1f} points"
        parts.append(f"{model}: {worst['wave']} ({told})")
    return f"Replacing one wave by other people's average, the dearest loss is that of {'; '.join(parts)}."


def paper_table(shares: pd.DataFrame) -> pd.DataFrame:
    """TransECG's published shares of attention beside ours, with what the region's length alone would give."""
    ours = shares[(shares["method"] == PAPER_METHOD) & (shares["kind"] == "region")]
    rows = [
        ours[(ours["task"] == task) & (ours["wave"] == region)].assign(region=region, published=published / 100)
        for task, region, published in PAPER
    ]
    intervals = [f"{name}{end}" for name in ("share", "enrichment") for end in ("", "_low", "_high")]
    columns = ["task", "region", "published", "cohort", "protocol", "persons", "accuracy", *intervals, "time"]
    return pd.concat(rows, ignore_index=True)[columns]


def judge(rows: pd.DataFrame, region: str) -> str:
    """Judge the claim that a region has the largest share, on rows of :func:`all_shares` of one case and method.

    It *holds* where the region's share is larger than that of every wave outside it and its enrichment is above 1
    (the whole 95 % interval). Where its share is the largest though it is no denser than its length explains, the claim
    *holds only because the wave is long*. Otherwise it *does not hold*.
    """
    claimed = rows[(rows["kind"] == "region") & (rows["wave"] == region)]
    outside = rows[(rows["kind"] == "wave") & rows["wave"].isin(OUTSIDE[region])]
    if claimed.empty or claimed[["share", "enrichment_low"]].isna().to_numpy().any():
        return UNKNOWN
    if not claimed["share"].item() > outside["share"].max():
        return FAILS
    return HOLDS if claimed["enrichment_low"].item() > 1 else LONG


def claim_table(shares: pd.DataFrame, trusted: Sequence[str]) -> pd.DataFrame:
    """Judge each claim, cohort and protocol: by the paper's own network and method, and by each trusted method."""
    rows = []
    for task, region, published in PAPER:
        own = shares[shares["task"] == task]
        for (cohort, protocol), part in own.groupby(["cohort", "protocol"], sort=False):
            first = first_network(part, "method")
            votes = [f"{method}: {judge(first[first['method'] == method], region)}" for method in trusted]
            by_paper = part[(part["method"] == PAPER_METHOD) & (part["model"] == "transecg")]
            row = {"task": task, "region": region, "published": published / 100, "cohort": cohort}
            row |= {"protocol": protocol, "leaky": "yes" if protocol == LEAKY else "no"}
            row["by_attention"] = judge(by_paper, region)
            rows.append(row | {"by_trusted": "; ".join(votes) or "no method passed the audit on planted truth"})
    return pd.DataFrame(rows)


def claim_finding(claims: pd.DataFrame) -> str:
    """Count the verdicts of each claim over cohorts and protocols."""
    parts = []
    for (task, region), own in claims.groupby(["task", "region"], sort=False):
        told = ", ".join(f"{verdict} in {n}" for verdict, n in own["by_attention"].value_counts().items())
        parts.append(f"{region} for {task.replace('_', ' ')}: {told}")
    by = "The paper's claims by its own method (last-layer attention), over cohorts and protocols"
    return f"{by}: {'; '.join(parts)}."
