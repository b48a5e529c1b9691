"""Planted truth: what is planted, where methods point, and when they are believed."""

import numpy as np
import pandas as pd
import pytest
from linear_model import linear_model

from ecgstudy.attribution.clustered import clustered_means, rank_correlation
from ecgstudy.attribution.localisation import audit_network, least_accuracy, localise
from ecgstudy.attribution.methods import METHODS
from ecgstudy.attribution.planted import Planted, Size, permuted_labels, plant, recognised
from ecgstudy.attribution.scoreboard import scoreboard, trusted_methods, verdicts
from ecgstudy.attribution.waves import WAVES
from ecgstudy.evaluate.bootstrap import Resamples
from ecgstudy.learn.base import PERSON
from ecgstudy.learn.batches import WindowSet
from ecgstudy.signals.delineation import FIDUCIAL_COLUMNS

P, QRS, TP = (WAVES.index(wave) for wave in ("P", "QRS", "TP"))


@pytest.fixture(scope="module")
def people() -> Planted:
    return plant("P", Size(persons=4, records=3, held_out=2, epochs={}))


def test_planted_windows_are_held_out_and_their_codes_are_the_simulators(people: Planted) -> None:
    assert people.windows.shape == (8, 1, 400)
    assert len(people.train) == 12
    assert np.bincount(people.targets).tolist() == [2, 2, 2, 2]
    training = people.train.samples[:, :, 200:600]
    assert not (training[None] == people.windows[:, None]).all(axis=(2, 3)).any()
    for codes, points in zip(people.codes, people.fiducials, strict=True):
        onset, offset = points[["p_onset", "p_offset"]].to_numpy().T
        samples = np.arange(400)[:, None]
        np.testing.assert_array_equal(codes == P, ((samples >= onset) & (samples < offset)).any(axis=1))


def test_persons_differ_in_the_planted_wave_only(people: Planted) -> None:
    # spread between persons' mean heights, in the P wave and in the rest between the beats
    for wave, largest in ((P, np.inf), (TP, 0.02)):
        height = np.array([w[0][c == wave].mean() for w, c in zip(people.windows, people.codes, strict=True)])
        spread = np.std([height[people.targets == person].mean() for person in range(4)])
        assert spread < largest
        assert wave == TP or spread > 0.1


def test_permuted_labels_stay_with_records_and_keep_their_numbers() -> None:
    records = np.repeat([f"r{number}" for number in range(40)], 2)
    targets = np.repeat(np.arange(40) % 4, 2)
    train = WindowSet(np.zeros((80, 1, 5), dtype=np.float32), {PERSON: targets}, records, records)
    dealt = permuted_labels(train, PERSON, 3).targets[PERSON]
    np.testing.assert_array_equal(dealt[::2], dealt[1::2])
    assert np.bincount(dealt).tolist() == [20, 20, 20, 20]
    assert (dealt == targets).mean() < 0.6


def test_localise_by_hand() -> None:
    codes = np.array([[P, P, QRS, QRS, TP, TP, TP, TP]] * 5, dtype=np.int8)
    relevances = np.array(
        [
            [3, 1, 0, 0, 0, 0, 0, 0],  # all in P
            [1, 1, 4, 0, 1, 1, 0, 0],  # a quarter in P, half in QRS
            [1, 1, 1, 1, 1, 1, 1, 1],  # everywhere
            [0, 0, 5, 0, 0, 0, 0, 0],  # beside P
            [np.nan] * 8,
        ]
    )
    found = localise(relevances, codes, "P", margin=0)
    np.testing.assert_allclose(found["mass_in_wave"], [1, 0.25, 0.25, 0, np.nan])
    np.testing.assert_allclose(found["enrichment"], [4, 1, 1, 0, np.nan])
    np.testing.assert_allclose(found["pointing"], [1, 0, 0.25, 0, np.nan])
    np.testing.assert_allclose(found["highest"], [1, 0, 0, 0, np.nan])
    assert found["rank"][:2].tolist() == [1, 2]
    with_margin = localise(relevances, codes, "P", margin=1)
    np.testing.assert_allclose(with_margin["mass_in_wave"], [1, 0.75, 0.375, 1, np.nan])
    np.testing.assert_allclose(with_margin["pointing"][[1, 3]], [1, 1])
    np.testing.assert_allclose(with_margin["enrichment"], found["enrichment"])


def _hand_planted() -> Planted:
    """Twelve windows of two persons whose P wave is up or down, among unrelated large QRS complexes."""
    rng = np.random.default_rng(0)
    codes = np.tile(np.repeat([P, WAVES.index("PR"), QRS, TP], [10, 5, 10, 75]).astype(np.int8), (12, 1))
    targets = np.arange(12) % 2
    windows = rng.normal(0, 0.1, (12, 100)) + 5 * (codes == QRS) * rng.uniform(0.5, 1, (12, 1))
    windows += (codes == P) * np.where(targets == 0, 1, -1)[:, None]
    persons = np.array(["a", "b"])[targets]
    points = pd.DataFrame([[0, 5, 10, 15, 20, 25, np.nan, np.nan, np.nan]], columns=list(FIDUCIAL_COLUMNS))
    train = WindowSet(windows[:, None].astype(np.float32), {PERSON: targets}, persons, persons)
    return Planted("P", train, train.samples, targets.astype(np.int64), persons, codes, [points] * 12)


def test_audit_of_a_network_that_reads_the_planted_wave_alone() -> None:
    people = _hand_planted()
    model = linear_model((people.codes[0] == P).astype(float))
    assert recognised(model, people).all()
    resamples = Resamples.draw(people.persons, 0, 20)
    told = ["saliency", "input_x_gradient", "gradients_from_mean_beat", "wave_replacement"]
    names = (*told, "random", "magnitude", "uniform", "attention_rollout")
    table = audit_network(people, model, [METHODS[name] for name in names], resamples, 0).set_index("method")
    assert (table.loc[told, ["mass_in_wave", "pointing", "highest", "rank"]] == 1).all(None)
    np.testing.assert_allclose(table.loc["saliency", "enrichment"], 10, rtol=1e-6)
    # P and the margin of two samples after it
    np.testing.assert_allclose(table.loc["uniform", "mass_in_wave"], 0.12, rtol=1e-6)
    np.testing.assert_allclose(table.loc["random", "mass_in_wave"], 0.12, atol=0.03)
    assert table.loc["magnitude", "mass_in_wave"] < 0.25
    assert table.loc["magnitude", "pointing"] == 0
    assert not table.loc["attention_rollout", "applies"]
    assert "attention weights" in table.loc["attention_rollout", "reason"]
    assert np.isnan(table.loc["attention_rollout", "mass_in_wave"])


def test_a_network_that_has_not_found_the_cue_is_not_explained() -> None:
    people = _hand_planted()
    model = linear_model(np.r_[np.zeros(99), 1.0])
    table = audit_network(people, model, [METHODS["saliency"]], Resamples.draw(people.persons, 0, 20), 0)
    assert table["accuracy"][0] < least_accuracy(2) == 0.75
    assert "has not found the cue" in table["reason"][0]
    assert table["mass_in_wave"].isna().all()


def test_clustered_means_by_hand() -> None:
    persons = np.array(["a", "a", "a", "b", "c"])
    values = {"x": np.array([0, 1, np.nan, 2.5, np.nan]), "none": np.full(5, np.nan)}
    found = clustered_means(values, persons, Resamples.draw(persons, 1, 200), "nothing there")
    assert found["x"].value == 1.5  # (0.5 + 2.5) / 2: a person without a number has no part
    assert (found["x"].low, found["x"].high) == (0.5, 2.5)
    assert np.isnan(found["none"].value)
    assert found["none"].reason == "nothing there"


def test_rank_correlation_is_spearmans() -> None:
    first = np.array([[1.0, 2, 3, 4, 5], [1, 2, 3, 4, 5], [1, 1, 1, 1, 1], [1, 2, 3, 4, np.nan], [1, 2, 2, 4, 5]])
    second = np.array([[2.0, 4, 6, 8, 9], [9, 8, 6, 4, 2], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5], [1, 2, 3, 4, 5]])
    # ranks 1, 2.5, 2.5, 4, 5 against 1 to 5: covariance sum 9.5, squares 9.5 and 10
    np.testing.assert_allclose(rank_correlation(first, second), [1, -1, np.nan, np.nan, np.sqrt(0.95)])


def _row(wave: str, model: str, method: str, mass: float, highest: float, reason: str | None = None) -> dict:
    numbers = {"mass_in_wave": mass, "highest": highest, "pointing": highest}
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
    assert found.loc[("magnitude", "resnet1d"), "passes"]
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
    methods = ("attention_rollout", "saliency", "occlusion", "grad_cam", "magnitude")
    board = scoreboard(_planted_table(), sanity, gaps, {"saliency": 0.5}, methods)
    assert board["method"].tolist() == list(methods)
    assert trusted_methods(board) == ["attention_rollout", "saliency"]
    board = board.set_index("method")
    assert board["model"].to_dict() == dict(
        zip(methods, ("transecg", *["resnet1d"] * 2, None, "resnet1d"), strict=True)
    )
    row = board.loc["saliency"]
    numbers = row[["randomised_correlation", "permuted", "deletion_gap", "insertion_gap", "causal"]].astype(float)
    assert numbers.tolist() == [0.1, 0.2, 0.2, 0.1, 0.5]
    assert row["elsewhere"].startswith("transecg: T: transecg has not found")
    assert "needs attention weights" in board.loc["attention_rollout", "elsewhere"]
    assert board.loc["grad_cam", "reason"] == "not audited"
    assert np.isnan(board.loc["occlusion", "causal"])
