"""Probe windows come from where they say, with the classes of the network that is explained."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ecgstudy.experiment.plan import SPLIT_SEED, Job
from ecgstudy.experiment.recipes import NETWORKS, Recipe

from ecgstudy.attribution.subjects import (
    Explained,
    Network,
    cardiologist_codes,
    explain,
    load_network,
    spread_windows,
    true_codes,
    window_fiducials,
)
from ecgstudy.attribution.waves import UNKNOWN_WAVE, WAVES, wave_codes
from ecgstudy.data.base import Cohort
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.protocols import CrossCohort, CrossRecord
from ecgstudy.evaluate.splits import Split, with_cohort
from ecgstudy.experiment import networks
from ecgstudy.experiment.jobs import Workshop
from ecgstudy.learn.batches import standardise
from ecgstudy.learn.scoring import class_probabilities
from ecgstudy.signals.ingest import build_store

COHORT = SyntheticCohort(n_subjects=6, n_sessions=1, n_records=2, seed=3, noise=False)
JOB = Job("synthetic", CrossRecord(), "resnet1d", 0)
RECIPES = {"resnet1d": Recipe("resnet1d", seconds=3.0, epochs=2, batch_size=16), "beatnet": NETWORKS["beatnet"]}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Six persons with two records each."""
    cache = tmp_path_factory.mktemp("cache")
    return Workshop({"synthetic": build_store(COHORT, cache, workers=1)}, cache, "cpu", RECIPES)


@pytest.fixture(scope="module")
def split(workshop: Workshop) -> Split:
    """First records enrol, second ones probe."""
    store = workshop.stores["synthetic"]
    return JOB.protocol.splits(with_cohort("synthetic", store.records), store.fs, SPLIT_SEED)[0]


@pytest.fixture(scope="module")
def network(workshop: Workshop, split: Split) -> Network:
    """Train a network a little."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "ROWS", 240)
        return load_network(workshop, JOB, split)


@pytest.fixture(scope="module")
def explained(workshop: Workshop, split: Split, network: Network) -> Explained:
    """Up to four windows a person."""
    return explain(workshop, JOB, split, network, "person", 4)


def test_windows_are_spread_evenly_over_all_segments_of_a_person() -> None:
    rows = [("a", "r1", 0, 1000), ("a", "r2", 100, 1100), ("b", "r3", 0, 450), ("c", "r4", 0, 399)]
    segments = pd.DataFrame(rows, columns=["subject_id", "record_id", "start", "stop"])
    chosen = spread_windows(segments, 400, 4, 100.0)
    found = [(row.subject_id, row.record_id, row.start) for row in chosen.itertuples()]
    assert found == [("a", "r1", 0), ("a", "r1", 600), ("a", "r2", 100), ("a", "r2", 700), ("b", "r3", 25)]
    of_a = spread_windows(segments, 400, 3, 100.0)
    assert len(of_a[of_a["subject_id"] == "a"]) == 3
    assert set(of_a["record_id"]) == {"r1", "r2", "r3"}


def test_windows_are_the_samples_that_stage_two_reads(workshop: Workshop, explained: Explained, split: Split) -> None:
    assert len(explained.attempts) == 24
    assert explained.windows.shape == (explained.attempts["reason"].isna().sum(), 1, 300)
    probe = split.probe.set_index("record_id")
    for window, record, start in zip(explained.windows, explained.records, explained.starts, strict=True):
        whole = workshop.signals.segment(record, probe.loc[record, "start"], probe.loc[record, "stop"])
        at = start - probe.loc[record, "start"]
        np.testing.assert_array_equal(window[0], standardise(whole[at : at + 300]))


def test_targets_name_the_persons_and_the_network_learnt_those_classes(
    explained: Explained, network: Network, split: Split, workshop: Workshop
) -> None:
    assert [network.classes["person"][target] for target in explained.targets] == explained.persons.tolist()
    windows, owners = network.trainer.inputs(split.train)
    guessed = class_probabilities(network.model, windows[:, None], "person").argmax(axis=1)
    truth = split.train["subject_id"].to_numpy()[owners]
    # a wrong order of the classes would leave chance, one in six
    assert (np.array(network.classes["person"])[guessed] == truth).mean() > 0.5


def test_codes_follow_the_automatic_boundaries_and_agree_with_the_true_ones(
    workshop: Workshop, explained: Explained
) -> None:
    agree, known = 0, 0
    for codes, record, start in zip(explained.codes, explained.records, explained.starts, strict=True):
        again, _ = wave_codes(window_fiducials(workshop.signals, record, start, 300), 300)
        np.testing.assert_array_equal(codes, again)
        truth, reason = true_codes(COHORT, record.split("/")[1], start, 300, 100.0)
        assert reason is None
        both = (codes != UNKNOWN_WAVE) & (truth != UNKNOWN_WAVE)
        agree, known = agree + (codes == truth)[both].sum(), known + both.sum()
    assert agree / known > 0.8


def test_true_codes_hold_at_any_rate() -> None:
    fine = SyntheticCohort(n_subjects=1, n_sessions=1, n_records=1, fs=500.0, noise=False)
    record = fine.records()["record_id"].iloc[0]
    codes, reason = true_codes(fine, record, 200, 400, 100.0)
    assert reason is None
    first = fine.boundaries(record).query("wave == 'QRS' and onset >= 1000").iloc[0]
    qrs = np.flatnonzero(codes == WAVES.index("QRS"))
    assert qrs[qrs >= np.ceil(first["onset"] / 5 - 200)][0] == np.ceil(first["onset"] / 5 - 200)


def test_regions_of_the_windows_match_their_waves(explained: Explained) -> None:
    masks = explained.region_masks()
    np.testing.assert_array_equal(masks[:, 1], explained.codes == WAVES.index("QRS"))


def test_windows_that_were_not_delineated_are_counted_and_left_out(
    workshop: Workshop, split: Split, network: Network, explained: Explained, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = split.probe["record_id"].iloc[0]
    monkeypatch.delitem(workshop.signals._fiducials, lost)
    left = explain(workshop, JOB, split, network, "person", 4)
    assert left.records.tolist() == [record for record in explained.records if record != lost]
    found = left.failures.set_index(["class_of", "name"])
    assert found.loc[("cohort", "synthetic"), ["windows", "no beats"]].tolist() == [24, 4]
    assert found.loc[("person", split.probe["subject_id"].iloc[0]), "rate"] == 1.0


def test_windows_without_a_label_are_counted(workshop: Workshop, split: Split, network: Network) -> None:
    unknown = workshop.people.copy()
    unknown.loc[split.probe["subject_id"].iloc[0], "sex"] = None
    workshop_without = Workshop(workshop.stores, workshop.cache, "cpu", RECIPES)
    workshop_without.__dict__["people"] = unknown
    explained = explain(workshop_without, JOB, split, network, "sex", 4)
    assert (explained.unlabelled, len(explained.attempts)) == (4, 20)
    sexes = workshop.people["sex"].reindex(explained.persons)
    assert [network.classes["sex"][target] for target in explained.targets] == sexes.tolist()


def test_people_never_seen_have_no_person_class(workshop: Workshop, split: Split, network: Network) -> None:
    stranger = Network(network.model, {"person": ("a", "b"), "sex": ("F", "M")}, network.trainer)
    with pytest.raises(StudyError, match="never seen"):
        explain(workshop, JOB, split, stranger, "person", 4)
    with pytest.raises(StudyError, match="not trained for age_group"):
        explain(workshop, JOB, split, stranger, "age_group", 4)


def test_an_attacker_that_reads_averaged_beats_is_refused(workshop: Workshop, split: Split) -> None:
    with pytest.raises(StudyError, match="averaged beats"):
        load_network(workshop, Job("synthetic", CrossRecord(), "beatnet", 0), split)


def test_classes_of_networks_that_auxiliary_cohorts_helped_to_train(
    workshop: Workshop, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(networks, "ROWS", 60)
    single = build_store(
        SyntheticCohort(n_subjects=9, n_sessions=1, n_records=1, seed=2), tmp_path, workers=1, delineate=False
    )
    recipe = Recipe("resnet1d", seconds=2.0, pretraining_epochs=1, epochs=1, batch_size=16)
    both = Workshop({**workshop.stores, "others": single}, tmp_path, "cpu", {"resnet1d": recipe})
    within = load_network(both, JOB, split).classes["person"]
    assert within[:6] == tuple(sorted(split.train["subject_id"].unique()))
    assert {name.split("/")[0] + name[-2:] for name in within[6:]} == {"others@I"}
    protocol = CrossCohort(with_cohort("others", single.records), CrossRecord())
    across = load_network(both, Job("synthetic", protocol, "resnet1d", 0), split)
    assert set(within[6:]) == set(across.classes["person"])
    assert across.model.classes["person"] == list(across.classes["person"])


@pytest.mark.realdata
def test_cardiologists_boundaries_code_windows_of_ludb(realdata: Callable[[str], Cohort]) -> None:
    cohort = realdata("ludb")
    codes, reasons = cardiologist_codes(cohort, np.array(["ludb/1", "ludb/1"]), np.array([0, 300]), 400, 100.0)
    assert reasons.tolist() == [None, None]
    np.testing.assert_array_equal(codes[0, 300:], codes[1, :100])
    qrs = cohort.boundaries("1", "I").query("wave == 'QRS' and onset < 2000")[["onset", "offset"]].to_numpy()
    spans = np.minimum(np.ceil(qrs / 5), 400).astype(int)
    assert len(spans) == 3
    expected = np.concatenate([np.arange(start, stop) for start, stop in spans])
    np.testing.assert_array_equal(np.flatnonzero(codes[0] == WAVES.index("QRS")), expected)
