"""What the stage tells: tables of methods, people and shares, rows of results, and the sentences on them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from ecgstudy.attribution.cases import NETWORKS, Case
from ecgstudy.attribution.claims import ATTENTION, UNJUDGED, VALUES
from ecgstudy.attribution.exchange import DONOR, EVERYBODY, FACTORS, OWN_TIMING
from ecgstudy.attribution.methods import METHODS, NONE, PAIRS, ZERO, by_wave, controls_of
from ecgstudy.attribution.planted import SHAPE, TIMING
from ecgstudy.attribution.shares import (
    NO_RELEVANCE,
    drawn_means,
    estimates,
    evidence_removed,
    mean_effects,
    over_nearest,
    spoken,
)
from ecgstudy.attribution.waves import WAVES, fiducials_of_boundaries
from ecgstudy.data.public import LudbCohort
from ecgstudy.evaluate.bootstrap import Resamples, ratio
from ecgstudy.evaluate.results import interval, intervals, result
from ecgstudy.experiment.jobs import Context
from ecgstudy.ingestion.stores import study_cohort
from ecgstudy.signals.delineation import CHOSEN_ON_EVERY, FIDUCIAL_COLUMNS, transfer_boundaries

BASELINES = (DONOR, EVERYBODY, OWN_TIMING, ZERO, NONE)
"""Of several trusted methods the one with the first of these baselines speaks for all: it removes most evidence."""
ENDS = ("", "_low", "_high")


class Chosen(NamedTuple):
    """The method that speaks for a network, and whether it is trusted for timing too."""

    method: str
    baseline: str
    timing: bool


def chosen(verdicts: pd.DataFrame, model: str) -> Chosen | None:
    """Trusted method that speaks for a network: one that is trusted for shape and timing where there is any."""
    trusted = verdicts[verdicts["trusted"] & (verdicts["model"] == model)]
    kinds = trusted.groupby(["method", "baseline"])["kind"].agg(set)
    found = [Chosen(*pair, TIMING in of) for pair, of in kinds.items() if SHAPE in of]
    order = list(METHODS)
    return min(found, key=lambda c: (not c.timing, BASELINES.index(c.baseline), order.index(c.method)), default=None)


def method_table() -> pd.DataFrame:
    """List the methods: what each needs, what it compares with, and where it is described."""
    rows = [
        (
            m.name,
            "factors" if m.by_factor else "samples",
            m.needs,
            ", ".join(m.baselines).replace("_", " "),
            m.reference,
        )
        for m in METHODS.values()
    ]
    return pd.DataFrame(rows, columns=["method", "by", "needs", "baselines", "source"])


def case_table(cases: Sequence[Case], seed: int) -> pd.DataFrame:
    """List what is explained, how often each network is right, what was left out, what each baseline removes."""
    rows = []
    for case in cases:
        persons = case.windows.persons
        row = {"cohort": case.cohort, "protocol": case.protocol, "model": case.model, "windows": len(persons)}
        row |= {"persons": np.unique(persons).size, "on_trial": case.on_trial, "right": case.right.mean()}
        row["not delineated"] = int(case.attempts["reason"].notna().sum())
        row["with transferred boundaries"] = int(case.attempts["transferred"].sum())
        resamples = Resamples.draw(persons, seed)
        for baseline, gone in case.answers.removed.items():
            found = evidence_removed(gone[:, case.right], persons[case.right], resamples)
            row |= interval(f"removed_{baseline}", found)
        rows.append(row)
    return pd.DataFrame(rows)


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
    return table.join(each.groupby(["cohort", "class_of", "name"])["reason"].value_counts().unstack()).reset_index()  # noqa: PD010


def boundary_errors(context: Context, seed: int) -> pd.DataFrame:
    """Errors of automatic and of transferred boundaries against the cardiologists' on LUDB; empty without LUDB.

    Every point is also placed as if it had not been found, from the record's other beats. Records that the
    delineators were chosen on are left out. One row a point: point, beats, and the median, median absolute and 90 %
    absolute error in ms, automatic and transferred.
    """
    if LudbCohort.name not in context.stores:
        return pd.DataFrame()
    cohort, store, errors = study_cohort(LudbCohort.name, seed), context.stores[LudbCohort.name], []
    beats = dict(iter(store.beats.groupby("record_id")))
    for at, row in enumerate(cohort.records().itertuples()):
        if row.record_id not in beats or at % CHOSEN_ON_EVERY == 0:
            continue
        lead = store.records.set_index("record_id").loc[row.record_id, "reference_lead"]
        true = fiducials_of_boundaries(cohort.boundaries(row.record_id, lead), 1000 / row.fs, 0.0)
        own = {name: 1000 * beats[row.record_id][name].to_numpy(dtype=float) for name in FIDUCIAL_COLUMNS}
        nearest = np.abs(own["r_peak"][:, None] - true["r_peak"].to_numpy()).argmin(axis=0)
        for name in [column for column in FIDUCIAL_COLUMNS if column != "r_peak"]:
            moved = np.full(own[name].size, np.nan)
            for half in (0, 1):  # as if every other beat lacked the point
                gaps = own | {name: np.where(np.arange(moved.size) % 2 == half, np.nan, own[name])}
                moved[half::2] = transfer_boundaries(gaps)[0][name][half::2]
            both = {"automatic": own[name], "transferred": moved}
            found = {k: places[nearest] - true[name].to_numpy() for k, places in both.items()}
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

    shares: one row a case, method, baseline and factor: cohort, protocol, model, method, baseline, control, trusted (on
    this network, for this kind of factor); share, enrichment (share of a wave over its share of time) and minus_control
    (share less that of the nearest control, paired by person), each with ``_low`` and ``_high``; persons; reason.
    orders: cohort, model, method, baseline, first, second, difference with its interval, p.
    """
    keys = ["model", "method", "baseline", "kind"]
    trusted = set(verdicts.loc[verdicts["trusted"], keys].itertuples(index=False, name=None))
    rows, orders = [], []
    for case in (case for case in cases if case.right.any()):
        persons, about = case.windows.persons, {"cohort": case.cohort, "protocol": case.protocol, "model": case.model}
        resamples, n_persons = Resamples.draw(persons, seed), np.unique(persons[case.right]).size
        evenly = by_wave(np.ones(case.windows.codes.shape), case.windows.codes)[case.right]
        time = drawn_means(pd.DataFrame(evenly).groupby(persons[case.right]).mean(), resamples)
        speaks = chosen(verdicts, case.model)
        for method, baseline in PAIRS:
            if (method.name, baseline, "") not in case.answers.effects:
                continue
            found = spoken(case.answers, method, baseline, case.right, persons, resamples)
            row = about | {"method": method.name, "baseline": baseline, "control": method.control}
            factors = FACTORS if method.by_factor and baseline != OWN_TIMING else WAVES
            for at, factor in enumerate(factors):
                kind, share = SHAPE if factor in WAVES else TIMING, found.own[:, at]
                numbers = {"share": share} | ({"enrichment": ratio(share, time[:, at])} if kind == SHAPE else {})
                if found.controls:
                    numbers["minus_control"] = over_nearest(share, [control[:, at] for control in found.controls])
                known = dict.fromkeys(numbers) if found.reason else estimates(numbers, n_persons)
                told = {"factor": factor, "trusted": (case.model, method.name, baseline, kind) in trusted}
                rows.append(row | told | intervals(known) | {"persons": n_persons, "reason": found.reason})
            if speaks and speaks[:2] == (method.name, baseline) and not found.reason:
                first, second = np.argsort(-found.own[0], kind="stable")[:2]
                test = estimates({"difference": found.own[:, first] - found.own[:, second]}, n_persons)
                order = row | {"first": FACTORS[first], "second": FACTORS[second]} | intervals(test)
                orders.append(order | {"p": test["difference"].p})
    return pd.DataFrame(rows), pd.DataFrame(orders)


def believed(shares: pd.DataFrame, verdicts: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Rows of the method that speaks for each cohort and network, where it gives shares."""
    found = {}
    for (cohort, model), own in shares.groupby(["cohort", "model"], sort=False):
        if speaks := chosen(verdicts, model):
            rows = own[(own["method"] == speaks.method) & (own["baseline"] == speaks.baseline) & own["reason"].isna()]
            found |= {f"{cohort}, {model}": rows} if len(rows) else {}
    return found


def person_margins(case: Case, method: str, baseline: str) -> pd.DataFrame:
    """Share of each factor less that of the deviation from the same baseline, a row a person, a column a factor."""
    persons = case.windows.persons[case.right]
    control = next(other.name for other, _ in controls_of(METHODS[method], baseline))
    both = [mean_effects(case.answers.effects[name, baseline, ""][case.right], persons) for name in (method, control)]
    own, other = (sizes.div(sizes.sum(axis=1), axis=0) for sizes in both)
    return own - other


def first_network(table: pd.DataFrame, *keys: str) -> pd.DataFrame:
    """Rows of the first of the networks that have a number for each group of `keys`, of any where none has."""
    order = table["model"].map({name: at for at, name in enumerate(NETWORKS)}).fillna(len(NETWORKS))
    order = order + len(NETWORKS) * table["reason"].notna()
    return table[order == order.groupby([table[key] for key in keys]).transform("min")]


def results(table: pd.DataFrame, name: str, *columns: str) -> pd.DataFrame:
    """Rows for ``Stage.results``: one a row and column of a table, its metric named by filling the row into `name`."""
    rows = []
    for row in table.to_dict("records"):
        about = {key: row[key] for key in ("cohort", "protocol", "task") if key in row}
        reason = row["reason"] if isinstance(row.get("reason"), str) else NO_RELEVANCE
        n = int(row["persons"]) if pd.notna(row.get("persons")) else None
        for column in columns:
            value, low, high = (float(row.get(f"{column}{end}", math.nan)) for end in ENDS)
            note = "" if math.isfinite(value) else f"Not defined: {reason}."
            metric = ".".join(str(row[key]) for key in ("method", "baseline", "factor") if row.get(key)) + f".{column}"
            found = result(metric, value, "", low, high, n, note, attacker=row["model"], **about)
            rows.append(found | {"name": name.format(column=column, **row).replace(" ", "_")})
    return pd.DataFrame(rows, dtype=object)


def planted_results(planted: pd.DataFrame) -> pd.DataFrame:
    """``planted.<cue>.<method>.<baseline>.mass_in_cue``, ``.margin_over_control``, and what each baseline removes."""
    first = first_network(planted, "cue", "method", "baseline")
    methods, removing = first[~first["control"]], first[first["baseline"] != NONE]
    parts = [
        results(first, "planted.{cue}.{method}.{baseline}.{column}", "mass_in_cue"),
        results(methods, "planted.{cue}.{method}.{baseline}.{column}", "margin_over_control"),
        results(removing.drop_duplicates(["cue", "baseline"]), "{column}.planted.{cue}.{baseline}", "evidence_removed"),
    ]
    return pd.concat(parts, ignore_index=True)


def people_results(cases: pd.DataFrame, shares: pd.DataFrame, costs: pd.DataFrame) -> pd.DataFrame:
    """Shares, causal costs and what baselines remove, of real people: of the first network that has them."""
    removed = cases[cases["model"] == NETWORKS[0]].melt(["cohort", "model", "persons"], var_name="baseline")
    named = removed["baseline"].str.extract(r"^removed_(?P<baseline>.+?)(?P<end>_low|_high)?$")
    removed = removed.drop(columns="baseline").join(named).dropna(subset="baseline").fillna({"end": ""})
    removed["end"] = "evidence_removed" + removed["end"]
    keys = ["cohort", "model", "persons", "baseline"]
    removed = removed.assign(value=removed["value"].astype(float)).pivot_table("value", keys, "end").reset_index()
    first = first_network(shares, "cohort", "method", "baseline")
    about = "{cohort}.person.{method}.{baseline}.{column}.{factor}"
    parts = [
        results(removed, "{column}.{cohort}.person.{baseline}", "evidence_removed"),
        results(first, about, "share"),
        results(first[first["factor"].isin(WAVES)], about, "enrichment"),
        results(first[~first["control"]], about, "minus_control"),
        results(costs, "causal.{factor}.{model}.{column}", "rank1_cost", "eer_cost"),
    ]
    return pd.concat(parts, ignore_index=True)


def claim_results(claims: pd.DataFrame) -> pd.DataFrame:
    """``claims.<claim>.<cohort>.verdict`` of twelve leads: 1 it holds, 0 it does not, undefined where it is open."""
    rows = []
    for row in claims[claims["leads"] == "twelve"].to_dict("records"):
        value = VALUES.get(row["verdict"], math.nan)
        note = f"{row['verdict']}: {row['reason'] or 'its interval reaches both sides'}."
        found = result("verdict", value, "", n=row["persons"], note=note, cohort=row["cohort"], task=row["task"])
        rows.append(found | {"name": f"claims.{row['claim']}.{row['cohort']}.verdict"})
    return pd.DataFrame(rows, dtype=object)


def trust_finding(verdicts: pd.DataFrame) -> str:
    """Name the methods that passed, by network and kind, and count near misses."""
    parts = []
    for (model, kind), own in verdicts.groupby(["model", "kind"], sort=False):
        named = [f"{row.method} from {row.baseline}" for row in own[own["trusted"]].itertuples()]
        told = ", ".join(named).replace("_", " ") or "none"
        parts.append(f"for {kind} on {model}: {told} ({own['near'].sum()} near misses)")
    return f"Methods that find what was planted, and beat every control: {'; '.join(parts)}."


def order_finding(orders: pd.DataFrame) -> str:
    """Say which factor comes first for each cohort and network, and whether that order is established."""
    parts = []
    for row in orders.to_dict("records"):
        sure = row["difference_low"] > 0
        told = (
            f"{row['first']} before {row['second']}"
            if sure
            else f"{row['first']} and {row['second']}, in no sure order"
        )
        low, high = 100 * row["difference_low"], 100 * row["difference_high"]
        parts.append(f"{row['cohort']}, {row['model']}: {told} (difference {low:.0f} to {high:.0f} points)")
    return (
        f"People are told apart by {'; '.join(parts)}."
        if parts
        else "No method is trusted to say what tells people apart."
    )


def cost_finding(costs: pd.DataFrame, orders: pd.DataFrame) -> str:
    """Say which factor costs each network most, whether that is established, and what the rest still recognises."""
    parts = []
    for row in orders[orders["measure"] == "eer"].to_dict("records"):
        own = costs[costs["model"] == row["model"]].set_index("factor")
        dear, rest = own.loc[row["first"]], own.loc["everything"]
        ends = (100 * dear[f"eer_cost{end}"] for end in ENDS)
        told = "{}: {} (EER {:+.1f} points, {:.1f} to {:.1f}".format(row["model"], row["first"], *ends)
        told += ", more than" if row["difference_low"] > 0 else ", not surely more than"
        parts.append(
            f"{told} {row['second']}); with all waves and intervals average, the EER is {100 * rest['eer']:.1f} %"
        )
    return f"Others' average in place of the own one costs most for {'; '.join(parts)}."


def claim_finding(claims: pd.DataFrame) -> str:
    """State the trusted verdict on each claim, and beside it what the rejected method would have said."""
    parts = []
    for row in claims[claims["leads"] == "twelve"].to_dict("records"):
        why = f", because {row['reason']}" if row["verdict"] == UNJUDGED else ""
        paper = f"; by attention: {row['by_attention']}" if isinstance(row.get("by_attention"), str) else ""
        parts.append(f"{row['region']} for {row['task']} on {row['cohort']}: {row['verdict']}{why}{paper}")
    told = f"The paper's claims by trusted methods, beside its own ({ATTENTION.replace('_', ' ')}): "
    return told + ("; ".join(parts) or "no cohort has the leads and people to judge them") + "."
