"""What the stage tells: tables of cases and shares, results, the verdict on every method, and on the paper's claims."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ecgstudy.attribution.cases import LEAKY, NETWORKS, Case
from ecgstudy.attribution.methods import METHODS
from ecgstudy.attribution.shares import NO_RELEVANCE, share_table, shares
from ecgstudy.attribution.waves import REGIONS, WAVES, on_common_samples, region_masks
from ecgstudy.evaluate.bootstrap import Resamples
from ecgstudy.evaluate.results import INTERVAL, pivot, result

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
SHOWN = ["method", "model", "planted", "highest", "pointing", "randomised_correlation", "deletion_gap", "causal"]
"""Columns of the scoreboard that fit a page."""
CONTROL = "a control: it cannot know the network"
CAUSAL_EFFECT = "replaced.eer"
"""The effect that `causal.<method>.rank_correlation` compares with: the rise of the EER when a wave is replaced.

Rank-1 falls for few waves only, and ties say nothing about order.
"""


def refusal_table(refusals: pd.DataFrame) -> pd.DataFrame:
    """List what cannot be explained, and why, each once."""
    return refusals[["cohort", "protocol", "task", "reason"]].drop_duplicates()


def method_table() -> pd.DataFrame:
    """List the methods: what each needs, and where it is described."""
    told = {True: "yes", False: "no"}
    rows = [(m.name, m.needs, told[m.signed], told[m.complete], m.reference) for m in METHODS.values()]
    return pd.DataFrame(rows, columns=["method", "needs", "signed", "promises completeness", "source"])


def case_table(cases: Sequence[Case]) -> pd.DataFrame:
    """List what is explained, how often each network is right, and what was left out."""
    rows: dict[tuple[str, ...], dict[str, object]] = {}
    for case in cases:
        place = {"cohort": case.cohort, "protocol": case.protocol, "task": case.task}
        counts = {"windows": len(case.windows), "persons": np.unique(case.windows.persons).size}
        counts["persons on trial"] = case.on_trial
        left_out = {"not delineated": int(case.attempts["reason"].notna().sum()), "unlabelled": case.unlabelled}
        row = rows.setdefault(tuple(place.values()), place | counts | left_out)
        row[f"{case.model} right"] = case.accuracy
    table = pd.DataFrame(rows.values())
    return table[[*table.columns.drop([*left_out]), *left_out]]


def completeness_table(cases: Sequence[Case]) -> pd.DataFrame:
    """Say whether methods that promise completeness keep it, over cases: median and largest relative delta."""
    rows = [(case.model, method, delta) for case in cases for method, delta in case.incompleteness.items()]
    grouped = pd.DataFrame(rows, columns=["model", "method", "delta"]).groupby(["model", "method"], sort=False)["delta"]
    table = grouped.agg(cases="size", median_delta="median", worst_delta="max").reset_index()
    return table.assign(kept=np.where(table["worst_delta"] <= MOST_DELTA, "yes", "no"))


def failure_table(cases: Sequence[Case]) -> pd.DataFrame:
    """Count the windows that could not be delineated, each once, by cohort, sex and age group and by reason.

    A table by wave speaks of those whose waves could be found. One row a class: class_of, name ("unknown" where not
    known), persons, windows, left_out, rate (share left out) and one column a reason that occurs.
    """
    attempts = pd.concat([case.attempts for case in cases], ignore_index=True).drop_duplicates(["record", "start"])
    classes = ["cohort", "sex", "age_group"]
    each = attempts.melt(["person", "reason"], classes, "class_of", "name").fillna({"name": "unknown"})
    grouped = each.groupby(["class_of", "name"])
    table = grouped.agg(persons=("person", "nunique"), windows=("reason", "size"), left_out=("reason", "count"))
    table["rate"] = table["left_out"] / table["windows"]
    reasons = pd.get_dummies(each["reason"]).groupby([each["class_of"], each["name"]]).sum()
    return table.join(reasons).loc[classes].reset_index()


def all_shares(cases: Sequence[Case], seed: int) -> pd.DataFrame:
    """Shares, times and enrichments of waves and of TransECG's regions, for every case and method.

    Columns cohort, protocol, model, task, method, accuracy (of the network on these windows), kind, and those of
    :func:`ecgstudy.attribution.shares.share_table`; a cohort's persons are drawn once for all methods. Kinds are "wave"
    and "region", and where a case has reference boundaries :data:`SOURCES`, its waves on the samples that both know.
    """
    owners = pd.concat([pd.Series(case.windows.persons, [case.cohort] * len(case.windows)) for case in cases])
    resamples = {cohort: Resamples.draw(persons, seed) for cohort, persons in owners.groupby(level=0)}
    keys = ["cohort", "protocol", "model", "task", "method", "accuracy", "kind"]
    tables = {}
    for case in cases:
        codes, about = case.windows.codes, (case.cohort, case.protocol, case.model, case.task)
        masks = np.stack([region_masks(points, codes.shape[1]) for points in case.windows.fiducials])
        kinds = {"wave": (codes, None, WAVES), "region": (codes, masks, tuple(REGIONS))}
        if case.reference_codes is not None:
            common = on_common_samples(codes, case.reference_codes)
            kinds |= {source: (known, None, WAVES) for source, known in zip(SOURCES, common, strict=True)}
        for method, relevance in case.relevance.items():
            for kind, (known, marked, names) in kinds.items():
                parts = shares(relevance, known, marked)
                table = share_table(parts, case.windows.persons, resamples[case.cohort], names)
                tables[(*about, method, case.accuracy, kind)] = table
    return pd.concat(tables, names=keys).reset_index(keys).reset_index(drop=True)


def first_network(table: pd.DataFrame, *keys: str) -> pd.DataFrame:
    """Rows of the first of the networks that each group of `keys` has: a method's figures are those."""
    order = table["model"].map(NETWORKS.index)
    return table[order == order.groupby([table[key] for key in keys]).transform("min")]


def main_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Rows that stand for a cohort, task and method in metric names.

    They are of the first of the networks that the method applies to, and of
    the first protocol that holds (the leaky one only where a cohort allows nothing else).
    """
    keys = ["cohort", "task", "method"]
    leaky = table["protocol"] == LEAKY
    rows = first_network(table[leaky == leaky.groupby([table[key] for key in keys]).transform("min")], *keys)
    return rows[rows["protocol"] == rows.groupby(keys)["protocol"].transform("first")]


def boundary_table(table: pd.DataFrame) -> pd.DataFrame:
    """Enrichment and shares by automatic and by reference boundaries, of :func:`all_shares`.

    One row a cohort, model, task, method and wave; empty where no cohort has reference boundaries.
    """
    keys = ["cohort", "model", "task", "method", "wave"]
    ends = {"share": "_share"} | {f"enrichment{end}": end for end in INTERVAL.values()}
    wide = pivot(table[table["kind"].isin(SOURCES)], ["protocol", *keys, "persons"], "kind", SOURCES, ends)
    first = [*keys, "automatic_share", "reference_share", "persons"]
    return wide[[*first, *wide.columns.drop([*first, "protocol"])]]


def results(table: pd.DataFrame, name: str, *columns: str) -> pd.DataFrame:
    """Rows for ``Stage.results``: one a row and column of a table, its metric named by filling the row into `name`."""
    rows = []
    for row in table.to_dict("records"):
        about = {key: row[key] for key in ("cohort", "protocol", "task") if key in row}
        reason = row["reason"] if isinstance(row.get("reason"), str) else NO_RELEVANCE
        n = int(row["persons"]) if pd.notna(row.get("persons")) else None
        for column in columns:
            value, low, high = (float(row[f"{column}{end}"]) for end in ("", "_low", "_high"))
            note = "" if math.isfinite(value) else f"Not defined: {reason}."
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
    chosen = main[(main["kind"] == "wave") | ((main["kind"] == "region") & (main["wave"] == "R wave"))]
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


def sanity_table(parts: pd.DataFrame, permuted: pd.DataFrame) -> pd.DataFrame:
    """Sum each method up: how much of the explanation is left when nothing of the network is.

    One row a method and model of :func:`ecgstudy.attribution.audits.randomisation_table`: randomised_correlation with
    ``_low`` and ``_high`` (end of the cascade), untrained (level of another fresh network), reason, and permuted
    (correlation with a network of permuted labels, from :func:`ecgstudy.attribution.planted.audit_planted`).
    """
    keys = ["model", "method"]
    ends = parts[parts["kind"] == "cascading"].drop_duplicates(keys, keep="last")
    untrained = parts[parts["kind"] == "untrained"].rename(columns={"correlation": "untrained"})
    table = ends.rename(columns=lambda name: name.replace("correlation", "randomised_correlation"))
    table = table.merge(untrained[[*keys, "untrained"]], on=keys).merge(permuted, on=keys, how="left")
    measured = [f"randomised_correlation{end}" for end in ("", "_low", "_high")]
    return table[[*keys, *measured, "untrained", "reason", "permuted"]]


def verdicts(planted: pd.DataFrame) -> pd.DataFrame:
    """Judge every method on every network it was audited on (:func:`ecgstudy.attribution.planted.planted_table`).

    A method is trusted where, for every planted wave, it puts :data:`LEAST_MASS` of its mass in that wave or that
    wave has the highest enrichment in :data:`LEAST_HIGHEST` of the windows. Controls are never trusted.

    One row a method and network: method, model, applies, planted (lowest mass over the waves), planted_wave (where),
    highest and pointing (lowest over the waves), trusted, reason (why not, else None).
    """
    rows = []
    for (model, method), own in planted.groupby(["model", "method"], sort=False):
        failed = "; ".join(dict.fromkeys(filter(None, map(_failure, own.to_dict("records")))))
        mass, highest, pointing = own[["mass_in_wave", "highest", "pointing"]].min(skipna=False)
        where = None if np.isnan(mass) else own.loc[own["mass_in_wave"].idxmin(), "wave"]
        control, applies = own[["control", "applies"]].all()
        row = {"method": method, "model": model, "applies": applies, "planted": mass, "planted_wave": where}
        row |= {"highest": highest, "pointing": pointing, "trusted": not failed and not control}
        rows.append(row | {"reason": CONTROL if control else failed or None})
    return pd.DataFrame(rows)


def _failure(row: dict[str, object]) -> str | None:
    """Why a method fails on one planted wave; None where it passes."""
    if not row["applies"]:
        return row["reason"]
    if np.isnan(row["mass_in_wave"]):
        return f"{row['wave']}: {row['reason']}"
    if row["mass_in_wave"] >= LEAST_MASS or row["highest"] >= LEAST_HIGHEST:
        return None
    return f"{row['wave']}: mass {row['mass_in_wave']:.2f}, highest enrichment in {row['highest']:.0%} of windows"


def scoreboard(planted: pd.DataFrame, sanity: pd.DataFrame, audits: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Lay all audits of every method side by side.

    One row a method: method, model (the first network it applies to), planted, planted_wave, highest and pointing
    (:func:`verdicts`), randomised_correlation, permuted, deletion_gap and insertion_gap (lowest over the infills),
    causal, trusted, reason (why not), elsewhere (what the other network says: trusted, or why not). NaN: not measured.
    """
    verdict = verdicts(planted)
    board = first_network(verdict[verdict["applies"]], "method")
    other = verdict.drop(index=board.index).set_index("method")
    elsewhere = other["model"] + ": " + other["reason"].where(~other["trusted"], "trusted")
    measured = ["randomised_correlation", "permuted", "deletion_gap", "insertion_gap"]
    gaps = audits["faithfulness"].groupby(["method", "model"], as_index=False)[measured[2:]].min()
    for table in (sanity[["method", "model", *measured[:2]]], gaps):
        board = board.merge(table, on=["method", "model"], how="left")
    board = board.set_index("method").reindex([name for name in METHODS if name in set(board["method"])])
    board["causal"] = causal_rows(audits).set_index("method")["correlation"]
    board["elsewhere"] = elsewhere
    columns = ["method", "model", "planted", "planted_wave", "highest", "pointing", *measured, "causal"]
    return board.reset_index()[[*columns, "trusted", "reason", "elsewhere"]]


def trust_finding(board: pd.DataFrame) -> str:
    """Name the methods that passed."""
    trusted = board.loc[board["trusted"], "method"]
    return (
        f"{len(trusted)} of {len(board)} methods and controls find the planted answer in all three waves: "
        f"{', '.join(trusted).replace('_', ' ') or 'none'}. The study's conclusions rest on these only."
    )


def effect_finding(effects: pd.DataFrame) -> str:
    """Say which wave's replacement costs each network most."""
    own = effects[(effects["change"] == "replaced") & effects["wave"].isin(WAVES)].dropna(subset="eer_rise")
    parts = []
    for row in own.loc[own.groupby("model", sort=False)["eer_rise"].idxmax()].to_dict("records"):
        rise, low, high, fall = (100 * row[key] for key in ("eer_rise", "eer_rise_low", "eer_rise_high", "rank1_fall"))
        told = f"EER +{rise:.1f} points, {low:.1f} to {high:.1f}; rank-1 -{fall:.1f} points"
        parts.append(f"{row['model']}: {row['wave']} ({told})")
    return f"Replacing one wave by other people's average, the dearest loss is that of {'; '.join(parts)}."


def paper_table(table: pd.DataFrame) -> pd.DataFrame:
    """TransECG's published shares of attention beside ours, with what the region's length alone would give."""
    ours = table[(table["method"] == PAPER_METHOD) & (table["kind"] == "region")]
    claims = pd.DataFrame(PAPER, columns=["task", "wave", "published"])
    rows = claims.assign(published=claims["published"] / 100).merge(ours, on=["task", "wave"])
    intervals = [f"{name}{end}" for name in ("share", "enrichment") for end in ("", "_low", "_high")]
    columns = ["task", "region", "published", "cohort", "protocol", "persons", "accuracy", *intervals, "time"]
    return rows.rename(columns={"wave": "region"})[columns]


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


def claim_table(table: pd.DataFrame, board: pd.DataFrame) -> pd.DataFrame:
    """Judge each claim, cohort and protocol: by the paper's own network and method, and by each trusted method."""
    trusted, rows = board.loc[board["trusted"], "method"], []
    for task, region, published in PAPER:
        for (cohort, protocol), part in table[table["task"] == task].groupby(["cohort", "protocol"], sort=False):
            first = first_network(part, "method")
            votes = [f"{method}: {judge(first[first['method'] == method], region)}" for method in trusted]
            by_paper = part[(part["method"] == PAPER_METHOD) & (part["model"] == "transecg")]
            row = {"task": task, "region": region, "published": published / 100, "cohort": cohort}
            row |= {"protocol": protocol, "leaky": "yes" if protocol == LEAKY else "no"}
            row |= {"by_attention": judge(by_paper, region)}
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
