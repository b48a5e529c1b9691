"""The built-in cohort: its interface, its determinism, and how cleanly it plants an identity cue."""

import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import f_oneway

from ecgstudy.data.base import FAILURE_COLUMNS, RECORD_COLUMNS, STANDARD_LEADS
from ecgstudy.data.simulator.heart import CONDITIONS
from ecgstudy.data.simulator.people import ACTIVITIES
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.errors import StudyError

SHARES = dict.fromkeys(CONDITIONS, 0.1)
WINDOW = np.arange(-28, 46)
"""Samples around R at 100 Hz of a mean beat."""


def mean_beats(cohort: SyntheticCohort, without: str | None = None) -> np.ndarray:
    """Mean beat of every record around R, (n, 12 * n_window), one wave set to 0 where wanted."""
    beats = []
    for record_id in cohort.records()["record_id"]:
        values, table = cohort.signal(record_id).values.copy(), cohort.boundaries(record_id)
        for row in table[table["wave"] == without].itertuples():
            values[:, int(np.floor(row.onset)) : int(np.ceil(row.offset)) + 1] = 0
        # The first and last beats may own a cut wave that the table does not list.
        peaks = table.loc[table["wave"] == "QRS", "peak"].round().astype(int).to_numpy()[2:-2]
        beats.append(values[:, peaks[:, None] + WINDOW].mean(axis=1).ravel())
    return np.array(beats)


def mean_waves(cohort: SyntheticCohort, wave: str) -> np.ndarray:
    """Mean of one wave of every record, stretched from onset to offset on 24 points, (n, 12 * 24)."""
    means = []
    for record_id in cohort.records()["record_id"]:
        values, table = cohort.signal(record_id).values, cohort.boundaries(record_id)
        part = table[table["wave"] == wave]
        place = (
            part["onset"].to_numpy()[:, None]
            + np.linspace(0, 1, 24) * (part["offset"] - part["onset"]).to_numpy()[:, None]
        )
        drawn = np.array([np.interp(place, np.arange(values.shape[1]), lead) for lead in values])
        means.append((drawn - drawn[..., :1]).mean(axis=1).ravel())
    return np.array(means)


def rank_one(cohort: SyntheticCohort, beats: np.ndarray) -> float:
    """Share of session 2 records whose nearest mean of session 1 is their own person's."""
    records = cohort.records()
    first = (records["session"] == 1).to_numpy()
    person = records["subject_id"].to_numpy()
    names = np.unique(person)
    means = np.array([beats[first & (person == name)].mean(axis=0) for name in names])
    distance = np.linalg.norm(beats[~first][:, None] - means, axis=2)
    return float((names[distance.argmin(axis=1)] == person[~first]).mean())


def test_records_follow_the_cohort_interface() -> None:
    cohort = SyntheticCohort(
        n_subjects=5, n_sessions=3, n_records=2, seconds=4, fs=128, activities=("rest", "run_8kmh")
    )
    records = cohort.records()
    assert tuple(records.columns) == (*RECORD_COLUMNS, "activity", "rhythm", "diagnosis")
    assert len(records) == 5 * 3 * 2 * 2
    assert records["record_id"].is_unique
    assert records["subject_id"].nunique() == 5
    assert records.groupby("subject_id")["age"].nunique().max() == 1
    assert records.drop_duplicates("subject_id")["sex"].tolist().count("F") == 2
    days = records.drop_duplicates(["subject_id", "session"]).pivot_table("session_day", "subject_id", "session")
    assert (days[1] == 0).all()
    assert (days.diff(axis=1)[[2, 3]] >= 1).all(axis=None)
    assert tuple(cohort.failures().columns) == FAILURE_COLUMNS
    assert cohort.failures().empty
    signal = cohort.signal(records["record_id"].iloc[-1])
    assert signal.values.shape == (12, 512)
    assert signal.values.dtype == np.float32
    assert (signal.fs, signal.leads, signal.unit) == (128, STANDARD_LEADS, "mV")
    assert np.isfinite(signal.values).all()
    with pytest.raises(KeyError):
        cohort.signal("nobody")


def test_the_same_record_is_the_same_whatever_was_asked_before() -> None:
    def make() -> SyntheticCohort:
        return SyntheticCohort(n_subjects=60, n_sessions=2, n_records=3, seconds=3, diagnoses=SHARES)

    one, other = make(), make()
    names = one.records()["record_id"].tolist()
    assert len(names) > 5 * one._block  # more blocks than the cache holds
    forwards = one.signals(names)
    shuffled = np.random.default_rng(0).permutation(len(names))
    singly = np.array([other.signal(names[i]).values for i in shuffled[:40]])
    assert forwards[shuffled[:40]].tobytes() == singly.tobytes()
    assert forwards.tobytes() == pickle.loads(pickle.dumps(other)).signals(names).tobytes()
    assert other.boundaries(names[7]).equals(one.boundaries(names[7]))
    assert len(pickle.dumps(one)) < 1000
    assert len({values.tobytes() for values in forwards}) == len(names)


def test_seeds_persons_and_blocks_have_their_own_randomness() -> None:
    loud, quiet = SyntheticCohort(), SyntheticCohort(noise=False)
    records = loud.records()
    assert records["age"].tolist() != SyntheticCohort(seed=1).records()["age"].tolist()
    assert records["session_day"].nunique() > 20
    names = records["record_id"][[0, loud._block]]
    first, second = np.diff(loud.signals(names) - quiet.signals(names))  # muscle noise
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.2


FROZEN = {
    "all": "2932.8 1152 0.18662 0.118172 298.088 303.497 308.905 295.227 299.851 305.503 288.437 301.25 309.363",
    "planted": "2932.8 1152 0.173845 0.121426 290.538 296.038 301.538 294.44 298.925 304.406 296.317 309.455 317.475",
    "active": "3666 0 0.226591 0.143242 293.592 298.955 304.319 296.912 300.923 305.826 291.816 302.317 308.962",
}
"""Sums of ages and days, spread of samples and of their steps, mean onset, peak and offset of P, QRS and T."""


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("all", {"diagnoses": SHARES}),
        ("planted", {"identity_wave": "T", "diagnoses": SHARES}),
        ("active", {"activities": tuple(ACTIVITIES), "n_sessions": 1, "n_records": 1}),
    ],
)
def test_the_demos_numbers_rest_on_these_records(name: str, parameters: dict[str, Any]) -> None:
    cohort = SyntheticCohort(n_subjects=16, seconds=6, seed=3, **parameters)
    records = cohort.records()
    values = cohort.signals(records["record_id"])
    waves = pd.concat([cohort.boundaries(record_id) for record_id in records["record_id"]])
    means = waves.groupby("wave")[["onset", "peak", "offset"]].mean().to_numpy().ravel()
    found = [records["age"].sum(), records["session_day"].sum(), values.std(), np.diff(values).std(), *means]
    assert found == pytest.approx([float(value) for value in FROZEN[name].split()], rel=2e-5)


def test_a_caller_cannot_spoil_the_cache() -> None:
    cohort = SyntheticCohort(n_subjects=1, seconds=2)
    name = cohort.records()["record_id"].iloc[0]
    cohort.signal(name).values[:] = 0
    assert np.abs(cohort.signal(name).values).max() > 0.3


def test_digest_depends_on_parameters_alone() -> None:
    assert SyntheticCohort().digest() == SyntheticCohort(fs=np.float64(100)).digest()
    digests = {SyntheticCohort(**change).digest() for change in ({}, {"seed": 1}, {"fs": 250}, {"identity_wave": "P"})}
    assert len(digests) == 4


@pytest.mark.parametrize("fs", [100.0, 497.445])
def test_any_rate_gives_the_same_heart(fs: float) -> None:
    cohort = SyntheticCohort(n_subjects=2, seconds=6, fs=fs, noise=False)
    reference = SyntheticCohort(n_subjects=2, seconds=6, fs=250, noise=False)
    name = cohort.records()["record_id"].iloc[3]
    ours, theirs = cohort.boundaries(name), reference.boundaries(name)
    n = min(len(ours), len(theirs))
    columns = ["onset", "peak", "offset"]
    np.testing.assert_allclose(ours[columns][: n - 1] / fs, theirs[columns][: n - 1] / 250, atol=1e-9)
    assert np.abs(ours["peak"].max()) < cohort.n_samples == round(6 * fs)


def test_diagnoses_get_their_shares_and_stay_with_the_person() -> None:
    records = SyntheticCohort(n_subjects=50, seconds=2, diagnoses=SHARES).records()
    persons = records.drop_duplicates("subject_id")
    assert (persons["rhythm"] == "AFIB").sum() == 5
    counts = persons["diagnosis"].value_counts()
    assert {name: counts[name] for name in CONDITIONS[1:]} == dict.fromkeys(CONDITIONS[1:], 5)
    assert counts["NORM"] == 25
    assert records.groupby("subject_id")[["rhythm", "diagnosis"]].nunique().max().tolist() == [1, 1]


def test_activities_have_their_heart_rates_and_noise() -> None:
    cohort = SyntheticCohort(n_subjects=40, n_sessions=1, n_records=1, activities=tuple(ACTIVITIES))
    records = cohort.records()
    rate, rough = [], []
    for name in records["record_id"]:
        peaks = cohort.boundaries(name).query("wave == 'QRS'")["peak"]
        rate.append(6000 / peaks.diff().mean())
        rough.append(np.abs(np.diff(cohort.signal(name).values[0], 2)).mean())
    table = records.assign(rate=rate, rough=rough).groupby("activity")[["rate", "rough"]].mean()
    for name, activity in ACTIVITIES.items():
        assert table.loc[name, "rate"] == pytest.approx(activity.heart_rate or 64.5, abs=5)
    assert (table["rough"].drop("rest") > 1.5 * table.loc["rest", "rough"]).all()


def test_sessions_drift_but_persons_stay_recognisable() -> None:
    cohort = SyntheticCohort(n_subjects=30, n_sessions=2, n_records=2, seed=1)
    beats, records = mean_beats(cohort), cohort.records()
    correlation = np.corrcoef(beats)
    person, session = (records[name].to_numpy() for name in ("subject_id", "session"))
    same = person[:, None] == person
    together = same & (session[:, None] == session) & ~np.eye(len(person), dtype=bool)
    apart = same & (session[:, None] != session)
    assert correlation[together].mean() > correlation[apart].mean() + 0.001
    assert correlation[apart].mean() > correlation[~same].mean() + 0.05
    assert rank_one(cohort, beats) > 0.8


@pytest.mark.parametrize("wave", ["P", "QRS", "T"])
def test_planted_wave_tells_persons_apart_and_the_rest_does_not(wave: str) -> None:
    cohort = SyntheticCohort(n_subjects=40, n_sessions=2, n_records=2, seed=4, identity_wave=wave)
    assert rank_one(cohort, mean_waves(cohort, wave)) > 0.9
    # 80 trials at chance 1/40: 2 expected, more than 8 in fewer than 1 of 4,000 runs.
    assert rank_one(cohort, mean_beats(cohort, without=wave)) <= 8 / 80


@pytest.mark.parametrize("wave", ["P", "QRS", "T"])
def test_planted_cue_leaves_rate_intervals_and_diagnosis_to_chance(wave: str) -> None:
    cohort = SyntheticCohort(n_subjects=20, n_sessions=3, n_records=5, seed=6, identity_wave=wave, diagnoses=SHARES)
    records = cohort.records()
    rows = []
    for name in records["record_id"]:
        table = cohort.boundaries(name)
        qrs, t_wave = (table[table["wave"] == kind] for kind in ("QRS", "T"))
        rows.append((qrs["peak"].diff().mean(), qrs["peak"].diff().std(), (t_wave["offset"] - t_wave["onset"]).mean()))
    normal = (records["rhythm"] == "SR") & ~records["diagnosis"].isin(["CLBBB", "CRBBB"])
    measures = np.array(rows)[normal]
    person = records["subject_id"][normal].to_numpy()
    assert measures.std(axis=0).min() > 0.1  # samples: records do differ
    for column in measures.T:
        assert f_oneway(*(column[person == name] for name in np.unique(person))).pvalue > 0.01
    assert records.groupby("subject_id")["diagnosis"].nunique().min() > 1
    assert (records["rhythm"] == "AFIB").sum() == 30


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"n_subjects": 0}, "n_subjects is 0"),
        ({"n_sessions": 1.5}, "n_sessions is 1.5"),
        ({"n_records": True}, "n_records is True"),
        ({"seed": -1}, "seed is -1"),
        ({"fs": 20}, "fs is 20"),
        ({"fs": "100"}, "fs is '100'"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"seconds": 0.5}, "seconds is 0.5"),
        ({"identity_wave": "U"}, "P, QRS, T or None"),
        ({"activities": ()}, "one or more of rest"),
        ({"activities": ("swim",)}, "one or more of rest"),
        ({"activities": ("rest", "rest")}, "each once"),
        ({"diagnoses": {"flu": 0.1}}, "no diagnosis 'flu'"),
        ({"diagnoses": {"LVH": -0.1}}, "share of LVH is -0.1"),
        ({"diagnoses": {"LVH": 0.7, "AFIB": 0.7}}, "add up to 1.4"),
    ],
)
def test_impossible_parameters_are_refused_in_one_sentence(parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(StudyError, match=r"^synthetic cohort: .*\.$") as refusal:
        SyntheticCohort(**parameters)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)
