"""Where a single wave carries identity, taking that wave away ends recognition and taking any other does not."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecgstudy.attribution import causal
from ecgstudy.attribution.exchange import FACTORS, INTERVALS, exchanged, intervals_of, mean_average, person_averages
from ecgstudy.attribution.waves import WAVES, fiducial_points, fiducials_of_boundaries
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.errors import NotApplicableError
from ecgstudy.evaluate.bootstrap import Resamples
from ecgstudy.evaluate.protocols import CrossRecord
from ecgstudy.evaluate.splits import Split, with_cohort
from ecgstudy.experiment.attackers import Embedded, Fitted, TemplateAttacker
from ecgstudy.experiment.dataset import Dataset
from ecgstudy.experiment.jobs import Context, Outcome
from ecgstudy.signals.ingest import build_store


def planted(wave: str, folder: Path, persons: int = 10) -> tuple[Dataset, Split]:
    """Persons who differ in one wave only, its boundaries exact, with one record to enrol and one to probe."""
    cohort = SyntheticCohort(n_subjects=persons, n_sessions=1, n_records=2, seed=2, identity_wave=wave, noise=False)
    store = build_store(cohort, folder, delineate=False, workers=1)
    dataset = Dataset({"synthetic": store})
    for record in store.records["record_id"]:
        dataset._fiducials[f"synthetic/{record}"] = fiducials_of_boundaries(cohort.boundaries(record), 1.0, 0.0)
    return dataset, CrossRecord().splits(with_cohort("synthetic", store.records), store.fs, 0)[0]


@pytest.fixture(scope="module", params=["T", "QRS"])
def case(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, causal.Costs, Resamples]:
    """Costs of all factors, with the wave that carries identity."""
    dataset, split = planted(request.param, tmp_path_factory.mktemp(request.param))
    resamples = Resamples.draw(split.enrolment["subject_id"], 0, 50)
    return request.param, causal.factor_costs(TemplateAttacker(), split, dataset, resamples), resamples


class Recorder(Fitted):
    """An attacker that keeps what it reads."""

    def __init__(self) -> None:
        self.read: list[list[np.ndarray]] = []

    def embed(self, dataset: Dataset, segments: pd.DataFrame) -> Embedded:
        """Remember the segments' samples."""
        self.read.append([dataset.segment(row.record_id, row.start, row.stop) for row in segments.itertuples()])
        return Embedded(np.eye(len(segments)))


def test_averages_put_in_are_those_of_the_others_enrolment_or_of_the_own_probe(tmp_path: Path) -> None:
    dataset, split = planted("T", tmp_path, persons=3)
    recorder = Recorder()
    causal.factor_costs(recorder, split, dataset, Resamples.draw(split.probe["subject_id"], 0, 5))
    enrolled, probed, *changed = recorder.read

    def average(part: pd.DataFrame, values: list[np.ndarray], row: int) -> causal.Average:
        piece = part.iloc[row]
        points = dataset.fiducials(piece["record_id"], piece["start"], piece["stop"])
        return person_averages([("a", values[row][None], fiducial_points(points))])[0]["a"]

    piece, me = split.probe.iloc[0], split.probe["subject_id"].iloc[0]
    points = fiducial_points(dataset.fiducials(piece["record_id"], piece["start"], piece["stop"]))
    others = [row for row in range(3) if split.enrolment["subject_id"].iloc[row] != me]
    expected = (
        mean_average(average(split.enrolment, enrolled, row) for row in others),
        average(split.probe, probed, 0),
    )
    for number, goal in enumerate(expected):
        at = number * len(causal.TAKEN)
        waves = np.where((np.array(WAVES) == "T")[:, None], goal.waves, np.nan)
        spliced = exchanged(probed[0][None], points, dataset.fs, waves, np.zeros(4))[0]
        np.testing.assert_allclose(changed[at + list(causal.TAKEN).index("T")][0], spliced[0], atol=1e-5)
        # an interval is moved to its goal, and no wave's shape is exchanged
        moved = changed[at + list(causal.TAKEN).index("PR interval")][0]
        shift = goal.intervals - intervals_of(points)
        nothing = np.full_like(goal.waves, np.nan)
        only = exchanged(probed[0][None], points, dataset.fs, nothing, shift * [1, 0, 0, 0])[0]
        middle = np.arange(100, len(moved) - 100)
        np.testing.assert_allclose(moved[middle], only[0, middle], atol=0.02)
    assert len(changed) == 2 * len(causal.TAKEN)


def test_taking_the_planted_wave_costs_recognition_and_taking_others_does_not(
    case: tuple[str, causal.Costs, Resamples],
) -> None:
    wave, costs, _ = case
    table = causal.cost_table(costs).set_index("factor")
    assert table["as_recorded_rank1"].min() >= 0.6  # chance is one in ten
    assert table.loc[list(WAVES), "eer_cost"].idxmax() == wave
    assert table.loc[wave, "eer_cost"] > 0.03
    # neither intervals nor the own average cost anything; but a template looks for R peaks where they were before RR
    # intervals were changed
    assert table.loc[list(INTERVALS[:3]), "eer_cost"].abs().max() < 0.1
    assert (table["own_rank1"] - table["as_recorded_rank1"]).abs().max() <= 0.1
    assert table.loc["all waves", "rank1"] <= 0.2
    assert (table.loc[list(WAVES), "waves_a_beat"] > 0.9).all()
    assert np.isnan(table.loc["PR interval", "waves_a_beat"])
    still = np.arange(len(causal.TAKEN)) < len(WAVES)
    order = causal.order_table(replace(costs, others=np.where(still[:, None], costs.others, costs.own)))
    order = order.set_index("measure").loc["eer"]
    assert order["first"] == wave
    assert order["difference"] == pytest.approx(
        table["eer_cost"][[order["first"], order["second"]]].diff().abs().iloc[1]
    )


def test_costs_are_paired_differences_of_others_and_own_average(case: tuple[str, causal.Costs, Resamples]) -> None:
    _, costs, resamples = case
    table = causal.cost_table(costs)
    np.testing.assert_allclose(table["rank1_cost"], table["own_rank1"] - table["rank1"])
    np.testing.assert_allclose(table["eer_cost"], table["eer"] - table["own_eer"])
    assert costs.losses.shape == (1 + len(resamples.multiplicities), len(causal.TAKEN), 2)
    np.testing.assert_allclose(table["eer_low"], np.quantile(costs.others[1:, :, 1], 0.025, axis=0))
    np.testing.assert_allclose(table["rank1_cost_high"], np.quantile(costs.losses[1:, :, 0], 0.975, axis=0))
    assert table["factor"].tolist() == [*FACTORS, "all waves", "all intervals", "everything"]


def test_an_order_is_stated_with_its_test() -> None:
    drawn = np.array([1.0, 1.0, 0.0, 2.0])  # a quarter of the draws leave the person out who loses something
    others = np.zeros((4, len(causal.TAKEN), 2))
    others[:, FACTORS.index("T")] = drawn[:, None] * [-0.3, 0.2]
    others[:, FACTORS.index("RR interval")] = drawn[:, None] * [-0.1, 0.3]
    costs = causal.Costs(np.ones((4, 2)), others, np.zeros_like(others), 2, np.ones(6))
    found = causal.order_table(costs).set_index("measure")
    assert found.loc["rank1", ["first", "second"]].tolist() == ["T", "RR interval"]
    assert found.loc["eer", ["first", "second"]].tolist() == ["RR interval", "T"]
    assert found.loc["eer", "difference"] == pytest.approx(0.1)
    assert found.loc["eer", "difference_low"] == pytest.approx(0, abs=0.01)
    assert found.loc["eer", "p"] == 1.0
    # against the own average, not against the recording
    assert causal.cost_table(costs).set_index("factor").loc["T", "rank1_cost"] == pytest.approx(0.3)


def test_a_check_that_the_records_do_not_allow_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    refusals = pd.DataFrame({"reason": ["no record is left"]})
    monkeypatch.setattr(causal, "run", lambda *_: Outcome({}, refusals))
    with pytest.raises(NotApplicableError, match="no record is left"):
        causal.audit_costs(Context("demo", {}, "cpu", {}), [])
