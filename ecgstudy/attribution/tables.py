"""What the stage tells: tables of methods, people and shares, rows of results, and the sentences on them."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ecgstudy.attribution.cases import Case
from ecgstudy.attribution.causal import EVERYTHING
from ecgstudy.attribution.claims import ATTENTION, VALUES
from ecgstudy.attribution.exchange import BASELINES, FACTORS, INTERVALS, OWN_TIMING
from ecgstudy.attribution.methods import METHODS, NONE, PAIRS, ZERO, controls_of, uniform
from ecgstudy.attribution.planted import NETWORKS, SHAPE, TIMING, trusted_methods
from ecgstudy.attribution.shares import (
    NO_RELEVANCE,
    beyond_controls,
    drawn_shares,
    estimates,
    evidence_removed,
    first_two,
    person_sizes,
    spoken,
)
from ecgstudy.attribution.waves import WAVES, fiducials_of_boundaries
from ecgstudy.data.public import LudbCohort
from ecgstudy.evaluate.bootstrap import Resamples, ratio
from ecgstudy.evaluate.results import estimate_results, intervals, result, results_table
from ecgstudy.experiment.jobs import Context
from ecgstudy.ingestion.stores import study_cohort
from ecgstudy.learn.base import PERSON
from ecgstudy.signals.delineation import CHOSEN_ON_EVERY, FIDUCIAL_COLUMNS, transfer_boundaries

ENDS = ("", "_low", "_high")
FEWEST_PERSONS = 2
"""What the network knows of fewer persons is nobody's share."""
SURE = 0.05
"""Orders are stated below this p alone."""
UNIFORM = (uniform.__name__, NONE, "")
ORDER = list(NETWORKS)
"""Metrics that name no network are of the first of these."""
SHARE_COLUMNS = ["cohort", "protocol", "model", "method", "baseline", "control", "speaks", "factor", "trusted", "share"]
SHARE_COLUMNS += ["enrichment", "minus_control", "persons", "reason"]


def method_table() -> pd.DataFrame:
    """List the methods: what each reads, needs of a network and compares with, and where it is described."""
    kinds = {True: "factors", False: "samples"}
    rows = [(m.name, kinds[m.by_factor], m.needs, ", ".join(m.baselines), m.reference) for m in METHODS.values()]
    return pd.DataFrame(rows, columns=["method", "by", "needs", "baselines", "source"])


def case_table(cases: Sequence[Case]) -> pd.DataFrame:
    """List what is explained, how often each network is right, and what was left out or filled."""
    rows = []
    for case in cases:
        row = {"cohort": case.cohort, "protocol": case.protocol, "model": case.model, "on trial": case.on_trial}
        row |= {"persons": np.unique(case.windows.persons).size, "windows": len(case.windows)}
        row |= {"right": case.right.mean(), "not delineated": case.attempts["reason"].notna().sum()}
        rows.append(row | {"with transferred boundaries": case.attempts["transferred"].sum()})
    return pd.DataFrame(rows)


def evidence_results(cases: Sequence[Case], seed: int) -> pd.DataFrame:
    """Rows of results: how much of the evidence each baseline removes (column view), of every case.

    ``evidence_removed.<cohort>.person.<baseline>``, of networks but the first with their name in the end.
    """
    rows = []
    for case in cases:
        resamples = Resamples.draw(case.windows.persons, seed)
        about = {"cohort": case.cohort, "protocol": case.protocol, "attacker": case.model, "task": PERSON}
        for baseline, gone in case.answers.removed.items():
            found = evidence_removed(gone[:, case.right], case.windows.persons[case.right], resamples)
            name = f"evidence_removed.{case.cohort}.{PERSON}.{baseline}"
            name += "" if case.model == ORDER[0] else f".{case.model}"
            told = estimate_results({"evidence_removed": found}, **about, view=baseline)
            rows.append(told[0] | {"name": name})
    return results_table(rows)


def failure_table(cases: Sequence[Case]) -> pd.DataFrame:
    """Count the windows that could not be delineated, each once, by sex and age group within each cohort, by reason.

    One row a class: cohort, class_of, name ("unknown" where not known), persons, windows, transferred (windows with a
    boundary from the record's median beat), left_out, rate (share left out) and one column a reason that occurs.
    """
    attempts = pd.concat([case.attempts for case in cases], ignore_index=True).drop_duplicates(["record", "start"])
    attempts["everybody"] = "all"
    kept, classes = ["cohort", "person", "reason", "transferred"], ["everybody", "sex", "age_group"]
    each = attempts.melt(kept, classes, "class_of", "name").fillna({"name": "unknown"})
    grouped = each.groupby(["cohort", "class_of", "name"], sort=False)
    table = grouped.agg(persons=("person", "nunique"), windows=("reason", "size"), transferred=("transferred", "sum"))
    table["left_out"] = grouped["reason"].count()
    table["rate"] = table["left_out"] / table["windows"]
    return table.join(grouped["reason"].value_counts().unstack()).reset_index()  # noqa: PD010


def boundary_errors(context: Context, seed: int) -> pd.DataFrame:
    """Errors of automatic and of transferred boundaries against the cardiologists' on LUDB; empty without LUDB.

    Every beat is also placed as if nothing but its R peak had been found, by half of the record's other beats. Records
    that the delineators were chosen on are left out. One row a point: point, beats, and the median, median absolute and
    90 % absolute error in ms, automatic and transferred.
    """
    if LudbCohort.name not in context.stores:
        return pd.DataFrame()
    cohort, store, errors = study_cohort(LudbCohort.name, seed), context.stores[LudbCohort.name], []
    beats, leads = dict(iter(store.beats.groupby("record_id"))), store.records.set_index("record_id")["reference_lead"]
    for at, row in enumerate(cohort.records().itertuples()):
        if row.record_id not in beats or at % CHOSEN_ON_EVERY == 0:
            continue
        true = fiducials_of_boundaries(cohort.boundaries(row.record_id, leads[row.record_id]), 1000 / row.fs, 0.0)
        own = {name: 1000 * beats[row.record_id][name].to_numpy(dtype=float) for name in FIDUCIAL_COLUMNS}
        odd = np.arange(own["r_peak"].size) % 2 == 1
        gaps = [{k: v if k == "r_peak" else np.where(part, np.nan, v) for k, v in own.items()} for part in (odd, ~odd)]
        moved = [transfer_boundaries(points)[0] for points in gaps]
        nearest = np.abs(own["r_peak"][:, None] - true["r_peak"].to_numpy()).argmin(axis=0)
        for name in [column for column in FIDUCIAL_COLUMNS if column != "r_peak"]:
            both = {"automatic": own[name], "transferred": np.where(odd, moved[0][name], moved[1][name])}
            found = {kind: places[nearest] - true[name].to_numpy() for kind, places in both.items()}
            errors.append(pd.DataFrame(found).assign(point=name))
    grouped = pd.concat(errors).dropna().groupby("point", sort=False)
    table = pd.DataFrame({"beats": grouped.size()})
    for name in ("automatic", "transferred"):
        table[f"{name}_median"] = grouped[name].median()
        table[f"{name}_absolute"] = grouped[name].agg(lambda error: error.abs().median())
        table[f"{name}_90_percent"] = grouped[name].agg(lambda error: error.abs().quantile(0.9))
    return table.reset_index()


def share_tables(cases: Sequence[Case], verdicts: pd.DataFrame, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Shares of all factors by every method, and the paired test of the first two of the method that is believed.

    shares: one row a case, method, baseline and factor: cohort, protocol, model, method, baseline, control, speaks (for
    this network: :func:`~.planted.trusted_methods`), trusted (on it, for this kind of factor); share, enrichment (share
    of a wave over its share of time) and minus_control (how far the share lies above or below those of all controls,
    paired by person), each with ``_low`` and ``_high``; persons; reason. orders: cohort, model, method, baseline,
    first, second (of the trusted factors), difference with its interval, p.
    """
    keys = ["model", "method", "baseline", "kind"]
    trusted = set(verdicts.loc[verdicts["trusted"], keys].itertuples(index=False, name=None))
    rows, orders = [], []
    for case in cases:
        persons, about = case.windows.persons, {"cohort": case.cohort, "protocol": case.protocol, "model": case.model}
        resamples, n_persons = Resamples.draw(persons, seed), np.unique(persons[case.right]).size
        if n_persons < FEWEST_PERSONS:
            continue
        time = drawn_shares(case.answers.effects[UNIFORM][case.right], persons[case.right], resamples)
        for method, baseline in (pair for pair in PAIRS if (pair[0].name, pair[1], "") in case.answers.effects):
            found = spoken(case.answers, method, baseline, case.right, persons, resamples)
            row = about | {"method": method.name, "baseline": baseline}
            speaks = [(method.name, baseline)] == trusted_methods(verdicts, case.model)[:1]
            moves = method.by_factor and baseline != OWN_TIMING
            kinds = [SHAPE] * len(WAVES) + [TIMING] * len(INTERVALS) * moves
            sure = [(case.model, method.name, baseline, kind) in trusted for kind in kinds]
            for at, kind in enumerate(kinds):
                numbers = {"share": found.own[:, at]}
                if kind == SHAPE:
                    numbers["enrichment"] = ratio(found.own[:, at], time[:, at])
                if found.controls:
                    numbers["minus_control"] = beyond_controls(found.own, found.controls)[:, at]
                known = dict.fromkeys(numbers) if found.reason else estimates(numbers, n_persons)
                told = {"control": method.control, "speaks": speaks, "factor": FACTORS[at], "trusted": sure[at]}
                rows.append(row | told | intervals(known) | {"persons": n_persons, "reason": found.reason})
            if speaks and not found.reason:
                orders.append(row | first_two(found.own, found.own[0, : len(kinds)] * sure, n_persons))
    # where the networks know nobody, as after a few epochs, the tables are empty
    return pd.DataFrame(rows, columns=None if rows else SHARE_COLUMNS), pd.DataFrame(orders)


def believed(shares: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Trusted rows of the method that speaks for each cohort and network, where it gives shares."""
    rows = shares[(shares["speaks"] & shares["trusted"] & shares["reason"].isna()).astype(bool)]
    return {f"{cohort}, {model}": own for (cohort, model), own in rows.groupby(["cohort", "model"], sort=False)}


def person_margins(case: Case, method: str, baseline: str) -> pd.DataFrame:
    """Share of each factor less that of the deviation from the same baseline, a row a person, a column a factor."""
    keys = (method, baseline, ""), controls_of(METHODS[method], baseline)[0]
    persons = case.windows.persons[case.right]
    both = [person_sizes(case.answers.effects[key][case.right], persons) for key in keys]
    own, other = (sizes.div(sizes.sum(axis=1), axis=0) for sizes in both)
    return own - other


def first_network(table: pd.DataFrame, *keys: str) -> pd.DataFrame:
    """Rows of the first of the networks that have a number for each group of `keys`, of any where none has."""
    order = table["model"].map(ORDER.index) + len(ORDER) * table["reason"].notna()
    return table[order == order.groupby([table[key] for key in keys]).transform("min")]


def results(table: pd.DataFrame, name: str, *columns: str) -> pd.DataFrame:
    """Rows for ``Stage.results``: one a row and column of a table, its metric named by filling the row into `name`."""
    rows = []
    for row in table.to_dict("records"):
        about = {key: row[key] for key in ("cohort", "protocol", "task") if key in row}
        reason = row["reason"] if isinstance(row.get("reason"), str) else NO_RELEVANCE
        for column in columns:
            value, low, high = (float(row.get(f"{column}{end}", math.nan)) for end in ENDS)
            note = "" if math.isfinite(value) else f"Not defined: {reason}."
            about_it = [row[key] for key in ("method", "baseline", "factor") if isinstance(row.get(key), str)]
            metric = ".".join([*about_it, column])
            unit = "" if column == "enrichment" else "share"
            found = result(metric, value, unit, low, high, int(row["persons"]), note, attacker=row["model"], **about)
            rows.append(found | {"name": name.format(column=column, **row).replace(" ", "_")})
    return pd.DataFrame(rows, dtype=object)


def planted_results(planted: pd.DataFrame) -> pd.DataFrame:
    """``planted.<cue>.<method>.<baseline>.mass_in_cue``, ``.margin_over_control``, and what each baseline removes."""
    first = first_network(planted, "cue", "method", "baseline")
    removing = first[first["baseline"] != NONE].drop_duplicates(["cue", "baseline"])
    parts = [
        results(first, "planted.{cue}.{method}.{baseline}.{column}", "mass_in_cue"),
        results(first[~first["control"]], "planted.{cue}.{method}.{baseline}.{column}", "margin_over_control"),
        results(removing, "{column}.planted.{cue}.{baseline}", "evidence_removed"),
    ]
    return pd.concat(parts, ignore_index=True)


def people_results(shares: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Shares of real people, of the first network that has them, and causal costs."""
    about = "{cohort}.person.{method}.{baseline}.{column}.{factor}"
    first = first_network(shares, "cohort", "method", "baseline")
    parts = [
        results(first, about, "share"),
        results(first[first["factor"].isin(WAVES)], about, "enrichment"),
        results(first[~first["control"]], about, "minus_control"),
        results(costs, "causal.{factor}.{model}.{column}", "rank1_cost", "eer_cost"),
        results(costs[costs["factor"] == EVERYTHING], "causal.rest.{model}.{column}", "rank1", "eer"),
    ]
    return pd.concat(parts, ignore_index=True)


def claim_results(claims: pd.DataFrame) -> pd.DataFrame:
    """``claims.<claim>.<cohort>.verdict`` of twelve leads: 1 it holds, 0 it does not, undefined where it is open.

    With ``.share`` of the region by the trusted method, ``.attention`` and ``.time``; and
    ``evidence_removed.<cohort>.<task>.<baseline>``.
    """
    twelve, rows = claims[claims["leads"] == "twelve"], []
    for row in twelve.to_dict("records"):
        value = VALUES.get(row["verdict"], math.nan)
        why = row["reason"] or ("its interval reaches both sides" if math.isnan(value) else "")
        note = f"{row['verdict']}{why and ': '}{why}."
        found = result("verdict", value, "", n=row["persons"], note=note, cohort=row["cohort"], task=row["task"])
        rows.append(found | {"name": f"claims.{row['claim']}.{row['cohort']}.verdict"})
    asked = twelve.drop_duplicates(["cohort", "task"])
    about = "evidence_removed.{cohort}.{task}."
    removed = [results(asked, about + baseline, f"removed_{baseline}") for baseline in (ZERO, *BASELINES)]
    shares = results(twelve, "claims.{claim}.{cohort}.{column}", "share", "attention", "time")
    return pd.concat([pd.DataFrame(rows, dtype=object), shares, *removed], ignore_index=True)


def trust_finding(verdicts: pd.DataFrame) -> str:
    """Name the methods that passed, by network and kind, and count near misses."""
    parts = []
    for (model, kind), own in verdicts.groupby(["model", "kind"], sort=False):
        passed = own[own["trusted"]].groupby("method", sort=False)["baseline"]
        told = ", ".join(f"{method} from {' or '.join(of)}" for method, of in passed).replace("_", " ") or "none"
        parts.append(f"for {kind} on {model}: {told} ({own['near'].sum()} near misses)")
    return f"Methods that find what was planted, and beat every control: {'; '.join(parts)}."


def _is_sure(row: Mapping[str, object]) -> bool:
    """Tell whether the order of two factors is established."""
    return row["difference_low"] > 0 and row["p"] < SURE


def _order(row: Mapping[str, object]) -> str:
    """Say which of two factors comes first, and whether that is established."""
    return f"{row['first']}, {'more' if _is_sure(row) else 'not surely more'} than {row['second']}"


def order_finding(orders: pd.DataFrame, panels: Mapping[str, pd.DataFrame]) -> str:
    """Say which factor has most for each cohort and network, where that is sure, and what is above every control.

    `panels` are those of :func:`believed`.
    """
    parts = []
    for row in orders.to_dict("records"):
        told = f"no order of {row['first']} and {row['second']} is shown"
        if _is_sure(row):
            told = f"{_order(row)} (difference {row['difference_low']:.0%} to {row['difference_high']:.0%})"
        parts.append(f"{row['cohort']}, {row['model']}: {told}, p {row['p']:.3f}")
    above = [
        f"{factor} ({title})"
        for title, table in panels.items()
        for factor in table.loc[table["minus_control_low"] > 0, "factor"]
    ]
    return (
        f"By their raw share people are told apart by: {'; '.join(parts) or 'no method is trusted to say what'}. "
        f"Above every control's share lies: {', '.join(above) or 'none'}."
    )


def agreement_finding(
    panels: Mapping[str, pd.DataFrame], orders: pd.DataFrame, costs: pd.DataFrame, dearest: pd.DataFrame
) -> str:
    """Set the causal check beside the maps of its cohort: which waves both name, and whether one of them leads.

    `panels` and `orders` are of the maps, `costs` and `dearest` of the check.
    """
    cohort = costs["cohort"].iloc[0]
    maps = [table[table["factor"].isin(WAVES)] for title, table in panels.items() if title.startswith(f"{cohort}, ")]
    if not any(len(table) for table in maps):
        return f"No map of {cohort} is trusted that could stand beside the causal check."
    drawn = pd.concat(maps).groupby("factor", sort=False)["share"].mean().reindex(WAVES)
    waves = costs[costs["factor"].isin(WAVES)]
    first = waves.groupby("factor", sort=False)["eer_cost"].mean().nlargest(2).index
    first = [wave for wave in WAVES if wave in first]
    mapped = [wave for wave in WAVES if wave in drawn.nlargest(2).index]
    beyond = waves.groupby("factor")["eer_cost_low"].max() > 0
    little = [wave for wave in WAVES if wave not in first and not beyond[wave]]
    agreed = f"maps and causal check agree that {' and '.join(first)} carry identity and {_listed(little)} little"
    if mapped != first or not (waves.loc[waves["factor"].isin(first), "eer_cost_low"] > 0).all():
        agreed = f"maps put {' and '.join(mapped)} first, the causal check {' and '.join(first)}"
    numbers = [f"{wave} {drawn[wave]:.0%} of the map, {_rises(waves[waves['factor'] == wave])}" for wave in WAVES]
    of_maps = [("map", row) for row in orders[orders["cohort"] == cohort].to_dict("records")]
    told = of_maps + [(f"check by {row['measure']}", row) for row in dearest.to_dict("records")]
    settled = all(_is_sure(row) for _, row in told) and len({row["first"] for _, row in told}) == 1
    leads = "; ".join(f"{by}, {row['model']}: {_order(row)} (p {row['p']:.3f})" for by, row in told)
    return (
        f"On {cohort} {agreed} (rise of the EER in points where others' average stands in): {'; '.join(numbers)}. "
        f"Which leads is {'settled' if settled else 'not settled'}: {leads}."
    )


def _listed(names: Sequence[str]) -> str:
    """Join names as a sentence does."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]])) or "nothing"


def _rises(rows: pd.DataFrame) -> str:
    """Rise of the EER that each network pays, in points with its interval."""
    return ", ".join(
        f"{row.model} {100 * row.eer_cost:+.1f} ({100 * row.eer_cost_low:.1f} to {100 * row.eer_cost_high:.1f})"
        for row in rows.itertuples()
    )


def cost_finding(costs: pd.DataFrame, orders: pd.DataFrame) -> str:
    """Say which factor costs each network most, and what the rest still recognises."""
    parts = []
    for row in orders[orders["measure"] == "eer"].to_dict("records"):
        own = costs[costs["model"] == row["model"]].set_index("factor")
        value, low, high = (100 * own.loc[row["first"], f"eer_cost{end}"] for end in ENDS)
        told = f"{row['model']}: {_order(row)} (EER {value:+.1f} points, {low:.1f} to {high:.1f}); "
        parts.append(f"{told}with all waves and intervals average the EER is {own.loc[EVERYTHING, 'eer']:.1%}")
    return f"Others' average in place of the own one costs most for {'; '.join(parts)}."


def claim_finding(claims: pd.DataFrame) -> str:
    """State the trusted verdict on each claim, and beside it what the rejected method would have said."""
    said, parts = ["cohort", "verdict", "reason", "by_attention"], []
    table = claims.reindex(columns=["leads", "region", "task", *said]).fillna("").query("leads == 'twelve'")
    for (cohort, verdict, reason, attention), own in table.groupby(said, sort=False):
        why, paper = reason and f", because {reason}", attention and f"; by attention: {attention}"
        asked = ", ".join(own["region"] + " for " + own["task"])
        parts.append(f"{asked} on {cohort}: {verdict}{why}{paper}")
    told = "; ".join(parts) or "no cohort has the leads and people to judge them"
    return f"The paper's claims by trusted methods, beside its own ({ATTENTION.replace('_', ' ')}): {told}."
