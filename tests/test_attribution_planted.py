"""Planted truth: what is planted, where methods point, and when they are believed."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from joblib import parallel_config
from linear_model import LinearModel, linear_model

from ecgstudy.attribution import planted as plants
from ecgstudy.attribution.methods import applicable
from ecgstudy.attribution.waves import WAVES, Windows
from ecgstudy.errors import StudyError
from ecgstudy.experiment.jobs import Context, Outcome
from ecgstudy.learn.base import PERSON, SignalModel
from ecgstudy.learn.batches import Augmentation, WindowSet
from ecgstudy.learn.models import MODELS
from ecgstudy.learn.train import TrainingSettings
from ecgstudy.signals.delineation import FIDUCIAL_COLUMNS

SIZE = plants.Size(seeds=2, persons=4, records=3, held_out=2, epochs={})
P, QRS, TP = (WAVES.index(wave) for wave in ("P", "QRS", "TP"))


@pytest.fixture(autouse=True)
def _linear_model_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "linear", LinearModel)


@pytest.fixture(scope="module")
def people() -> tuple[WindowSet, Windows]:
    return plants.plant(plants.PlantedJob("P", 0, 5), SIZE)


def test_planted_windows_are_held_out_and_their_codes_are_the_simulators(people: tuple[WindowSet, Windows]) -> None:
    train, held = people
    assert held.samples.shape == (8, 1, 400)
    assert (len(train), held.seed) == (12, 5)
    assert np.bincount(held.targets).tolist() == [2, 2, 2, 2]
    training = train.samples[:, :, 200:600]
    assert not (training[None] == held.samples[:, None]).all(axis=(2, 3)).any()
    for codes, points in zip(held.codes, held.fiducials, strict=True):
        onset, offset = points[["p_onset", "p_offset"]].to_numpy().T
        samples = np.arange(400)[:, None]
        np.testing.assert_array_equal(codes == P, ((samples >= onset) & (samples < offset)).any(axis=1))


def test_persons_differ_in_the_planted_wave_only(people: tuple[WindowSet, Windows]) -> None:
    train, held = people
    # spread between persons' mean heights, in the P wave and in the rest between the beats
    for wave, largest in ((P, np.inf), (TP, 0.02)):
        height = np.array([w[0][c == wave].mean() for w, c in zip(held.samples, held.codes, strict=True)])
        spread = np.std([height[held.targets == person].mean() for person in range(4)])
        assert spread < largest
        assert wave == TP or spread > 0.1
    # R peaks of held-out records are alike; those of training records are scaled at random
    heights = [np.ptp(part.samples[:, 0], axis=1) for part in (held, train)]
    assert heights[0].std() / heights[0].mean() < 0.2 < heights[1].std() / heights[1].mean()


def test_every_cohort_seed_draws_other_persons(people: tuple[WindowSet, Windows]) -> None:
    again, other = (plants.plant(plants.PlantedJob("P", seed, 5), SIZE)[1] for seed in (0, 1))
    np.testing.assert_array_equal(again.samples, people[1].samples)
    assert (other.codes != again.codes).any()  # other hearts, not only other noise
    assert {name: size.seeds for name, size in plants.SIZES.items()} == {"demo": 2, "real": 5}


def test_permuted_labels_stay_with_records_and_keep_their_numbers() -> None:
    records = np.repeat([f"r{number}" for number in range(40)], 2)
    targets = np.repeat(np.arange(40) % 4, 2)
    train = WindowSet(np.zeros((80, 1, 5), dtype=np.float32), {PERSON: targets}, records, records)
    dealt = plants.permuted_labels(train, PERSON, 3).targets[PERSON]
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
    found = plants.localise(relevances, codes, "P", margin=0)
    assert list(found) == list(plants.MEASURES)
    np.testing.assert_allclose(found["mass_in_wave"], [1, 0.25, 0.25, 0, np.nan])
    np.testing.assert_allclose(found["enrichment"], [4, 1, 1, 0, np.nan])
    np.testing.assert_allclose(found["pointing"], [1, 0, 0.25, 0, np.nan])
    np.testing.assert_allclose(found["highest"], [1, 0, 0, 0, np.nan])
    assert found["rank"][:2].tolist() == [1, 2]
    with_margin = plants.localise(relevances, codes, "P", margin=1)
    np.testing.assert_allclose(with_margin["mass_in_wave"], [1, 0.75, 0.375, 1, np.nan])
    np.testing.assert_allclose(with_margin["pointing"][[1, 3]], [1, 1])
    np.testing.assert_allclose(with_margin["enrichment"], found["enrichment"])


def hand_planted() -> Windows:
    """Twelve windows of two persons whose P wave is up or down, among unrelated large QRS complexes."""
    rng = np.random.default_rng(0)
    codes = np.tile(np.repeat([P, WAVES.index("PR"), QRS, TP], [10, 5, 10, 75]).astype(np.int8), (12, 1))
    targets = np.arange(12) % 2
    windows = rng.normal(0, 0.1, (12, 100)) + 5 * (codes == QRS) * rng.uniform(0.5, 1, (12, 1))
    windows += (codes == P) * np.where(targets == 0, 1, -1)[:, None]
    persons = np.array(["a", "b"])[targets]
    points = pd.DataFrame([[0, 5, 10, 15, 20, 25, np.nan, np.nan, np.nan]], columns=list(FIDUCIAL_COLUMNS))
    samples = windows[:, None].astype(np.float32)
    return Windows(samples, targets, 100.0, 0, codes, persons, np.fromiter([points] * 12, dtype=object))


def audited(weights: np.ndarray, cohort_seed: int = 0) -> pd.DataFrame:
    """Rows of a network whose logit of one person is a weighted sum."""
    return plants.audit_network(hand_planted(), plants.PlantedJob("P", cohort_seed, 0), linear_model(weights))


READS_P = (hand_planted().codes[0] == P).astype(float)
NOT_FOUND = np.r_[np.zeros(99), 1.0]


def test_audit_of_a_network_that_reads_the_planted_wave_alone() -> None:
    audit = audited(READS_P)
    assert audit["right"].all()
    table = plants.planted_table(audit, 0).set_index("method")
    told = ["saliency", "input_x_gradient", "gradients_from_mean_beat", "wave_replacement"]
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


def test_only_windows_that_the_network_names_are_explained() -> None:
    windows = hand_planted()
    windows.samples[0] *= -1  # as of the other person
    audit = plants.audit_network(windows, plants.PlantedJob("P", 0, 0), linear_model(READS_P))
    assert audit.loc[audit["method"] == "saliency", "right"].tolist() == [False] + [True] * 11
    row = plants.planted_table(audit, 0).set_index("method").loc["saliency"]
    assert row[["windows", "persons", "accuracy"]].tolist() == [11, 2, 11 / 12]


def test_a_network_that_has_not_found_the_cue_is_not_explained() -> None:
    table = plants.planted_table(audited(NOT_FOUND), 0).set_index("method")
    assert table.loc["saliency", "accuracy"] < plants.least_accuracy(2) == 0.75
    assert "has not found the cue" in table.loc["saliency", "reason"]
    assert table["mass_in_wave"].isna().all()
    assert (table["seeds"] == 0).all()


def test_cohorts_are_pooled_by_their_persons_and_those_without_the_cue_left_out() -> None:
    rows = pd.concat([audited(READS_P), audited(READS_P, 1), audited(NOT_FOUND, 2)], ignore_index=True)
    # in the second cohort half of the mass of person a lies elsewhere; the logit of person b depends on nothing
    rows.loc[(rows["person"] == "1/a") & (rows["method"] == "saliency"), "mass_in_wave"] = 0.5
    row = plants.planted_table(rows, 0).set_index("method").loc["saliency"]
    assert row["mass_in_wave"] == pytest.approx((1 + 0.5) / 2)
    assert row[["seeds", "persons", "windows"]].tolist() == [2, 4, 24]
    assert row["mass_in_wave_low"] < row["mass_in_wave"] <= row["mass_in_wave_high"] == 1
    assert row["accuracy"] == pytest.approx(rows["right"].mean())


def test_planted_persons_are_learnt_with_noise_and_no_random_gain(
    people: tuple[WindowSet, Windows], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, seen = Context("demo", {}, "cpu", {}), []
    monkeypatch.setattr(plants, "fit", lambda *given: seen.append(given) or SimpleNamespace(model=None))
    plants.train_planted(context, people[0], "transecg", plants.SIZES["demo"], 5)
    ((model, train, validation, settings, *_),) = seen
    assert (train, validation, model.hparams.learning_rate) == (people[0], None, plants.RATES["transecg"])
    assert settings == TrainingSettings(14, 32, 5, Augmentation(gain=0.0, noise=0.05, wander=0.0))


def test_the_plan_audits_every_wave_and_cohort_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []

    def train(context: Context, windows: WindowSet, name: str, size: plants.Size, seed: int) -> SignalModel:
        trained.append((name, bool((windows.targets[PERSON] == np.repeat([0, 1], 3)).all())))
        model = linear_model(np.random.default_rng(len(trained)).normal(size=400))
        model.hparams.classes = {PERSON: sorted(set(windows.subjects))}
        return model

    monkeypatch.setattr("ecgstudy.attribution.planted.train_planted", train)
    named = np.repeat(np.eye(2), 3, axis=0)
    monkeypatch.setattr("ecgstudy.attribution.planted.class_probabilities", lambda *_: named)
    monkeypatch.setitem(plants.SIZES, "demo", plants.Size(2, 2, 3, 3, {}))
    context = Context("demo", {}, "cpu", {}, cache=tmp_path)
    with parallel_config(backend="sequential"):
        truth, outcome = plants.audit_planted(context, 0)
    # two networks a wave and cohort, and two of permuted labels
    assert len(trained) == 2 * 3 * 2 + 2
    assert [shuffled for _, shuffled in trained].count(False) == 2
    assert truth["planted"].groupby("wave")["seeds"].max().to_dict() == {"P": 2, "QRS": 2, "T": 2}
    assert truth["by_seed"].groupby("cohort_seed").size().tolist() == [len(truth["planted"])] * 2
    assert (truth["by_seed"]["seeds"] == 1).all()
    permuted = truth["permuted"].dropna().set_index("method")["permuted"]
    # the same relevance for all samples has no rank correlation
    assert set(permuted.index) == {method.name for method in applicable(linear_model(np.ones(400)))} - {"uniform"}
    assert permuted["magnitude"] == 1
    assert outcome.commits
    monkeypatch.setattr("ecgstudy.attribution.planted.class_probabilities", lambda *_: 1 / 0)
    with parallel_config(backend="sequential"):
        assert plants.audit_planted(context, 0)[0]["planted"].equals(truth["planted"])  # remembered
    refusals = pd.DataFrame({"reason": ["The disk is full."]})
    monkeypatch.setattr("ecgstudy.attribution.planted.run", lambda *_: Outcome({}, refusals))
    with pytest.raises(StudyError, match="disk is full"):
        plants.audit_planted(context, 0)
