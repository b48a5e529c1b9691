"""Attackers read what their tier says, learn from nobody on trial, and see through a planted protection.

It turns samples upside down: a beat is then the least like its owner's raw one, and as like the owner's other ones.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.deidentification import attacks, plan
from ecgstudy.deidentification.attacks import IGNORANT, INVERSION, LAZY, REFERENCE, SEMI, AttackJob, Strangers
from ecgstudy.deidentification.cycles import Recording, cycle_set
from ecgstudy.deidentification.plan import ATTACKER, PROTECTOR, VICTIM, _parts, groups, strangers
from ecgstudy.deidentification.protections import SampleChange
from ecgstudy.deidentification.release import RAW, ReleaseCohort, release_store
from ecgstudy.errors import LeakageError, StudyError
from ecgstudy.evaluate.protocols import CrossRecord
from ecgstudy.evaluate.trials import rank1_and_eer
from ecgstudy.experiment.attackers import Attacker, Embedded, Fitted, NetworkAttacker, TemplateAttacker
from ecgstudy.experiment.dataset import Dataset
from ecgstudy.experiment.jobs import Context, Job, Outcome
from ecgstudy.experiment.networks import Recipe
from ecgstudy.experiment.scores import score
from ecgstudy.learn.classical import unit_rows
from ecgstudy.signals.ingest import build_store

N_VICTIMS = 8


class Stage(NamedTuple):
    """Thirty persons recorded twice, and visitors; everybody upside down in a release that lost the last victim's end.

    The first persons are on trial, attackers learn from the others.
    """

    context: Context
    folders: tuple[tuple[str, Path], ...]
    protocol: Strangers

    def job(self, attacker: str, tier: str, view: str = "upside_down") -> AttackJob:
        """Attack on the release, or on none."""
        known = (RAW, REFERENCE, ()) if tier == REFERENCE else (view, tier, self.folders)
        return AttackJob("synthetic", self.protocol, attacker, 0, *known)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    cache = tmp_path_factory.mktemp("cache")
    cohorts = {
        "synthetic": SyntheticCohort(30, 1, 2, seed=5, noise=False),
        "visitors": SyntheticCohort(5, 1, 2, seed=6),
    }
    stores = {name: build_store(cohort, cache, delineate=False, workers=1) for name, cohort in cohorts.items()}
    network = NetworkAttacker(Recipe("resnet1d", seconds=2.0))
    known = {"template": TemplateAttacker(), "inversion": attacks.InversionAttacker(), "resnet1d": network}
    context = Context("real", stores, "cpu", known, cache=cache)
    cycles = cycle_set(stores["synthetic"], ("I",))
    kept = cycles.rows(np.arange(len(cycles)) != 2 * N_VICTIMS - 1)
    cohort = ReleaseCohort(stores["synthetic"], ("I",), kept, _UpsideDown(), 0, "upside down")
    folder = release_store(cohort, cache).folder
    records = context.records("synthetic")
    others = records[2 * N_VICTIMS :].reset_index(drop=True)
    victims = frozenset(records["subject_id"][: 2 * N_VICTIMS])
    return Stage(context, (("synthetic", folder),), Strangers(others, CrossRecord(), victims))


class _UpsideDown(SampleChange):
    def change(self, recording: Recording, rng: np.random.Generator) -> np.ndarray:
        return -recording.values


def _alike(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation: ingestion filters once more what is released."""
    return np.corrcoef(one.ravel(), other.ravel())[0, 1]


def test_groups_are_disjoint_and_stay_whoever_is_missing_and_everybody_is_a_victim_once() -> None:
    own = pd.DataFrame({"subject_id": [f"p{number:02d}" for number in range(25)] * 2})
    context = SimpleNamespace(stores={"c": SimpleNamespace(records=own)})
    records = own.assign(subject_id="c/" + own["subject_id"])
    found = pd.DataFrame({rotation: groups(context, "c", records, rotation) for rotation in range(5)})
    assert len(found.join(records).drop_duplicates()) == 25
    assert ((found == VICTIM).sum(axis=1) == 1).all()
    for rotation in range(5):
        shares = found[rotation].value_counts(normalize=True).to_dict()
        assert shares == pytest.approx({PROTECTOR: 0.4, ATTACKER: 0.4, VICTIM: 0.2}, abs=0.13)
        for left in (np.arange(50) % 3 == 0, np.arange(50) > 42):
            np.testing.assert_array_equal(groups(context, "c", records[left], rotation), found[rotation][left])
    folds = pd.DataFrame({"subject_id": "c/p", "strat_fold": range(1, 11)})
    initials = ["".join(name[0] for name in groups(context, "c", folds, rotation)) for rotation in range(2)]
    assert initials == ["vvppppaaaa", "ppppaaaavv"]


def test_larger_groups_are_prepared_in_parts_of_the_victims_size_and_persons_stay_whole() -> None:
    group = np.array([VICTIM] * 10 + [PROTECTOR] * 21 + [ATTACKER] * 4)
    persons = pd.Series([f"{part}{number // 2}" for part, n in (("v", 10), ("p", 21), ("a", 4)) for number in range(n)])
    part = pd.Series(_parts(group, persons))
    assert part.value_counts().to_dict() == {"victim 0": 10, "protector 0": 11, "protector 1": 10, "attacker 0": 4}
    assert len(pd.DataFrame({"part": part, "person": persons}).drop_duplicates()) == persons.nunique()
    assert set(_parts(np.full(3, PROTECTOR), pd.Series([*"abc"]))) == {"protector 0", "protector 1", "protector 2"}


def test_what_looks_at_one_record_at_a_time_is_released_once_for_all_rotations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "asked_cohorts", lambda _: ("c", ()))
    monkeypatch.setattr(plan, "auxiliary", lambda _: [])
    monkeypatch.setattr(plan, "common_leads", lambda _: ("I",))
    context = SimpleNamespace(profile="real", stores={"c": None})
    jobs = plan.release_jobs(context, [RAW, "noise.1", "low_rank.8", "microaggregation.3"], 0)
    made = Outcome({job.name: {"c": job.name} for job in jobs}, pd.DataFrame())
    _, readable = plan.released(jobs, made, range(5))
    told = {view: [readable[view, turn] for turn in range(5)] for view in ("noise.1", "low_rank.8")}
    assert set(told["noise.1"]) == {"attributes.noise.1.0.0"}
    assert told["low_rank.8"] == [f"attributes.low_rank.8.{turn}.0" for turn in range(5)]  # it learns from people
    assert len(jobs) == 1 + 5 + 5
    assert len(readable) == 15


def test_only_victims_are_on_trial_and_nobody_on_trial_is_learnt_from(stage: Stage) -> None:
    protocol, records = stage.protocol, stage.context.records("synthetic")
    (split,) = protocol.splits(records, 100.0, 0)
    assert set(split.enrolment["subject_id"]) == set(split.probe["subject_id"]) == protocol.victims
    assert set(split.train["subject_id"]) | set(split.validation["subject_id"]) == set(protocol.others["subject_id"])
    with pytest.raises(LeakageError):
        replace(protocol, others=records).splits(records, 100.0, 0)
    fewer = [replace(protocol, victims=frozenset(sorted(protocol.victims)[:n])) for n in (7, 1)]
    digests = [one.digest for one in (protocol, *fewer, replace(protocol, others=protocol.others[2:]))]
    assert len(set(digests)) == 4
    assert replace(protocol).digest == protocol.digest == digests[0]
    with pytest.raises(StudyError, match="fewer than two persons are left"):
        fewer[1].splits(records, 100.0, 0)


@pytest.mark.parametrize("helps", [False, True])
def test_attackers_of_every_cohort_have_met_none_of_its_victims(
    helps: bool, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "LEAST_SOUGHT", 5)
    own, records = stage.context.records("synthetic"), Context.records
    monkeypatch.setattr(Context, "records", lambda *told: records(*told).assign(auxiliary=helps))
    asked, group = dict(strangers(stage.context)), groups(stage.context, "synthetic", own, 0)
    assert asked["synthetic"].victims == set(own["subject_id"][group == VICTIM])
    assert asked["visitors"].victims == set(stage.context.records("visitors")["subject_id"])
    learnt = {name: set(protocol.others["subject_id"]) for name, protocol in asked.items()}
    strange = asked["visitors"].victims if helps else set()
    assert learnt["synthetic"] == set(own["subject_id"][group == ATTACKER]) | strange
    assert learnt["visitors"] == set(own["subject_id"][group != PROTECTOR])


def test_a_release_is_read_in_place_of_the_records(stage: Stage) -> None:
    raw, view = stage.context.dataset, attacks.ReleaseView(stage.folders, frozenset({"probe"}))
    assert attacks.ReleaseView().of(raw) is raw
    read, names = view.of(raw), stage.context.records("synthetic")["record_id"]
    assert _alike(read.lead(names[0], 0, 900), raw.lead(names[0], 0, 900)) < -0.9
    assert read.view is view
    assert view.of(Dataset(stage.context.stores, "V2")).lead_read == "V2"
    probe = stage.context.splits(Job("synthetic", CrossRecord(), "template", 0))[0].probe
    for attacker in (TemplateAttacker(), attacks.RhythmAttacker()):
        defined = np.isfinite(attacker.embed(read, probe).vectors).all(axis=1)
        assert probe["record_id"][~defined].tolist() == [names[2 * N_VICTIMS - 1]]


@dataclass(frozen=True)
class _Watcher(Attacker, Fitted):
    """Notes whether it was given samples that are upside down."""

    raw: Dataset = field(repr=False)
    seen: list[str] = field(default_factory=list, repr=False)

    def fit(self, context: Context, job: Job, split: object) -> Fitted:
        self.embed(context.dataset, split.train)
        return self

    def embed(self, dataset: Dataset, segments: pd.DataFrame) -> Embedded:
        name = segments["record_id"].iloc[0]
        self.seen.append("P" if _alike(dataset.lead(name, 0, 500), self.raw.lead(name, 0, 500)) < 0 else "-")
        return Embedded(unit_rows(np.ones((len(segments), 2))))


# what is learnt from, the enrolment, the probe, and both sides of the validation trial
READ = {REFERENCE: "-----", IGNORANT: "--P--", LAZY: "-PP--", SEMI: "PPPPP", INVERSION: "--P-P"}


@pytest.mark.parametrize("tier", attacks.TIERS)
def test_each_part_of_a_split_is_read_as_its_tier_says(tier: str, stage: Stage) -> None:
    watcher = _Watcher(stage.context.dataset)
    score(replace(stage.context, attackers={"watcher": watcher}), stage.job("watcher", tier))
    assert "".join(watcher.seen) == READ[tier]


def test_records_as_they_are_are_read_once_by_whoever_learnt_from_them(stage: Stage) -> None:
    watcher = _Watcher(stage.context.dataset)
    context, told = replace(stage.context, attackers={"watcher": watcher}), []
    for tier in (REFERENCE, IGNORANT, LAZY, SEMI):
        told.append(score(context, stage.job("watcher", tier)).folds[0].trials.scores)
    # to fit, and then: all, the probe, both sides of the trial, all anew
    assert "".join(watcher.seen) == "-----" + "-P" + "-PP" + "PPPPP"
    for scores, tier in zip(told, (REFERENCE, IGNORANT, LAZY, SEMI), strict=True):
        fresh = score(replace(stage.context, attackers={"watcher": watcher}), stage.job("watcher", tier))
        np.testing.assert_array_equal(scores, fresh.folds[0].trials.scores)


def test_networks_learn_from_the_release_if_semi_informed_and_from_their_own_people_only(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Recipe, "_fit", lambda _self, _context, rows, *_: rows)
    fewer = replace(stage.protocol, others=stage.protocol.others[:16].reset_index(drop=True))
    for protocol in (stage.protocol, fewer):  # of the same cohort, in the same process
        learnt = {}
        for tier in (REFERENCE, IGNORANT, LAZY, SEMI):
            job = replace(stage.job("resnet1d", tier, f"{len(protocol.others)}"), protocol=protocol)
            learnt[tier] = stage.context.fitted(job).model
            train = stage.context.splits(job)[0].train
            assert {name.removesuffix("@I") for name in learnt[tier].persons} == set(train["subject_id"])
            similarity = _alike(learnt[tier].windows, learnt[REFERENCE].windows)
            assert similarity < -0.9 if tier == SEMI else similarity == pytest.approx(1)


@pytest.mark.parametrize(
    ("attacker", "tier", "least", "most"),
    [
        ("template", REFERENCE, 0.7, 1.0),
        ("template", IGNORANT, 0.0, 0.13),
        ("template", SEMI, 0.6, 0.88),  # whoever was lost is not recognised
        ("inversion", INVERSION, 0.5, 0.88),
    ],
)
def test_who_adapts_sees_through_what_fools_others(
    attacker: str, tier: str, least: float, most: float, stage: Stage
) -> None:
    fold = score(stage.context, stage.job(attacker, tier)).folds[0]
    assert fold.trials.unscored == (tier != REFERENCE)
    rank1, eer = rank1_and_eer([fold.trials.without_gaps()])
    assert least <= rank1 <= most
    assert (eer > 0.5) == (tier == IGNORANT)


def test_an_inversion_needs_two_records_of_its_own_people(stage: Stage) -> None:
    job = stage.job("inversion", INVERSION)
    (split,) = stage.context.splits(job)
    with pytest.raises(StudyError, match="fewer than two records show a beat both raw and protected"):
        stage.context.attackers["inversion"].fit(stage.context, job, replace(split, train=split.train[:1]))


def test_rhythms_are_compared_by_their_longest_piece() -> None:
    rates = np.array([0.6, 0.65, 0.9, 1.2, 3.0])  # the last one is no heart's
    segments = pd.DataFrame({"record_id": range(5), "start": 0, "stop": 3000})
    pieces = pd.concat([segments.assign(row=range(5), start=a, stop=b) for a, b in ((0, 900), (1000, 3000))])

    def peaks(name: int, start: int, _: int) -> np.ndarray:
        return 100 * np.arange(0, 9, rates[name] if start else 0.45)[::-1]

    dataset = SimpleNamespace(fs=100.0, pieces=lambda _: pieces.reset_index(drop=True), peaks=peaks)
    vectors = attacks.RhythmAttacker().embed(dataset, segments).vectors
    assert np.isnan(vectors).all(axis=1).tolist() == [False] * 4 + [True]
    # the rate counts as much as 1 of 1.7, and one second of it is half a turn; none of them varies
    difference = np.subtract.outer(rates[:4], rates[:4])
    np.testing.assert_allclose(vectors[:4] @ vectors[:4].T, (np.cos(np.pi * difference) + 0.7) / 1.7, atol=1e-9)


def test_whatever_makes_an_attack_is_in_its_key(stage: Stage) -> None:
    job = replace(stage.job("template", SEMI), folders=(("synthetic", Path("here/release.1")),))
    moved, newer = (replace(job, folders=(("synthetic", Path(at)),)) for at in ("there/release.1", "here/release.2"))
    made = [each.made_from(stage.context) for each in (job, replace(job, tier=LAZY), replace(job, view="x"), newer)]
    assert len({*map(repr, made)}) == 4
    assert moved.made_from(stage.context) == made[0]
    assert job.about()["tier"] == SEMI
