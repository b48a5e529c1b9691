"""Tables, verdicts on methods and on the paper's claims, and which rows stand for a method, on numbers made by hand."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ecgstudy.attribution import tables
from ecgstudy.attribution.cases import Case, drawn_note
from ecgstudy.attribution.figures import planted_figure, viewer, whole_beats
from ecgstudy.attribution.tables import FAILS, HOLDS, LONG, UNKNOWN, claim_table, judge, scoreboard, verdicts
from ecgstudy.attribution.waves import WAVES, Windows
from ecgstudy.signals.delineation import FIDUCIAL_COLUMNS


def _rows(region_share: float, enrichment_low: float, largest_outside: float, **about: str) -> pd.DataFrame:
    """Shares of one method: the R wave as claimed, and T as the largest wave outside it."""
    known = {"cohort": "c", "protocol": "cross_record", "model": "transecg", "task": "sex", "method": "last_attention"}
    shares = dict.fromkeys(WAVES, 0.01) | {"T": largest_outside, "QRS": 0.9}  # QRS holds the R wave
    waves = [{"kind": "wave", "wave": wave, "share": share, "enrichment_low": 1.0} for wave, share in shares.items()]
    region = {"kind": "region", "wave": "R wave", "share": region_share, "enrichment_low": enrichment_low}
    return pd.DataFrame([*waves, region]).assign(**(known | about))


@pytest.mark.parametrize(
    ("share", "enrichment_low", "outside", "verdict"),
    [
        (0.40, 1.2, 0.30, HOLDS),
        (0.40, 0.9, 0.30, LONG),
        (0.20, 1.2, 0.30, FAILS),
        (math.nan, math.nan, 0.30, UNKNOWN),
    ],
)
def test_a_claim_is_judged_by_the_waves_outside_it_and_by_its_length(
    share: float, enrichment_low: float, outside: float, verdict: str
) -> None:
    assert judge(_rows(share, enrichment_low, outside), "R wave") == verdict


@pytest.mark.parametrize("outside", ["ST", "T", "TP"])
def test_the_pr_interval_is_compared_with_every_wave_behind_it(outside: str) -> None:
    renamed = {"R wave": "P-R interval", "T": outside, outside: "T"}
    rows = _rows(0.4, 1.2, 0.5)
    assert judge(rows.assign(wave=rows["wave"].replace(renamed)), "P-R interval") == FAILS
    assert judge(_rows(0.4, 1.2, 0.3).replace({"wave": renamed}), "P-R interval") == HOLDS


def test_claims_are_judged_by_the_papers_method_and_by_each_trusted_one() -> None:
    trusted = _rows(0.2, 1.2, 0.3, model="resnet1d", method="occlusion")
    board = pd.DataFrame({"method": ["occlusion", "saliency"], "trusted": [True, False]})
    table = claim_table(pd.concat([_rows(0.4, 1.2, 0.3), trusted]), board)
    assert table[["leaky", "by_attention"]].to_numpy().tolist() == [["no", HOLDS]]
    leaky = claim_table(_rows(0.4, 1.2, 0.3, protocol="random_windows"), board[:0])
    assert leaky["leaky"].item() == "yes"
    assert table["by_trusted"].tolist() == [f"occlusion: {FAILS}"]
    assert "no method passed" in claim_table(_rows(0.4, 1.2, 0.3), board[:0])["by_trusted"].item()
    assert "R wave for sex: holds in 1" in tables.claim_finding(table)


def test_rows_of_a_metric_are_of_the_honest_protocol_and_the_first_network() -> None:
    parts = [
        _rows(0.1, 1, 0.3, protocol="random_windows", model="resnet1d"),
        _rows(0.2, 1, 0.3, protocol="cross_record", model="resnet1d"),
        _rows(0.3, 1, 0.3, protocol="cross_record", model="transecg"),
        _rows(0.4, 1, 0.3, protocol="random_windows", model="transecg", method="attention_rollout"),
    ]
    rows = tables.main_rows(pd.concat(parts, ignore_index=True))
    region = rows[rows["kind"] == "region"].set_index("method")
    assert region.loc["last_attention", "share"] == 0.2
    assert region.loc["attention_rollout", "share"] == 0.4  # nothing honest to take instead


@pytest.fixture
def case() -> Case:
    """Two people, one window each, whose relevance lies in QRS only; the reference draws QRS twice as long."""
    codes = np.tile(np.repeat(np.arange(6, dtype=np.int8), 10), (2, 1))
    wider = codes.copy()
    wider[:, 15:20] = WAVES.index("QRS")
    relevance = (codes == WAVES.index("QRS")).astype(np.float32)
    # R wave: half of QRS, from sample 20 to 25
    points = pd.DataFrame([[0, 5, 10, 20, 20, 30, 40, 45, 50]], columns=list(FIDUCIAL_COLUMNS), dtype=float)
    persons = np.array(["c/a", "c/b"])
    samples = np.arange(120.0, dtype=np.float32).reshape(2, 1, 60)
    fiducials = np.fromiter([points] * 2, dtype=object)
    windows = Windows(samples, np.zeros(2, int), 100.0, 0, codes, persons, fiducials)
    return Case(
        cohort="c",
        protocol="cross_record",
        model="transecg",
        task="sex",
        windows=windows,
        attempts=pd.DataFrame({"reason": [None, None, "no beats"]}),
        unlabelled=1,
        reference_codes=wider,
        recognised=np.array([True, False]),
        relevance={"last_attention": relevance},
        incompleteness={},
    )


def test_tables_of_a_case(case: Case) -> None:
    shares = tables.all_shares([case], seed=0)
    by_wave = shares[shares["kind"] == "wave"].set_index("wave")
    assert by_wave.loc["QRS", ["share", "enrichment"]].tolist() == pytest.approx([1.0, 6.0])
    assert by_wave.drop(index="QRS")["share"].tolist() == [0.0] * 5
    paper = tables.paper_table(shares)
    assert paper[["region", "published", "share", "time"]].to_numpy().tolist() == [
        ["R wave", 0.5829, pytest.approx(0.5), pytest.approx(5 / 60)]
    ]
    boundaries = tables.boundary_table(shares).set_index("wave")
    assert boundaries.loc["QRS", "automatic"] == pytest.approx(6.0)
    assert boundaries.loc["QRS", "reference"] == pytest.approx(4.0)
    wanting = [replace(case, incompleteness={"deep_lift": delta}) for delta in (0.01, 0.2, 0.03)]
    kept = tables.completeness_table([*wanting, replace(case, incompleteness={"integrated_gradients": 0.01})])
    assert kept[["method", "median_delta", "worst_delta", "kept"]].to_numpy().tolist() == [
        ["deep_lift", 0.03, 0.2, "no"],
        ["integrated_gradients", 0.01, 0.01, "yes"],
    ]
    told = tables.case_table([case])
    assert told[["windows", "persons", "transecg right", "not delineated", "unlabelled"]].to_numpy().tolist() == [
        [2, 2, 0.5, 1, 1]
    ]


def test_it_is_said_where_some_of_many_persons_are_explained(case: Case) -> None:
    assert drawn_note([replace(case, on_trial=1000)]) == ""
    large = [case, replace(case, on_trial=1001)]
    assert drawn_note(large) == " Drawn at random, here and in all audits: c: 1,000 of 1,001 persons on trial."
    assert tables.case_table(large[1:])["persons on trial"].tolist() == [1001]


def test_failures_are_counted_by_class_and_reason(case: Case) -> None:
    rows = [
        ("x", "F", "30-44", "a", None),
        ("x", "F", "30-44", "a", "no beats"),
        ("x", "M", None, "b", "P wave not found"),
        ("x", "M", None, "b", "P wave not found"),
        ("x", "M", None, "c", None),
    ]
    attempts = pd.DataFrame(rows, columns=["cohort", "sex", "age_group", "person", "reason"])
    attempts = attempts.assign(record=attempts["person"], start=range(5))
    found = tables.failure_table([replace(case, attempts=attempts)] * 2).set_index(["class_of", "name"])
    assert found.loc[("cohort", "x"), ["persons", "windows", "left_out"]].tolist() == [3, 5, 3]
    assert found.loc[("sex", "M"), "rate"] == pytest.approx(2 / 3)
    assert found.loc[("sex", "M"), ["P wave not found", "no beats"]].tolist() == [2, 0]
    assert found.loc[("age_group", "unknown"), "windows"] == 3


def test_the_viewer_offers_the_beats_that_a_person_has(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    drawn = lambda panels, _: shown.append(panels["standard deviations"][0][0])  # noqa: E731
    monkeypatch.setattr("ecgstudy.attribution.figures.beats_figure", drawn)
    monkeypatch.setattr("ecgstudy.attribution.figures.display", lambda _: None)
    monkeypatch.setattr("ecgstudy.attribution.figures.plt.close", lambda _: None)
    tiled = {"samples": np.tile(case.windows.samples, 4), "codes": np.tile(case.windows.codes, 4)}
    peaks = [pd.DataFrame({"r_peak": peaks}) for peaks in ([-5.0, 40.0, 150.0], [100.0, np.nan])]
    tiled["fiducials"] = np.fromiter(peaks, dtype=object)
    relevance = {"last_attention": np.tile(case.relevance["last_attention"], 4)}
    controls = viewer(replace(case, windows=replace(case.windows, **tiled), relevance=relevance))
    person, method, beat = controls.children[:3]
    assert list(person.options) == ["person 1", "person 2"]  # numbered, not named
    assert list(method.options) == ["last attention"]
    controls.update()
    for number in (2, 3):
        beat.value = number
    person.value = "c/b"
    assert list(dict.fromkeys(shown)) == ["beat 1 of 2", "beat 2 of 2", "beat 1 of 1"]


def test_only_whole_beats_are_drawn(case: Case) -> None:
    beats, relevance = whole_beats(case, "last_attention", np.array([0]))
    assert len(beats) == 0  # 0.3 s before and 0.5 s after R do not fit into 0.6 s
    assert relevance.shape == (0, 80)


def _row(wave: str, model: str, method: str, mass: float, highest: float, reason: str | None = None) -> dict:
    numbers = {"mass_in_wave": mass, "highest": highest, "pointing": highest / 2}
    about = {"wave": wave, "model": model, "method": method, "control": method == "magnitude"}
    return about | {"applies": reason is None or "has not found" in reason, "reason": reason} | numbers


def _planted_table() -> pd.DataFrame:
    why = "attention_rollout needs attention weights, which resnet1d does not have"
    lost = "transecg has not found the cue: it names 30% of the held-out windows"
    rows = []
    for at, wave in enumerate(("P", "QRS", "T")):
        rows += [
            _row(wave, "resnet1d", "saliency", (0.80, 0.2, 0.9)[at], (0.1, 0.95, 0.5)[at]),
            _row(wave, "resnet1d", "occlusion", (0.79, 0.9, 0.9)[at], (0.94, 1, 1)[at]),
            _row(wave, "resnet1d", "magnitude", 0.9, 1.0),
            _row(wave, "resnet1d", "attention_rollout", np.nan, np.nan, why),
            _row(wave, "transecg", "attention_rollout", 0.5, 0.97),
            _row(wave, "transecg", "saliency", *((np.nan, np.nan, lost) if wave == "T" else (0.9, 0.9))),
        ]
    return pd.DataFrame(rows)


def test_verdicts_of_hand_made_numbers() -> None:
    found = verdicts(_planted_table()).set_index(["method", "model"])
    assert found["trusted"].to_dict() == {
        ("saliency", "resnet1d"): True,
        ("occlusion", "resnet1d"): False,
        ("magnitude", "resnet1d"): False,
        ("attention_rollout", "resnet1d"): False,
        ("attention_rollout", "transecg"): True,
        ("saliency", "transecg"): False,
    }
    assert found.loc[("magnitude", "resnet1d"), "reason"] == tables.CONTROL
    assert found.loc[("occlusion", "resnet1d"), "reason"] == "P: mass 0.79, highest enrichment in 94% of windows"
    assert found.loc[("saliency", "resnet1d"), ["planted", "planted_wave", "highest"]].tolist() == [0.2, "QRS", 0.1]
    assert found.loc[("saliency", "transecg"), "reason"].startswith("T: transecg has not found the cue")
    assert np.isnan(found.loc[("saliency", "transecg"), "planted"])


def test_scoreboard_takes_the_main_network_of_each_method() -> None:
    sanity = pd.DataFrame(
        {
            "method": ["saliency"] * 2,
            "model": ["resnet1d", "transecg"],
            "randomised_correlation": [0.1, 0.9],
            "permuted": 0.2,
        }
    )
    gaps = pd.DataFrame(
        {"method": "saliency", "model": "resnet1d", "deletion_gap": [0.3, 0.2], "insertion_gap": [0.1, 0.4]}
    )
    causal = [("saliency", "transecg", "replaced.eer", 0.9), ("saliency", "resnet1d", "replaced.eer", 0.5)]
    causal += [("saliency", "resnet1d", "kept.eer", 0.7)]
    audits = {"faithfulness": gaps}
    audits["causal"] = pd.DataFrame(causal, columns=["method", "model", "effect", "correlation"])
    board = scoreboard(_planted_table(), sanity, audits)
    models = {"attention_rollout": "transecg", "saliency": "resnet1d", "occlusion": "resnet1d", "magnitude": "resnet1d"}
    assert list(zip(board["method"], board["model"], strict=True)) == list(models.items())  # in the study's order
    assert board["trusted"].tolist() == [True, True, False, False]
    finding = tables.trust_finding(board)
    board = board.set_index("method")
    row = board.loc["saliency"]
    numbers = row[["randomised_correlation", "permuted", "deletion_gap", "insertion_gap", "causal"]].astype(float)
    assert numbers.tolist() == [0.1, 0.2, 0.2, 0.1, 0.5]
    assert row["elsewhere"].startswith("transecg: T: transecg has not found")
    assert "needs attention weights" in board.loc["attention_rollout", "elsewhere"]
    assert np.isnan(board.loc["occlusion", "causal"])
    assert finding.startswith(
        "2 of 4 methods and controls find the planted answer in all three waves: attention rollout, s"
    )


def _measured(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """Give columns intervals, and rows persons."""
    ends = {f"{name}{end}": table[name] + by for name in columns for end, by in (("_low", -0.1), ("_high", 0.1))}
    return table.assign(persons=7, **ends)


def test_metrics_are_named_after_the_first_network_of_each_method() -> None:
    planted = _measured(_planted_table(), "mass_in_wave", "pointing")
    by_seed = pd.concat([planted.assign(cohort_seed=0), planted.assign(cohort_seed=1)], ignore_index=True)
    by_seed.loc[by_seed["cohort_seed"] == 1, "mass_in_wave"] -= 0.25
    rows = tables.planted_results(planted, by_seed).set_index("name")
    first = rows.loc["planted.P.saliency.mass_in_wave"]
    assert first[["value", "low", "high", "n", "attacker"]].tolist() == [0.8, pytest.approx(0.7), 0.9, 7, "resnet1d"]
    assert rows.loc["planted.P.saliency.lowest_cohort", "value"] == pytest.approx(0.55)
    assert rows.loc["planted.QRS.attention_rollout.pointing", "attacker"] == "transecg"
    assert not rows.index.has_duplicates
    spread = tables.spread_table(by_seed, most=2).set_index(["wave", "model", "method"])
    assert spread.index.get_level_values("method").unique().tolist() == ["occlusion", "magnitude"]
    assert spread.loc[("P", "resnet1d", "magnitude")].tolist() == pytest.approx([0.9, 0.65])
    planted_figure(planted, by_seed, 0.8)


def test_metrics_of_shares_and_audits() -> None:
    shares = _measured(
        _rows(0.4, 1.2, 0.3).assign(task="age_group", enrichment=2.0, reason=None), "share", "enrichment"
    )
    rows = tables.share_results(shares).set_index("name")["value"]
    assert rows["c.age.last_attention.share.R"] == 0.4
    assert rows["c.age.last_attention.enrichment.T"] == 2.0
    assert len(rows) == 14  # six waves and R, two numbers each
    models = ["transecg", "resnet1d", "resnet1d"]
    sanity = pd.DataFrame({"method": "saliency", "model": models[:2], "randomised_correlation": [0.1, np.nan]})
    gaps = pd.DataFrame({"method": "saliency", "model": models, "deletion_gap": [-1.0, 0.3, 0.2]})
    causal = pd.DataFrame({"method": "saliency", "model": models, "correlation": [0.5, np.nan, 0.7]})
    causal["effect"] = ["replaced.eer", "replaced.eer", "kept.eer"]
    audits = {"faithfulness": _measured(gaps, "deletion_gap"), "causal": _measured(causal, "correlation")}
    audits["causal"]["reason"] = "all waves are tied"
    found = tables.audit_results(_measured(sanity, "randomised_correlation").drop(columns="persons"), audits)
    found = found.set_index("name")
    assert found.loc["sanity.saliency.randomised_correlation", ["value", "n"]].tolist() == [0.1, None]
    assert found.loc["faithfulness.saliency.deletion_gap", "value"] == 0.2
    assert found.loc["causal.saliency.rank_correlation", "note"] == "Not defined: all waves are tied."


def test_the_dearest_wave_is_named_for_each_network() -> None:
    effects = pd.DataFrame(
        {"model": "m", "change": "replaced", "wave": ["P", "T", "all"], "eer_rise": [0.01, 0.05, 0.4]}
    )
    effects = effects.assign(eer_rise_low=0.01, eer_rise_high=0.09, rank1_fall=0.125)
    assert "m: T (EER +5.0 points, 1.0 to 9.0; rank-1 -12.5 points)" in tables.effect_finding(effects)
