"""Planted truth: what is planted, what is exact, and when a method is believed."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from joblib import parallel_config
from linear_model import LinearModel, linear_model

from ecgstudy.attribution import planted as plants
from ecgstudy.attribution.exchange import DONOR, EVERYBODY, FACTORS, OWN_TIMING, Windows, intervals_of
from ecgstudy.attribution.methods import METHODS, NONE, PAIRS, UNTRAINED, ZERO, Answers, Question, controls_of
from ecgstudy.attribution.planted import CUES, Audit, Cue
from ecgstudy.attribution.waves import WAVES, fiducial_points
from ecgstudy.errors import StudyError
from ecgstudy.experiment.jobs import Context, Outcome
from ecgstudy.learn.base import PERSON, SignalModel
from ecgstudy.learn.batches import Augmentation, WindowSet
from ecgstudy.learn.models import MODELS
from ecgstudy.learn.train import TrainingSettings

SIZE = plants.Size(tuple(CUES), cohorts=2, records=3, held_out=2, networks={})
Planted = tuple[WindowSet, Windows, np.ndarray]


@pytest.fixture(autouse=True)
def _linear_model_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MODELS, "linear", LinearModel)


@pytest.fixture(scope="module")
def people() -> dict[str, Planted]:
    """Persons of every cue."""
    return {name: plants.plant(cue, plants.PlantedJob(name, 0, 5), SIZE) for name, cue in CUES.items()}


def test_planted_windows_are_held_out_and_their_codes_are_the_simulators(people: dict[str, Planted]) -> None:
    train, held, _ = people["P"]
    assert held.samples.shape == (8, 1, 400)
    assert (len(train), held.seed, train.samples.shape[-1]) == (12, 5, 800)
    assert np.bincount(held.targets).tolist() == [2, 2, 2, 2]
    np.testing.assert_array_equal(held.around[..., 200:600], held.samples)
    for codes, points in zip(held.codes, held.fiducials, strict=True):
        onset, offset = points[["p_onset", "p_offset"]].to_numpy().T
        samples = np.arange(400)[:, None]
        np.testing.assert_array_equal(codes == 0, ((samples >= onset) & (samples < offset)).any(axis=1))


@pytest.mark.parametrize("name", ["P", "QRS", "T", "P+T", "ST", "amplitude"])
def test_a_record_without_the_cue_differs_in_its_waves_alone(people: dict[str, Planted], name: str) -> None:
    _, held, without = people[name]
    apart = np.abs(held.samples - without)[:, 0]
    waves = {"ST": ("QRS", "ST", "T"), "amplitude": ("P", "QRS", "ST", "T")}.get(name, CUES[name].waves)
    inside = np.isin(held.codes, [WAVES.index(wave) for wave in waves])
    known = held.codes >= 0
    assert apart[known & ~inside].max() < 0.02 * apart.max()
    assert apart.max() > 0.2
    # the same records without the cue are those of one person
    spread = np.std([without[held.targets == person].mean() for person in range(4)])
    assert spread < 0.1


@pytest.mark.parametrize(("name", "at"), [("PR", 0), ("QT", 2), ("RR", 3)])
def test_an_interval_is_planted_and_shapes_are_left_alone(people: dict[str, Planted], name: str, at: int) -> None:
    _, held, without = people[name]
    found = np.stack([intervals_of(fiducial_points(points)) for points in held.fiducials])
    by_person = pd.DataFrame(found).groupby(held.targets).mean()
    spread = by_person.max() - by_person.min()
    assert spread[at] > 5  # 50 ms
    others = [other for other in (0, 1, 2) if other != at]
    assert spread[others].max() < 2
    assert np.abs(held.samples - without).max() > 0.5
    # heights of the beats do not tell persons apart
    heights = pd.Series(held.samples.max(axis=(1, 2))).groupby(held.targets).mean()
    assert heights.max() / heights.min() < 1.15


def test_training_records_have_other_heights_where_the_cue_is_not(people: dict[str, Planted]) -> None:
    train, held, _ = people["P"]
    heights = [np.ptp(part.samples[:, 0], axis=1) for part in (held, train)]
    assert heights[0].std() / heights[0].mean() < 0.2 < heights[1].std() / heights[1].mean()
    # where the cue is the height, one person's records are those of another times a factor
    heights = [np.ptp(people[name][0].samples[:, 0], axis=1).reshape(4, 3) for name in ("amplitude", "PR")]
    apart = [(of_person / of_person[0])[1:] for of_person in heights]
    assert (apart[0].std(axis=1) / apart[0].mean(axis=1)).max() < 0.06 < np.ptp(apart[0].mean(axis=1))
    assert (apart[1].std(axis=1) / apart[1].mean(axis=1)).max() > 0.2


def test_every_cohort_seed_draws_other_persons(people: dict[str, Planted]) -> None:
    again, other = (plants.plant(CUES["P"], plants.PlantedJob("P", seed, 5), SIZE)[1] for seed in (0, 1))
    np.testing.assert_array_equal(again.samples, people["P"][1].samples)
    assert (other.codes != again.codes).any()


def question(people: dict[str, Planted], name: str, weights: np.ndarray) -> tuple[Question, np.ndarray]:
    """Ask a network of two classes whose contrast is a weighted sum of the samples, about persons of one cue."""
    _, held, without = people[name]
    return Question(linear_model(weights), PERSON, replace(held, targets=held.targets % 2)), without


def test_exact_effects_of_a_linear_network_are_its_weights_times_what_the_cue_changes(
    people: dict[str, Planted],
) -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=400)
    for name in ("P+T", "amplitude"):
        asked, without = question(people, name, weights)
        found = plants.exact_effects(asked, without, CUES[name])
        sign = np.where(asked.windows.targets == 0, 1, -1)[:, None]
        change = sign * weights * (asked.windows.samples - without)[:, 0]
        for at, wave in enumerate(WAVES):
            if wave in ("P", "QRS", "T") and wave in CUES[name].waves:
                expected = np.where(asked.windows.codes == at, change, 0).sum(axis=1)
                np.testing.assert_allclose(found[:, at], expected, atol=1e-3)
        assert (found[:, len(WAVES) :] == 0).all()
    asked, without = question(people, "PR", weights)
    found = plants.exact_effects(asked, without, CUES["PR"])
    whole = asked.scores(asked.windows.samples) - asked.scores(without)
    np.testing.assert_allclose(found[:, FACTORS.index("PR interval")], whole)
    assert np.abs(found).sum() == pytest.approx(np.abs(whole).sum())


def test_the_waves_of_a_cue_reach_into_their_neighbours() -> None:
    codes = np.array([[5, 5, 5, 0, 0, 1, 1, 1, 2]])  # 20 ms are two samples
    windows = Windows(np.zeros((1, 1, 9)), np.zeros(1, dtype=int), 100.0, 0, codes=codes)
    np.testing.assert_array_equal(plants.widened(windows, CUES["P"]).codes, [[5, 0, 0, 0, 0, 0, 0, 1, 2]])
    np.testing.assert_array_equal(plants.widened(windows, CUES["PR"]).codes, codes)
    # not into each other
    np.testing.assert_array_equal(plants.widened(windows, Cue(("P", "PR"))).codes, [[5, 0, 0, 0, 0, 1, 1, 1, 1]])


def test_the_exact_effect_is_the_mean_of_what_goes_with_a_wave_first_and_last(
    people: dict[str, Planted], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, held, without = people["P+T"]
    at = {wave: held.codes == WAVES.index(wave) for wave in ("P", "T")}

    def scores(_: Question, samples: np.ndarray) -> np.ndarray:
        own = [(samples[:, 0][at[wave]] == held.samples[:, 0][at[wave]]).all() for wave in ("P", "T")]
        return np.full(len(held), {(True, True): 10.0, (False, True): 7.0, (True, False): 2.0}.get(tuple(own), 1.0))

    monkeypatch.setattr(Question, "scores", scores)
    found = plants.exact_effects(Question(linear_model(np.zeros(400)), PERSON, held), without, CUES["P+T"])
    np.testing.assert_allclose(found[:, WAVES.index("P")], ((10 - 7) + (2 - 1)) / 2)
    np.testing.assert_allclose(found[:, WAVES.index("T")], ((10 - 2) + (7 - 1)) / 2)
    assert np.count_nonzero(found[0]) == 2


def audit(cue: str, shares: dict[str, float], others: dict[str, float] | None = None, **changed: object) -> Audit:
    """Four persons to whom one method gives the effects `shares`, everything else `others`, where P is the truth."""
    persons = np.repeat([f"{changed.pop('cohort', 0)}/{name}" for name in "abcd"], 2)
    truth = changed.pop("truth", {"P": 1.0} if not CUES[cue].interval else {CUES[cue].interval: 1.0})

    def rows(of: dict[str, float]) -> np.ndarray:
        rng = np.random.default_rng(0)
        return np.tile([of.get(factor, 0.0) for factor in FACTORS], (8, 1)) * rng.uniform(0.9, 1.1, (8, 1))

    answers = Answers()
    for method, baseline in PAIRS:
        answers.effects[method.name, baseline, ""] = rows(others or {"QRS": 1.0})
        answers.effects[method.name, baseline, UNTRAINED] = rows(others or {"QRS": 1.0})
    answers.effects["replacement", DONOR, ""] = rows(shares)
    answers.removed.update({name: np.array([[0.7] * 8, [0.0] * 8]) for name in (ZERO, OWN_TIMING, EVERYBODY, DONOR)})
    for key, value in changed.pop("removed", {}).items():
        answers.removed[key] = value
    right = changed.pop("right", np.ones(8, dtype=bool))
    return Audit(cue, "resnet1d", persons, right, rows(truth), answers)


def row_of(table: pd.DataFrame, method: str = "replacement", baseline: str = DONOR) -> pd.Series:
    """Row of one method and baseline."""
    return table[(table["method"] == method) & (table["baseline"] == baseline)].iloc[0]


def test_mass_in_the_cue_is_what_coincides_with_the_exact_shares() -> None:
    truth = {"P": 3.0, "T": 1.0}
    row = row_of(plants.planted_table([audit("P+T", {"P": 1.0, "T": 1.0}, truth=truth)], 0))
    assert row["mass_in_cue"] == pytest.approx(0.75)
    assert row["reason"] is None
    row = row_of(plants.planted_table([audit("P", {"P": 0.9, "RR interval": 0.1})], 0))
    assert row["mass_in_cue"] == pytest.approx(0.9)
    assert row["in_intervals"] == pytest.approx(0.1)
    assert row["margin_over_control"] == pytest.approx(0.9)
    assert row["margin_over_control_low"] > 0.8
    assert row[["persons", "windows", "cohorts"]].tolist() == [4, 8, 1]


def test_the_margin_is_over_the_highest_control() -> None:
    found = audit("P", {"P": 0.9, "QRS": 0.1})
    near = audit("P", {"P": 0.9, "QRS": 0.1}, {"P": 0.7, "QRS": 0.3})
    for key in controls_of(METHODS["replacement"], DONOR):
        mixed = audit("P", {"P": 0.9, "QRS": 0.1})
        mixed.answers.effects[key] = near.answers.effects[key]
        row = row_of(plants.planted_table([mixed], 0))
        assert row["margin_over_control"] == pytest.approx(0.2)
    assert row_of(plants.planted_table([found], 0))["margin_over_control"] == pytest.approx(0.9)


def test_a_baseline_that_leaves_the_evidence_is_refused() -> None:
    kept = {DONOR: np.array([[0.7] * 8, [0.5] * 8])}
    row = row_of(plants.planted_table([audit("PR", {"PR interval": 1.0}, removed=kept)], 0))
    assert row["evidence_removed"] == pytest.approx(2 / 7)
    assert row["reason"] == "the baseline removes 29% of the evidence only"
    assert np.isnan(row["mass_in_cue"])
    assert row_of(plants.planted_table([audit("PR", {"PR interval": 1.0})], 0), "saliency", NONE)["reason"] is None


def test_windows_that_the_network_gets_wrong_and_cohorts_without_the_cue_are_not_explained() -> None:
    wrong = audit("P", {"P": 1.0}, right=np.arange(8) > 0)
    wrong.answers.effects["replacement", DONOR, ""][0] = np.eye(len(FACTORS))[2] * 1e6
    lost = audit("P", {"P": 1.0}, cohort=1, right=np.arange(8) < 4)
    assert wrong.found
    assert not lost.found  # half is below 5/8
    row = row_of(plants.planted_table([wrong, lost], 0))
    assert row["mass_in_cue"] == pytest.approx(1.0)
    assert row[["persons", "windows", "cohorts", "accuracy"]].tolist() == [4, 7, 1, 11 / 16]
    row = row_of(plants.planted_table([lost], 0))
    assert row["reason"] == "resnet1d has not found the cue: it names 50% of the windows"


def judge(*audits: Audit) -> pd.DataFrame:
    """Verdicts on replacement from a donor, by kind."""
    found = plants.verdicts(plants.planted_table(list(audits), 0))
    return found[(found["method"] == "replacement") & (found["baseline"] == DONOR)].set_index("kind")


def test_trust_asks_for_mass_margin_and_silence_elsewhere() -> None:
    shape, timing = audit("P", {"P": 1.0}), audit("PR", {"PR interval": 1.0})
    found = judge(shape, timing)
    assert found["trusted"].tolist() == [True, True]
    assert found["reason"].isna().all()
    little = judge(audit("P", {"P": 0.7, "T": 0.3}), timing)
    assert not little.loc["shape", "trusted"]
    assert little.loc["shape", "near"]
    assert little.loc["shape", "reason"] == "P: mass 0.70"
    # what one method may be trusted for does not depend on the other kind, but for strays
    assert little.loc["timing", "trusted"]
    stray = judge(audit("P", {"P": 0.85, "RR interval": 0.15}), timing)
    assert stray["trusted"].to_dict() == {"shape": True, "timing": False}
    assert stray.loc["timing", "reason"] == "P: 0.15 in intervals"
    alike = judge(audit("P", {"P": 0.9, "QRS": 0.1}, {"P": 0.9, "QRS": 0.1}))
    assert alike.loc["shape", "reason"] == "P: no better than a control"
    assert not alike.loc["shape", "near"]
    every = judge(shape, audit("T", {"P": 1.0}, truth={"T": 1.0}))
    assert not every.loc["shape", "trusted"]


def test_the_method_that_speaks_is_trusted_for_both_kinds_where_one_is_and_removes_most() -> None:
    def trusted(*rows: tuple[str, str, str]) -> list[tuple[str, str]]:
        columns = ["method", "baseline", "kind"]
        table = pd.DataFrame(rows, columns=columns).assign(model="resnet1d", trusted=True)
        other = table.assign(trusted=False, method="saliency", baseline=NONE)
        assert plants.trusted_methods(table, "transecg") == []
        return plants.trusted_methods(pd.concat([other, table]), "resnet1d")

    shapes = [("integrated_gradients", ZERO, plants.SHAPE), ("occlusion", DONOR, plants.SHAPE)]
    both = [("shapley", EVERYBODY, kind) for kind in (plants.SHAPE, plants.TIMING)]
    assert trusted(*shapes, *both) == [("shapley", EVERYBODY), ("occlusion", DONOR), ("integrated_gradients", ZERO)]
    assert trusted(("shapley", DONOR, plants.TIMING)) == []


def test_methods_that_know_no_intervals_are_not_judged_on_timing() -> None:
    found = plants.verdicts(plants.planted_table([audit("PR", {"PR interval": 1.0})], 0))
    assert set(found["method"]) == {"replacement", "shapley", "path_gradients"}
    found = plants.verdicts(plants.planted_table([audit("P", {"P": 1.0})], 0))
    assert not set(found["method"]) & {"magnitude", "deviation", "factor_deviation"}


def test_planted_persons_are_learnt_with_noise_and_no_random_gain(
    people: dict[str, Planted], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, size = [], replace(SIZE, networks={"transecg": (30, {}), plants.FINE: (20, {"n_layers": 2})})
    monkeypatch.setitem(plants.SIZES, "demo", size)
    monkeypatch.setattr(plants, "fit", lambda *given: seen.append(given) or SimpleNamespace(model=given[0].eval()))
    audits = plants.audit_cohort(Context("demo", {}, "cpu", {}), plants.PlantedJob("P", 0, 5))
    assert [(found.model, found.answers.effects) for found in audits] == [("transecg", {}), (plants.FINE, {})]
    (model, train, validation, settings, *_), (fine, *_) = seen
    np.testing.assert_array_equal(train.samples, people["P"][0].samples)
    assert (validation, model.hparams.learning_rate, model.hparams.n_samples) == (None, 3e-3, 400)
    assert settings == TrainingSettings(30, 32, 5, Augmentation(gain=0.0, noise=0.05, wander=0.0))
    assert (model.patch_samples, fine.patch_samples) == (10, 4)
    assert (len(model.blocks), len(fine.blocks)) == (4, 2)


def test_the_plan_audits_every_cue_and_cohort_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = []

    def train(
        _: Context, name: str, windows: WindowSet, settings: TrainingSettings, *_fs: float, **_shape: object
    ) -> SignalModel:
        trained.append((name, settings.seed))
        model = linear_model(np.random.default_rng(len(trained)).normal(size=400))
        model.hparams.classes = {PERSON: sorted(set(windows.subjects))}
        return model

    monkeypatch.setattr(plants, "trained", train)
    monkeypatch.setattr(plants, "exact_effects", lambda question, *_: np.zeros((len(question.windows), len(FACTORS))))
    monkeypatch.setattr(plants, "ask", lambda *_: pytest.fail("nobody is found"))
    monkeypatch.setattr(Question, "probabilities", lambda self, _: np.tile([0.1, 0.9, 0, 0], (len(self.windows), 1)))
    networks = ("resnet1d", "transecg")
    monkeypatch.setitem(plants.SIZES, "demo", plants.Size(("P", "PR"), 2, 3, 2, dict.fromkeys(networks, (1, {}))))
    context = Context("demo", {}, "cpu", {}, cache=tmp_path)
    with parallel_config(backend="sequential"):
        truth, outcome = plants.audit_planted(context, 7)
    # networks and cohorts have seeds of their own
    assert [seed for _, seed in trained] == [7] * 2 + [8] * 2 + [7] * 2 + [8] * 2
    assert set(zip(truth["cue"], truth["model"], strict=True)) == {(c, n) for c in ("P", "PR") for n in networks}
    assert outcome.commits
    refusals = pd.DataFrame({"reason": ["The disk is full."]})
    monkeypatch.setattr(plants, "run", lambda *_: Outcome({}, refusals))
    with pytest.raises(StudyError, match="disk is full"):
        plants.audit_planted(context, 7)


def test_a_cue_of_ones_own_is_planted_like_the_others() -> None:
    cue = Cue(interval="QRS duration", field="qrs", spread=0.02)
    _, held, without = plants.plant(cue, plants.PlantedJob("QRS duration", 0, 0), SIZE)
    found = [intervals_of(fiducial_points(points))[1] for points in held.fiducials]
    assert np.ptp(pd.Series(found).groupby(held.targets).mean()) > 3
    assert np.abs(held.samples - without).max() > 0.2
