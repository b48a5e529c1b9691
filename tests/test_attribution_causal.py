"""Where a single wave carries identity, taking that wave away ends recognition and taking any other does not."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ecgstudy.attribution import causal
from ecgstudy.attribution.waves import WAVES, fiducials_of_boundaries, person_averages, splice, wave_spans
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.evaluate.bootstrap import Estimate, Resamples
from ecgstudy.evaluate.protocols import CrossRecord
from ecgstudy.evaluate.splits import Split, with_cohort
from ecgstudy.experiment.attackers import Embedded, Fitted, TemplateAttacker
from ecgstudy.experiment.dataset import Dataset
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
) -> tuple[str, causal.Effects, Resamples]:
    """Effects of all changes, with the wave that carries identity."""
    dataset, split = planted(request.param, tmp_path_factory.mktemp(request.param))
    resamples = Resamples.draw(split.enrolment["subject_id"], 0, 50)
    return request.param, causal.wave_effects(TemplateAttacker(), split, dataset, resamples), resamples


class Recorder(Fitted):
    """An attacker that keeps what it reads."""

    def __init__(self) -> None:
        self.read: list[list[np.ndarray]] = []

    def embed(self, dataset: Dataset, segments: pd.DataFrame) -> Embedded:
        """Remember the segments' samples."""
        self.read.append([dataset.segment(row.record_id, row.start, row.stop) for row in segments.itertuples()])
        return Embedded(np.eye(len(segments)))


def test_waves_put_in_are_those_of_the_others_enrolment_or_of_the_own_probe(tmp_path: Path) -> None:
    dataset, split = planted("T", tmp_path, persons=3)
    recorder = Recorder()
    causal.wave_effects(recorder, split, dataset, Resamples.draw(split.probe["subject_id"], 0, 5))
    enrolled, probed, *changed = recorder.read

    def average(part: pd.DataFrame, values: list[np.ndarray], row: int) -> tuple[np.ndarray, object]:
        piece = part.iloc[row]
        spans = wave_spans(dataset.fiducials(piece["record_id"], piece["start"], piece["stop"]), len(values[row]))
        return person_averages([("a", values[row], spans)])[0]["a"], spans

    own, spans = average(split.probe, probed, 0)
    me = split.probe["subject_id"].iloc[0]
    others = [row for row in range(3) if split.enrolment["subject_id"].iloc[row] != me]
    expected = {
        causal.REPLACED: np.mean([average(split.enrolment, enrolled, row)[0] for row in others], axis=0),
        causal.OWN_AVERAGE: own,
    }
    for change, waves in expected.items():
        spliced = splice(probed[0], spans, waves, ("T",), dataset.fs)
        np.testing.assert_allclose(changed[causal.CONDITIONS.index((change, "T"))][0], spliced, atol=1e-5)
    assert len(changed) == len(causal.CONDITIONS)


def test_replacing_the_planted_wave_ends_recognition_and_replacing_others_does_not(
    case: tuple[str, causal.Effects, Resamples],
) -> None:
    wave, effects, resamples = case
    table = causal.effect_table(effects, resamples).set_index(["change", "wave"])
    replaced, kept, own = (table.loc[change] for change in (causal.REPLACED, causal.KEPT, causal.OWN_AVERAGE))
    assert effects.measure(np.ones(10))[0, 0] >= 0.6  # chance is one in ten
    assert replaced["eer_rise"].drop(causal.ALL).idxmax() == wave
    assert kept["eer"].idxmin() == wave
    assert replaced.loc[causal.ALL, "rank1"] <= 0.2
    # a person's own average tells as much as the person's beats
    assert own["rank1_fall"].abs().max() == 0
    assert own["eer_rise"].abs().max() < 0.02
    assert (table["waves_a_beat"] > 0.9).all()
    assert replaced.loc[causal.ALL, "waves_a_beat"] == effects.known.min() < effects.known.max()
    if wave == "T":  # QRS rules the scale of a window, so its size also shows in the others
        assert replaced.loc["T", "rank1"] <= 0.1
        assert replaced.loc["T", "rank1_fall_low"] >= 0.3
        assert replaced["rank1_fall"].drop(["T", causal.ALL]).abs().max() == 0
        assert kept.loc["T", "rank1_fall"] == 0
        assert kept["rank1"].drop("T").max() <= 0.2


def test_effects_are_paired_differences_to_the_unchanged_recordings(
    case: tuple[str, causal.Effects, Resamples],
) -> None:
    _, effects, resamples = case
    table = causal.effect_table(effects, resamples)
    before = effects.measure(np.ones(10))[0]
    np.testing.assert_allclose(table["rank1_fall"], before[0] - table["rank1"])
    np.testing.assert_allclose(table["eer_rise"], table["eer"] - before[1])
    draws = np.array([effects.losses(multiplicity) for multiplicity in resamples.multiplicities])
    np.testing.assert_allclose(table["rank1_fall_high"], np.quantile(draws[:, :, 0], 0.975, axis=0))
    assert list(zip(table["change"], table["wave"], strict=True)) == list(causal.CONDITIONS)


def test_shares_that_name_the_planted_wave_agree_with_its_effect(case: tuple[str, causal.Effects, Resamples]) -> None:
    wave, effects, resamples = case
    losses = effects.losses(np.ones(10))[:, 1]
    rises, left = (
        sign * losses[[causal.CONDITIONS.index((change, w)) for w in WAVES]]
        for change, sign in ((causal.REPLACED, 1), (causal.KEPT, -1))
    )
    assert WAVES[rises.argmax()] == WAVES[left.argmax()] == wave

    def agreement(mass: np.ndarray) -> dict[str, Estimate]:
        parts = np.stack([np.tile(mass, (10, 1)), np.full((10, 6), 1 / 6)])
        return causal.share_agreement(parts, resamples.persons.astype(str), effects, resamples)

    alike = agreement(rises - rises.min())["replaced.eer"]
    assert alike.value == pytest.approx(1.0)
    assert alike.low <= alike.high <= 1.0
    assert agreement(left - left.min())["kept.eer"].value == pytest.approx(1.0)
    assert agreement(rises.max() - rises)["replaced.eer"].value == pytest.approx(-1.0)
    for tied in (np.full(6, 1 / 6), np.full(6, np.nan)):
        assert np.isnan(agreement(tied)["replaced.eer"].value)


def test_ranks_of_effects_with_ties_by_hand() -> None:
    losses = {(causal.REPLACED, "rank1"): [0, 0.1, 0.4, 0.2, -0.1, 0.3], (causal.KEPT, "rank1"): [0.2] * 6}
    before = np.full((1 + len(causal.CONDITIONS), 2), 0.5)
    for at, (change, wave) in enumerate(causal.CONDITIONS):
        if wave in WAVES and (change, "rank1") in losses:
            before[1 + at, 0] -= losses[change, "rank1"][WAVES.index(wave)]
    effects = causal.Effects(lambda _: before, 10, np.ones(6))
    np.testing.assert_allclose(effects.wave_ranks(np.ones(10)), [[2, 3, 6, 4, 1, 5], *[[3.5] * 6] * 3])
