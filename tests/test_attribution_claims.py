"""Verdicts on the paper's claims, and which rows stand for a method, on tables made by hand."""

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ecgstudy.attribution.cases import Case
from ecgstudy.attribution.claims import FAILS, HOLDS, LONG, UNKNOWN, claim_finding, claim_table, judge
from ecgstudy.attribution.figures import person_beats
from ecgstudy.attribution.tables import (
    all_shares,
    boundary_table,
    case_table,
    completeness_table,
    main_rows,
    paper_table,
    refusal_table,
)
from ecgstudy.attribution.viewer import viewer
from ecgstudy.attribution.waves import WAVES


def _rows(region_share: float, enrichment_low: float, largest_rival: float, **about: str) -> pd.DataFrame:
    """Shares of one method: the R wave as claimed, and T as its strongest rival."""
    known = {"cohort": "c", "protocol": "cross_record", "model": "transecg", "task": "sex", "method": "last_attention"}
    shares = dict.fromkeys(WAVES, 0.01) | {"T": largest_rival, "QRS": 0.9}  # QRS holds the R wave: no rival
    waves = [{"kind": "wave", "wave": wave, "share": share, "enrichment_low": 1.0} for wave, share in shares.items()]
    region = {"kind": "region", "wave": "R wave", "share": region_share, "enrichment_low": enrichment_low}
    return pd.DataFrame([*waves, region]).assign(**(known | about))


@pytest.mark.parametrize(
    ("share", "enrichment_low", "rival", "verdict"),
    [
        (0.40, 1.2, 0.30, HOLDS),
        (0.40, 0.9, 0.30, LONG),
        (0.20, 1.2, 0.30, FAILS),
        (math.nan, math.nan, 0.30, UNKNOWN),
    ],
)
def test_a_claim_is_judged_by_its_rivals_and_by_its_length(
    share: float, enrichment_low: float, rival: float, verdict: str
) -> None:
    assert judge(_rows(share, enrichment_low, rival), "R wave") == verdict


def test_claims_are_judged_by_the_papers_method_and_by_each_trusted_one() -> None:
    trusted = _rows(0.2, 1.2, 0.3, model="resnet1d", method="occlusion")
    table = claim_table(pd.concat([_rows(0.4, 1.2, 0.3), trusted]), ["occlusion"])
    assert table["by_attention"].tolist() == [HOLDS]
    assert table["by_trusted"].tolist() == [f"occlusion: {FAILS}"]
    assert "no method passed" in claim_table(_rows(0.4, 1.2, 0.3), [])["by_trusted"].item()
    assert "R wave for sex: holds in 1" in claim_finding(table)


def test_rows_of_a_metric_are_of_the_honest_protocol_and_the_first_network() -> None:
    parts = [
        _rows(0.1, 1, 0.3, protocol="random_windows", model="resnet1d"),
        _rows(0.2, 1, 0.3, protocol="cross_record", model="resnet1d"),
        _rows(0.3, 1, 0.3, protocol="cross_record", model="transecg"),
        _rows(0.4, 1, 0.3, protocol="random_windows", model="transecg", method="attention_rollout"),
    ]
    rows = main_rows(pd.concat(parts, ignore_index=True))
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
    regions = np.zeros((2, 5, 60), dtype=bool)
    regions[:, 0, 20:25] = True  # R wave: half of QRS
    return Case(
        cohort="c",
        protocol="cross_record",
        model="transecg",
        task="sex",
        windows=np.arange(120.0).reshape(2, 60),
        persons=np.array(["c/a", "c/b"]),
        records=np.array(["c/1", "c/2"]),
        codes=codes,
        regions=regions,
        peaks=[np.array([-5.0, 31.0]), np.array([10.0, np.nan])],
        reference_codes=wider,
        relevance={"last_attention": relevance},
        obstacles={},
        incompleteness={},
        attempts=pd.DataFrame({"reason": [None, None, "no beats"]}),
        unlabelled=1,
        accuracy=0.5,
        fs=100.0,
    )


def test_tables_of_a_case(case: Case) -> None:
    shares = all_shares([case], seed=0)
    by_wave = shares[shares["kind"] == "wave"].set_index("wave")
    assert by_wave.loc["QRS", ["share", "enrichment"]].tolist() == pytest.approx([1.0, 6.0])
    assert by_wave.drop(index="QRS")["share"].tolist() == [0.0] * 5
    paper = paper_table(shares)
    assert paper[["region", "published", "share", "time"]].to_numpy().tolist() == [
        ["R wave", 0.5829, pytest.approx(0.5), pytest.approx(5 / 60)]
    ]
    boundaries = boundary_table([case], seed=0).set_index("wave")
    assert boundaries.loc["QRS", "automatic"] == pytest.approx(6.0)
    assert boundaries.loc["QRS", "reference"] == pytest.approx(4.0)
    wanting = [replace(case, incompleteness={"deep_lift": delta}) for delta in (0.01, 0.2, 0.03)]
    kept = completeness_table([*wanting, replace(case, incompleteness={"integrated_gradients": 0.01})])
    assert kept[["method", "median_delta", "worst_delta", "kept"]].to_numpy().tolist() == [
        ["deep_lift", 0.03, 0.2, "no"],
        ["integrated_gradients", 0.01, 0.01, "yes"],
    ]
    told = case_table([case])
    assert told[["windows", "persons", "transecg right", "not delineated", "unlabelled"]].to_numpy().tolist() == [
        [2, 2, 0.5, 1, 1]
    ]
    refused = refusal_table({f"c.cross_record.{model}.sex": "Nobody is known." for model in ("resnet1d", "transecg")})
    assert refused.to_numpy().tolist() == [["c", "cross_record", "sex", "Nobody is known."]]


def test_the_viewer_offers_the_beats_that_a_person_has(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[object] = []
    monkeypatch.setattr("ecgstudy.attribution.viewer.display", shown.append)
    wide = np.tile(case.windows, 4)
    relevance = {"last_attention": np.tile(case.relevance["last_attention"], 4)}
    longer = replace(case, windows=wide, relevance=relevance, peaks=[np.array([40.0, 150.0]), np.array([100.0])])
    person, method, beat = viewer(longer).children[0].children
    assert [label for label, _ in person.options] == ["person 1", "person 2"]  # numbered, not named
    assert [value for _, value in method.options] == ["last_attention"]
    assert (beat.max, len(shown)) == (2, 1)
    beat.value = 2
    assert len(shown) == 2
    person.value = "c/b"
    assert beat.max == beat.value == 1


def test_only_whole_beats_are_drawn(case: Case) -> None:
    beats, relevance = person_beats(case, "last_attention", "c/a")
    assert len(beats) == 0  # 0.3 s before and 0.5 s after R do not fit into 0.6 s
    assert relevance.shape == (0, 80)
