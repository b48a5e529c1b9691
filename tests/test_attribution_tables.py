"""Tables say what was measured, refuse shares of what is not removed, and state no order without its test."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ecgstudy.attribution import figures, tables
from ecgstudy.attribution.cases import Case
from ecgstudy.attribution.exchange import BASELINES, DONOR, EVERYBODY, FACTORS, OWN_TIMING, Windows
from ecgstudy.attribution.methods import PAIRS, UNTRAINED, ZERO, Answers, by_wave
from ecgstudy.attribution.planted import SHAPE, TIMING
from ecgstudy.attribution.waves import WAVES
from ecgstudy.signals.delineation import FIDUCIAL_COLUMNS

T, PR = FACTORS.index("T"), FACTORS.index("PR interval")


def verdicts(*trusted: tuple[str, str, str, str]) -> pd.DataFrame:
    """Verdicts of what is trusted: model, method, baseline, kind."""
    rows = [(*row, True, False, None) for row in trusted]
    return pd.DataFrame(rows, columns=["model", "method", "baseline", "kind", "trusted", "near", "reason"])


BOTH = verdicts(*(("resnet1d", "replacement", DONOR, kind) for kind in (SHAPE, TIMING)))


@pytest.fixture
def case() -> Case:
    """Six persons with two windows each; replacement from a donor gives T 60 %, QRS 20 %, PR 20 %."""
    persons, n = np.repeat([f"c/{name}" for name in "abcdef"], 2), 12
    codes = np.tile(np.repeat(np.arange(len(WAVES)), [10, 10, 10, 10, 20, 40]), (n, 1))
    points = pd.DataFrame([np.arange(9.0) * 10], columns=list(FIDUCIAL_COLUMNS))
    tables_of = np.fromiter([points] * n, dtype=object)
    windows = Windows(
        np.zeros((n, 1, 100), dtype=np.float32), np.arange(n) // 2, 100.0, 0, 0, codes, persons, tables_of
    )
    answers, rng = Answers(), np.random.default_rng(0)
    for method, baseline in PAIRS:
        for who in ("", *(() if method.control else (UNTRAINED,))):
            even = np.where(np.arange(len(FACTORS)) < (len(FACTORS) if method.by_factor else len(WAVES)), 1.0, 0.0)
            answers.effects[method.name, baseline, who] = np.tile(even, (n, 1))
    own = np.zeros((n, len(FACTORS)))
    own[:, [WAVES.index("QRS"), T, PR]] = [0.2, 0.6, 0.2]
    answers.effects[tables.UNIFORM] = by_wave(np.ones((n, 100)), codes)
    answers.effects["replacement", DONOR, ""] = own * rng.uniform(0.9, 1.1, own.shape)
    answers.removed.update({name: np.array([[0.8] * n, [0.1] * n]) for name in (ZERO, EVERYBODY, DONOR)})
    answers.removed[OWN_TIMING] = np.array([[0.8] * n, [0.6] * n])
    attempts = pd.DataFrame({"person": persons, "sex": ["F", "M"] * 6, "age_group": [None] * n, "cohort": "c"})
    attempts = attempts.assign(record=persons, start=np.arange(n), reason=None, transferred=[True] + [False] * 11)
    right = np.arange(n) != 0
    return Case("c", "cross_record", "resnet1d", windows, attempts, right, 6, answers)


def rows_of(table: pd.DataFrame, method: str, baseline: str) -> pd.DataFrame:
    """Rows of a method and baseline, by factor."""
    return table[(table["method"] == method) & (table["baseline"] == baseline)].set_index("factor")


def test_shares_enrichment_and_margin_by_hand(case: Case) -> None:
    case.answers.effects["replacement", DONOR, ""][0] = 1e6  # a window that the network gets wrong
    found, orders = tables.share_tables([case], BOTH, 0)
    own = rows_of(found, "replacement", DONOR)
    assert list(own.index) == list(FACTORS)
    assert own.loc["T", "share"] == pytest.approx(0.6, abs=0.03)
    assert own.loc["T", "enrichment"] == pytest.approx(0.6 / 0.2, abs=0.15)
    assert np.isnan(own.loc["PR interval", "enrichment"])
    # factor controls give each of ten factors a tenth, magnitude each of six waves a sixth
    assert own.loc["T", "minus_control"] == pytest.approx(0.6 - 1 / 6, abs=0.03)
    assert own.loc["PR interval", "minus_control"] == pytest.approx(0.1, abs=0.03)
    assert own.loc["P", "minus_control"] == pytest.approx(-0.1)
    assert own.loc["RR interval", ["minus_control", "minus_control_low"]].tolist() == [0, 0]
    assert own.loc["T", "minus_control_low"] > 0.35
    assert own["trusted"].all()
    assert not rows_of(found, "shapley", DONOR)["trusted"].any()
    assert list(rows_of(found, "occlusion", DONOR).index) == list(WAVES)
    assert rows_of(found, "magnitude", "none")["minus_control"].isna().all()
    assert own["speaks"].all()
    assert found["speaks"].sum() == len(FACTORS)
    ((title, rows),) = tables.believed(found).items()
    assert title == "c, resnet1d"
    pd.testing.assert_frame_equal(rows.set_index("factor"), own)
    assert orders.iloc[0][["first", "method", "baseline"]].tolist() == ["T", "replacement", DONOR]
    assert orders.iloc[0]["difference_low"] > 0.3


def test_what_a_method_is_not_trusted_for_is_neither_drawn_nor_ordered(case: Case) -> None:
    case.answers.effects["replacement", DONOR, ""][:, PR] = 0.9
    found, orders = tables.share_tables([case], BOTH, 0)
    assert orders.iloc[0]["first"] == "PR interval"
    shapes = verdicts(("resnet1d", "replacement", DONOR, SHAPE))
    found, orders = tables.share_tables([case], shapes, 0)
    assert orders.iloc[0][["first", "second"]].tolist() == ["T", "QRS"]
    assert tables.believed(found)["c, resnet1d"]["factor"].tolist() == list(WAVES)
    for nobody in (verdicts(("resnet1d", "replacement", DONOR, TIMING)), BOTH.assign(trusted=False)):
        found, orders = tables.share_tables([case], nobody, 0)
        assert not tables.believed(found)
        assert orders.empty


def test_nobodys_share_is_given_where_the_network_knows_one_person_only(case: Case) -> None:
    alone = replace(case, right=np.arange(12) < 2, model="transecg")
    found, _ = tables.share_tables([alone, case], BOTH, 0)
    assert set(found["model"]) == {"resnet1d"}
    found, orders = tables.share_tables([alone], BOTH, 0)
    assert found.empty
    assert tables.believed(found) == {}
    assert tables.people_results(found, pd.DataFrame(columns=["factor", "model"])).empty
    assert "no method is trusted" in tables.order_finding(orders, {})


def test_no_share_is_given_where_the_baseline_leaves_the_evidence(case: Case) -> None:
    found, _ = tables.share_tables([case], BOTH, 0)
    kept = rows_of(found, "replacement", OWN_TIMING)
    assert kept["share"].isna().all()
    assert kept["reason"].unique().tolist() == ["the baseline removes 25% of the evidence only"]
    assert rows_of(found, "saliency", "none")["reason"].isna().all()
    removed = tables.evidence_results([case], 0).set_index("view")
    assert removed.loc[OWN_TIMING, "value"] == pytest.approx(1 / 4)
    assert removed.loc[OWN_TIMING, ["attacker", "task", "n"]].tolist() == ["resnet1d", "person", 6]
    table = tables.case_table([case])
    assert table["right"].item() == pytest.approx(11 / 12)
    assert table["with transferred boundaries"].item() == 1


def test_failures_are_counted_by_class_within_each_cohort(case: Case) -> None:
    other = case.attempts.assign(cohort="d", reason=["noise"] * 3 + [None] * 9, record=lambda t: t["record"] + "'")
    found = tables.failure_table([case, Case("d", "p", "m", case.windows, other, case.right, 6)])
    rows = found.set_index(["cohort", "class_of", "name"])
    assert rows.loc[("c", "everybody", "all"), ["windows", "left_out", "transferred"]].tolist() == [12, 0, 1]
    assert rows.loc[("d", "everybody", "all"), ["left_out", "noise"]].tolist() == [3, 3]
    assert rows.loc[("d", "sex", "F"), ["windows", "left_out", "rate"]].tolist() == [6, 2, 2 / 6]
    assert rows.loc[("d", "age_group", "unknown"), "windows"] == 12


def test_metrics_are_named_and_undefined_ones_say_why(case: Case) -> None:
    found, _ = tables.share_tables([case], BOTH, 0)
    about = {"model": "resnet1d", "cohort": "c", "persons": 6}
    costs = pd.DataFrame([about | {"factor": factor} for factor in ("PR interval", "everything")])
    for name in ("rank1", "eer", "rank1_cost", "eer_cost"):
        costs[[name, f"{name}_low", f"{name}_high"]] = [0.1, 0.0, 0.2]
    named = tables.people_results(found, costs.assign(reason=None)).set_index("name")
    assert named.loc["causal.PR_interval.resnet1d.eer_cost", ["value", "low", "high"]].tolist() == [0.1, 0.0, 0.2]
    assert named.loc["causal.rest.resnet1d.eer", "value":"high"].tolist() == [0.1, 0.0, 0.2]
    assert "causal.rest.resnet1d.eer_cost" not in named.index
    removed = tables.evidence_results([case, replace(case, model="transecg")], 0).set_index("name")
    assert removed.loc["evidence_removed.c.person.donor", "value"] == pytest.approx(7 / 8)
    assert removed.loc["evidence_removed.c.person.donor.transecg", "attacker"] == "transecg"
    assert removed.index.is_unique
    assert named.loc["c.person.replacement.donor.minus_control.T", "value"] > 0.3
    refused = named.loc["c.person.replacement.mean_own_timing.share.T"]
    assert math.isnan(refused["value"])
    assert refused["note"] == "Not defined: the baseline removes 25% of the evidence only."
    assert named.index.is_unique


def test_planted_metrics_are_of_the_first_network_that_has_them() -> None:
    row = {"cue": "P", "kind": SHAPE, "method": "saliency", "baseline": "none", "control": False, "persons": 4}
    numbers = {f"{name}{end}": 0.5 for name in ("mass_in_cue", "margin_over_control") for end in tables.ENDS}
    table = pd.DataFrame(
        [
            row | {"model": "resnet1d", "reason": "resnet1d has not found the cue"},
            row | {"model": "transecg", "reason": None} | numbers,
            row | {"model": "resnet1d", "reason": None, "cue": "T"} | numbers,
            row | {"model": "resnet1d", "reason": "resnet1d has not found the cue", "cue": "PR"},
            row | {"model": "transecg_40ms", "reason": None, "cue": "PR"} | numbers,
        ]
    )
    found = tables.planted_results(table.assign(evidence_removed=np.nan)).set_index("name")
    assert found.loc["planted.P.saliency.none.mass_in_cue", "attacker"] == "transecg"
    assert found.loc["planted.T.saliency.none.margin_over_control", "attacker"] == "resnet1d"
    assert found.loc["planted.PR.saliency.none.mass_in_cue", "attacker"] == "transecg_40ms"
    assert len(found) == 6


def claim(**changed: object) -> dict[str, object]:
    """Row of a judged claim."""
    row = {"claim": "sex_R_wave", "cohort": "ptbxl", "task": "sex", "leads": "twelve", "region": "R wave"}
    row |= {"share": 0.6, "share_low": 0.5, "share_high": 0.7, "attention": 0.1, "time": 0.05}
    row |= {"model": "transecg_40ms", "removed_donor": 0.9, "removed_donor_low": 0.8, "removed_donor_high": 1.0}
    return row | {"persons": 600, "verdict": "holds", "reason": None, "by_attention": "does not hold"} | changed


def test_verdicts_are_numbers_where_there_is_one() -> None:
    table = pd.DataFrame(
        [
            claim(),
            claim(cohort="ludb", verdict="does not hold"),
            claim(cohort="x", verdict="undecided"),
            claim(cohort="y", verdict="cannot be judged here", reason="the network knows no more than chance"),
            claim(leads="I", verdict="does not hold"),
        ]
    )
    found = tables.claim_results(table).set_index("name")
    assert found.loc["claims.sex_R_wave.ptbxl.verdict", "value"] == 1
    assert found.loc["claims.sex_R_wave.ludb.verdict", "value"] == 0
    assert found.loc["claims.sex_R_wave.x.verdict", "value":"high"].isna().all()
    assert "no more than chance" in found.loc["claims.sex_R_wave.y.verdict", "note"]
    notes = [found.loc[f"claims.sex_R_wave.{name}.verdict", "note"] for name in ("ptbxl", "x")]
    assert notes == ["holds.", "undecided: its interval reaches both sides."]
    removed = found.loc["evidence_removed.ptbxl.sex.donor"]
    assert removed[["value", "low", "high", "attacker"]].tolist() == [0.9, 0.8, 1.0, "transecg_40ms"]
    assert "no more than chance" in found.loc["evidence_removed.y.sex.zero", "note"]
    share = found.loc["claims.sex_R_wave.ptbxl.share"]
    assert share[["value", "low", "high", "unit"]].tolist() == [0.6, 0.5, 0.7, "share"]
    assert found.loc["claims.sex_R_wave.ptbxl.attention", "value"] == 0.1
    assert found.loc["claims.sex_R_wave.ptbxl.time", "value"] == 0.05
    assert len(found) == 4 * (1 + 3 + 4)
    assert found.index.is_unique
    told = tables.claim_finding(table)
    assert "R wave for sex on ptbxl: holds; by attention: does not hold" in told
    assert "cannot be judged here, because the network knows no more than chance" in told
    assert "no cohort has the leads" in tables.claim_finding(pd.DataFrame())
    same = [claim(), claim(region="P-R to the R peak", task="age", reason=None), claim(leads="I", verdict="x")]
    told = tables.claim_finding(pd.DataFrame(same))
    assert told.endswith(": R wave for sex, P-R to the R peak for age on ptbxl: holds; by attention: does not hold.")


def test_an_order_is_stated_only_where_its_interval_excludes_zero() -> None:
    row = {
        "cohort": "c",
        "model": "resnet1d",
        "method": "replacement",
        "baseline": DONOR,
        "first": "T",
        "second": "QRS",
    }
    sure = {"difference": 0.2, "difference_low": 0.1, "difference_high": 0.3, "p": 0.01}
    margins = pd.DataFrame({"factor": ["T", "QRS"], "minus_control_low": [0.01, 0.0]})
    told = tables.order_finding(pd.DataFrame([row | sure]), {"c, resnet1d": margins})
    assert told.startswith("By their raw share people are told apart by: c, resnet1d: T, more than QRS (difference 10%")
    assert told.endswith("Above every control's share lies: T (c, resnet1d).")
    for doubt in ({"difference_low": -0.1}, {"p": 0.051}):
        unsure = tables.order_finding(pd.DataFrame([row | sure | doubt]), {"c, resnet1d": margins.tail(1)})
        assert "no order of T and QRS is shown" in unsure
        assert unsure.endswith("Above every control's share lies: none.")
    assert "no method is trusted" in tables.order_finding(pd.DataFrame(), {})
    costs = pd.DataFrame({"factor": ["T", "everything"], "model": "resnet1d", "eer": [0.1, 0.4]})
    costs[["eer_cost", "eer_cost_low", "eer_cost_high"]] = [0.05, 0.02, 0.09]
    orders = pd.DataFrame([row | sure | {"measure": "eer"}])
    assert "resnet1d: T, more than QRS (EER +5.0 points, 2.0 to 9.0)" in tables.cost_finding(costs, orders)
    assert "with all waves and intervals average the EER is 40.0%" in tables.cost_finding(costs, orders)
    assert "not surely more than QRS" in tables.cost_finding(costs, orders.assign(difference_low=-0.1))


def test_the_causal_check_is_set_beside_the_maps_of_its_cohort() -> None:
    shares = {"P": 0.05, "PR": 0.02, "QRS": 0.3, "ST": 0.04, "T": 0.2, "TP": 0.06}
    panels = {"c, resnet1d": pd.DataFrame({"factor": list(shares), "share": shares.values()})}
    rises = {"P": (0.0, -0.01, 0.01), "PR": (0.0, -0.01, 0.01), "QRS": (0.06, 0.02, 0.1)}
    rises |= {"ST": (0.0, -0.01, 0.01), "T": (0.07, 0.03, 0.1), "TP": (0.02, 0.01, 0.03)}
    costs = pd.DataFrame(rises | {"PR interval": (0.5, 0.4, 0.6)}, index=["eer_cost", "eer_cost_low", "eer_cost_high"])
    costs = costs.T.rename_axis("factor").reset_index()
    costs = costs.assign(cohort="c", model="transecg")
    order = {"cohort": "c", "model": "resnet1d", "first": "QRS", "second": "T", "difference_low": 0.01, "p": 0.006}
    dear = order | {"model": "transecg", "measure": "eer", "first": "T", "second": "QRS", "p": 0.9}
    told = tables.agreement_finding(panels, pd.DataFrame([order]), costs, pd.DataFrame([dear]))
    assert told.startswith("On c maps and causal check agree that QRS and T carry identity and P, PR and ST little")
    assert "T 20% of the map, transecg +7.0 (3.0 to 10.0)" in told
    assert (
        "Which leads is not settled: map, resnet1d: QRS, more than T (p 0.006); check by eer, transecg: T, not" in told
    )
    same = pd.DataFrame([dear | {"first": "QRS", "second": "T", "p": 0.01}])
    assert "Which leads is settled" in tables.agreement_finding(panels, pd.DataFrame([order]), costs, same)
    other = costs.assign(eer_cost=costs["eer_cost"].where(costs["factor"] != "P", 0.2))
    told = tables.agreement_finding(panels, pd.DataFrame([order]), other, same)
    assert told.startswith("On c maps put QRS and T first, the causal check P and T")
    assert tables.agreement_finding({}, pd.DataFrame(), costs, same).startswith("No map of c is trusted")


def test_who_is_trusted_is_named_by_network_and_kind() -> None:
    more = verdicts(("resnet1d", "replacement", EVERYBODY, SHAPE), ("resnet1d", "shapley", DONOR, SHAPE))
    found = pd.concat([BOTH, more, verdicts(("transecg", "saliency", "none", SHAPE)).assign(trusted=False, near=True)])
    told = tables.trust_finding(found)
    assert "for shape on resnet1d: replacement from donor or mean everybody, shapley from donor (0 near misses)" in told
    assert "for shape on transecg: none (1 near misses)" in told


def test_every_method_is_listed_with_its_baselines() -> None:
    table = tables.method_table().set_index("method")
    assert table.loc["shapley", ["by", "baselines"]].tolist() == ["factors", ", ".join(BASELINES)]
    assert table.loc["last_attention", "needs"] == "attention weights"
    assert table.loc["saliency", "baselines"] == "none"


def beat(height: float) -> figures.MeanBeat:
    """Beat of an R wave at 500 Hz, with its points."""
    seconds = np.arange(420) / 500 - figures.BEFORE_S
    places = dict(zip(FIDUCIAL_COLUMNS, (-0.2, -0.16, -0.12, -0.05, 0.0, 0.05, 0.12, 0.2, 0.3), strict=True))
    return figures.MeanBeat(height * np.exp(-0.5 * (seconds / 0.01) ** 2), 500.0, places)


def test_the_heart_is_drawn_in_millivolts_with_shares_and_what_is_sure(case: Case) -> None:
    rows = rows_of(tables.share_tables([case], BOTH, 0)[0], "replacement", DONOR).reset_index()
    figure = figures.heart_figure(beat(1.0), beat(2.0), rows)
    paper, beside = figure.axes[:2]
    assert paper.get_ylabel() == "amplitude (mV)"
    told = [text.get_text() for text in paper.texts]
    assert {"P", "QRS", "T"} <= set(told)
    assert f"{rows.set_index('factor').loc['T', 'share']:.0%}" in told
    labels = [label.get_text() for label in beside.get_yticklabels()]
    assert [label.rsplit(" ", 1)[0] for label in labels] == list(FACTORS)
    assert labels[PR] == f"PR interval {rows.set_index('factor').loc['PR interval', 'share']:.0%}"
    behind = paper.lines[0].get_ydata()
    assert behind.max() == pytest.approx(2.0)
    most = rows["minus_control"].abs().max()
    assert paper.collections[0].get_clim() == pytest.approx((-most, most))
    assert len(figure.axes) == 3  # with its colour bar
    assert figures.heart_caption(case, rows).endswith("certainty.")
    doubt = rows.assign(minus_control_low=-0.1, minus_control_high=0.1)
    assert figures.heart_caption(case, doubt).endswith("One colour: no wave is above every control.")
    unsure = figures.heart_figure(beat(1.0), beat(2.0), doubt)
    assert not unsure.axes[0].collections[0].get_array().any()
    assert len(unsure.axes) == 2
    margins = tables.person_margins(case, "replacement", DONOR)
    assert margins.shape == (6, len(FACTORS))
    np.testing.assert_allclose(margins["T"], 0.5, atol=0.05)
    small = figures.person_figure({person: beat(1.0) for person in margins.index}, margins)
    assert sum("most by T" in ax.get_title() for ax in small.axes) == 6


def test_the_average_beat_is_of_one_rate() -> None:
    other = figures.MeanBeat(np.zeros(84), 100.0, beat(1.0).points | {"t_peak": 0.9})
    found = figures.average_beat([beat(1.0), beat(3.0), other])
    assert (found.fs, found.points) == (500.0, beat(1.0).points)
    np.testing.assert_allclose(found.millivolts, beat(2.0).millivolts)


def test_planted_heat_maps_leave_refused_cells_empty() -> None:
    table = pd.DataFrame(
        {
            "model": "resnet1d",
            "cue": ["P", "PR"],
            "method": "saliency",
            "baseline": "none",
            "mass_in_cue": [0.5, np.nan],
        }
    )
    figure = figures.planted_figure(table)
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.50"]


def test_boundaries_are_off_by_what_the_cardiologists_say(monkeypatch: pytest.MonkeyPatch) -> None:
    peaks = 0.5 + 0.8 * np.arange(8)
    offsets = dict(zip(FIDUCIAL_COLUMNS, (-0.2, -0.16, -0.12, -0.05, 0.0, 0.05, 0.12, 0.2, 0.3), strict=True))
    beats = pd.DataFrame({name: peaks + offset for name, offset in offsets.items()}).assign(record_id="r1")
    beats["qrs_offset"] += np.where(np.arange(8) == 3, 0.05, 0.01)  # 10 ms late, once 50 ms
    marks = [
        (wave, *(500 * (peaks[beat] + offsets[name]) for name in names))
        for beat in range(8)
        for wave, names in (
            ("P", FIDUCIAL_COLUMNS[:3]),
            ("QRS", FIDUCIAL_COLUMNS[3:6]),
            ("T", FIDUCIAL_COLUMNS[6:]),
        )
    ]
    asked = []

    def boundaries(name: str, lead: str) -> pd.DataFrame:
        asked.append((name, lead))
        return pd.DataFrame(marks, columns=["wave", "onset", "peak", "offset"])

    records = pd.DataFrame({"record_id": ["r0", "r1"], "fs": 500, "reference_lead": ["I", "II"]})
    both = pd.concat([beats.assign(record_id="r0"), beats])
    cohort = SimpleNamespace(records=lambda: records, boundaries=boundaries)
    monkeypatch.setattr(tables, "study_cohort", lambda *_: cohort)
    context = SimpleNamespace(stores={"ludb": SimpleNamespace(beats=both, records=records)})
    found = tables.boundary_errors(context, 0).set_index("point")
    assert asked == [("r1", "II")]  # the first record is one that the delineators were chosen on
    assert found.loc["qrs_offset", ["beats", "automatic_median"]].tolist() == pytest.approx([8, 10])
    assert found.loc["qrs_offset", "transferred_90_percent"] == pytest.approx(10, abs=1e-6)
    assert found.loc["qrs_offset", "automatic_90_percent"] > 10
    np.testing.assert_allclose(found.loc["p_onset", "automatic_median":], 0, atol=1e-6)
    assert tables.boundary_errors(SimpleNamespace(stores={}), 0).empty
