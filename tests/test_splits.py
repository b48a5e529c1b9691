"""Protocols split as their names say, and no split exists that leaks."""

import itertools
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from ecgstudy.errors import LeakageError, StudyError
from ecgstudy.evaluate import protocols, splits
from ecgstudy.evaluate.protocols import (
    CrossCohort,
    CrossDay,
    CrossRecord,
    LeaveLastDay,
    OverlappingWindows,
    RandomWindows,
)
from ecgstudy.evaluate.splits import RECORD, SUBJECT, WAVEFORM, Protocol, Split, assert_disjoint, with_cohort

FS = 100.0


def _records(rows: list[tuple[str, str, int]], seconds: float = 20.0, **labels: list[str]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=[RECORD, SUBJECT, "session"])
    return table.assign(sha256=table[RECORD] + "-hash", store_samples=round(seconds * FS), **labels)


DAYS = _records(
    [("a1", "a", 1), ("a2", "a", 1), ("a3", "a", 2), ("a4", "a", 3), ("b1", "b", 1), ("b2", "b", 1), ("c1", "c", 1)]
)
MANY = _records([(f"p{n}r{k}", f"p{n}", k) for n in range(12) for k in (1, 2)])
MOTION = _records(
    [(f"{p}{a}{e}", p, 1) for p in "abcdef" for a in ("rest", "run", "walk") for e in "xyz"],
    seconds=60,
    activity=[a for _ in "abcdef" for a in ("rest", "run", "walk") for _ in "xyz"],
    electrode=[e for _ in range(18) for e in "xyz"],
)


def _only(protocol: Protocol, records: pd.DataFrame) -> Split:
    made = protocol.splits(records, FS, seed=0)
    assert len(made) == 1
    return made[0]


def _names(part: pd.DataFrame) -> list[str]:
    return sorted(part[RECORD])


def _spans(part: pd.DataFrame) -> list[list[int]]:
    return part[["start", "stop"]].drop_duplicates().to_numpy().tolist()


# What parts may share, by kind of split: one sample of a record, a record, a waveform, a person.
_KNOWN = ("train", "validation", "enrolment")
REFUSED = {
    "closed": {(part, "probe", what) for part in _KNOWN for what in ("sample", RECORD, WAVEFORM)}
    | {("train", "validation", "sample")},
    "within_record": {(part, "probe", "sample") for part in _KNOWN} | {("train", "validation", "sample")},
}
REFUSED["unseen_persons"] = REFUSED["closed"] | {
    (part, trial, what)
    for part in ("train", "validation")
    for trial in ("enrolment", "probe")
    for what in ("sample", WAVEFORM, SUBJECT)
}


@pytest.mark.parametrize("what", ["sample", RECORD, WAVEFORM, SUBJECT])
@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(splits.PARTS, 2)))
@pytest.mark.parametrize("kind", REFUSED)
def test_every_pair_of_parts_may_share_what_the_claim_allows(kind: str, one: str, other: str, what: str) -> None:
    # one sample in common, or none at all although the spans touch; either part may come first
    spans = [[0, 500], [499 if what == "sample" else 500, 900]]
    for first, second in (spans, spans[::-1]):
        rows = {name: [f"{name} record", f"{name} person", 1, f"{name} wave", *first] for name in splits.PARTS}
        parts = {name: pd.DataFrame([row], columns=list(splits.SEGMENT_COLUMNS)) for name, row in rows.items()}
        owned = [RECORD, SUBJECT, WAVEFORM] if what == "sample" else [what]
        parts[other][owned] = parts[one][owned]
        parts[other][["start", "stop"]] = second
        flags = {} if kind == "closed" else {kind: True}
        if (one, other, what) in REFUSED[kind]:
            named = "share samples of 1 record" if what == "sample" and other == "probe" else "share"
            with pytest.raises(LeakageError, match=f"{one} and .*{other}.* {named}"):
                Split("trial", **parts, **flags)
        else:
            assert len(Split("trial", **parts, **flags).probe) == 1


@pytest.mark.parametrize(
    ("protocol", "enrolment", "probe"),
    [
        (CrossRecord(), "a1 b1 c1", "a2 b2"),
        (CrossDay(), "a1 a2 b1 b2 c1", "a3 a4"),
        (LeaveLastDay(), "a1 a2 a3 b1 b2 c1", "a4"),
    ],
)
def test_records_and_days_enrol_and_probe_as_the_claim_says(protocol: Protocol, enrolment: str, probe: str) -> None:
    split = _only(protocol, DAYS)
    assert (_names(split.enrolment), _names(split.probe)) == (enrolment.split(), probe.split())
    if isinstance(protocol, LeaveLastDay):  # it trains on first days
        assert _names(split.train) == _names(_only(CrossDay(), DAYS).train)


@pytest.mark.parametrize(("seconds", "border"), [(20.0, 1600), (60.0, 4800)])
def test_closed_set_chooses_on_the_last_part_of_each_enrolment_record(seconds: float, border: int) -> None:
    # a fifth, and 4 s at least; 1 s before it belongs to neither
    split = _only(CrossRecord(), DAYS.assign(store_samples=round(seconds * FS)))
    assert _spans(split.train) == [[0, border - 100]]
    assert _spans(split.validation) == [[border, round(seconds * FS)]]


def test_a_record_too_short_to_be_divided_is_enrolled_only() -> None:
    split = _only(CrossRecord(), DAYS.assign(store_samples=[500, 2000, 2000, 2000, 2000, 2000, 2000]))
    assert _names(split.enrolment) == ["a1", "b1", "c1"]
    assert _names(split.train) == _names(split.validation) == ["b1", "c1"]


def test_time_separated_takes_the_stated_minutes_of_one_recording() -> None:
    records = _records([("m", "m", 1), ("n", "n", 1), ("short", "s", 1)], seconds=1805)
    split = _only(protocols.TimeSeparated(), records.assign(store_samples=[180500, 180500, 100000]))
    assert _spans(split.enrolment) == [[0, 30000], [75000, 105000]]
    assert _names(split.enrolment) == ["m", "m", "n", "n", "short"]  # what a short record does not hold is not cut
    assert split.probe[["start", "stop"]].to_numpy().tolist() == [[150000, 179900]] * 2
    assert split.within_record


def test_random_windows_never_share_a_sample_and_probe_about_a_fifth() -> None:
    records = _records([(f"r{n}", f"p{n % 20}", 1) for n in range(200)], seconds=52)
    split = _only(RandomWindows(5.0), records)
    starts = pd.concat([split.enrolment, split.probe])[[RECORD, "start"]]
    assert len(starts) == len(starts.drop_duplicates()) == 2000
    assert 0.17 < len(split.probe) / 2000 < 0.23
    assert 0.07 < len(split.validation) / len(split.enrolment) < 0.13
    both = pd.concat([split.train, split.validation]).sort_values([RECORD, "start"], ignore_index=True)
    pd.testing.assert_frame_equal(both, split.enrolment.sort_values([RECORD, "start"], ignore_index=True))
    assert _only(RandomWindows(5.0), records).digest == split.digest
    assert RandomWindows(5.0).splits(records, FS, seed=1)[0].digest != split.digest


def test_overlapping_windows_share_half_of_their_samples_and_nothing_else_may() -> None:
    records = _records([(f"r{n}", f"p{n}", 1) for n in range(20)] + [("short", "p0", 1)], seconds=50)
    records.loc[20, "store_samples"] = 499
    split = _only(OverlappingWindows(5.0), records)
    starts = pd.concat([split.enrolment, split.probe])
    assert len(starts) == 20 * 19
    assert set(starts["start"]) == {*range(0, 4501, 250)}
    assert (starts["stop"] - starts["start"] == 500).all()
    assert OverlappingWindows.leaky
    assert OverlappingWindows().digest != RandomWindows().digest
    with pytest.raises(LeakageError, match="share samples"):
        replace(split, overlapping=False)
    assert not _only(RandomWindows(5.0), records).overlapping


def test_random_windows_of_a_record_are_limited_and_nobody_is_probed_who_is_not_enrolled() -> None:
    split = _only(RandomWindows(5.0, most=7), _records([("m", "m", 1), ("n", "n", 1)], seconds=600))
    assert len(split.enrolment) + len(split.probe) == 14
    assert split.probe["start"].max() > 3500  # from anywhere in the record, not its first windows
    single = _only(RandomWindows(5.0), _records([(f"r{n}", f"p{n}", 1) for n in range(60)], seconds=5))
    assert len(single.probe) == 0 < len(single.enrolment) < 60


def test_cross_activity_enrols_rest_and_cross_electrode_leaves_each_kind_out_once() -> None:
    split = _only(protocols.CrossActivity(), MOTION)
    assert {name[1:5] for name in _names(split.enrolment)} == {"rest"}
    assert {name[1:-1] for name in _names(split.probe)} == {"run", "walk"}
    folds = protocols.CrossElectrode().splits(MOTION, FS, seed=0)
    assert [{name[-1] for name in _names(fold.probe)} for fold in folds] == [{"x"}, {"y"}, {"z"}]
    assert [{name[-1] for name in _names(fold.enrolment)} for fold in folds] == [set("yz"), set("xz"), set("xy")]


def test_who_never_rested_is_not_probed_in_motion() -> None:
    split = _only(protocols.CrossActivity(), MOTION[(MOTION[SUBJECT] != "b") | (MOTION["activity"] != "rest")])
    assert set(split.probe[SUBJECT]) == set("acdef")


def test_subject_disjoint_folds_put_everybody_on_trial_once_and_never_train_on_them() -> None:
    folds = protocols.SubjectDisjoint(CrossRecord(), folds=3).splits(MANY, FS, seed=0)
    assert sorted(person for fold in folds for person in fold.probe[SUBJECT]) == sorted(MANY[SUBJECT].unique())
    for fold in folds:
        train, validation, trial = (set(part[SUBJECT]) for part in (fold.train, fold.validation, fold.enrolment))
        assert (len(train), len(validation), len(trial)) == (6, 2, 4)
        assert len(train | validation | trial) == 12
        assert (fold.protocol, fold.unseen_persons) == ("subject_disjoint_cross_record", True)
    again = protocols.SubjectDisjoint(CrossRecord(), folds=3).splits(MANY, FS, seed=1)
    assert set(again[0].probe[SUBJECT]) != set(folds[0].probe[SUBJECT])


def test_persons_of_several_days_are_spread_evenly_over_the_folds() -> None:
    few = _records([(f"p{n}d{k}", f"p{n}", k) for n in range(12) for k in ((1, 2) if n < 4 else (1,))])
    for seed in range(5):
        folds = protocols.SubjectDisjoint(CrossDay(), folds=4).splits(few, FS, seed)
        assert [fold.probe["subject_id"].nunique() for fold in folds] == [1, 1, 1, 1]


def test_cross_cohort_trains_on_the_others_only() -> None:
    others = _records([(f"o/r{n}", f"o/p{n}", 1) for n in range(10)])
    split = _only(CrossCohort(others, CrossRecord()), DAYS)
    assert (len(split.train), len(split.validation), split.unseen_persons) == (8, 2, True)
    assert _names(split.probe) == ["a2", "b2"]
    again = CrossCohort(others, CrossRecord()).splits(DAYS, FS, seed=1)[0]
    assert _names(again.validation) != _names(split.validation)
    digests = {CrossCohort(others[:n], inner).digest for n in (9, 10) for inner in (CrossRecord(), CrossDay())}
    assert len(digests) == 4
    assert others[RECORD][0] not in repr(CrossCohort(others, CrossRecord()))
    with pytest.raises(LeakageError, match="train and probe share 2 value"):
        CrossCohort(DAYS.assign(record_id="x" + DAYS[RECORD]), CrossRecord()).splits(DAYS, FS, seed=0)


def test_blocked_time_cuts_at_60_and_70_percent() -> None:
    split = _only(protocols.BlockedTime(), MOTION)
    # the last quarter of the known part chooses, a second of guard before it
    expected = {"enrolment": (0, 3600), "probe": (4200, 6000), "train": (0, 2600), "validation": (2700, 3600)}
    for name, span in expected.items():
        part = getattr(split, name)
        assert len(part) == 54
        np.testing.assert_allclose(part[["start", "stop"]], np.tile(span, (54, 1)), atol=1)


def test_activity_pairs_know_one_activity_and_hear_all_but_of_known_people_only() -> None:
    assert protocols.activities_of(pd.DataFrame({"activity": ["walk", "rest", None, "cycle"]})) == [
        "rest",
        "cycle",
        "walk",
    ]
    table = MOTION[(MOTION[SUBJECT] != "c") | (MOTION["activity"] != "rest")]
    for activity, split in zip(
        protocols.activities_of(table), protocols.ActivityPairs().splits(table, FS, 0), strict=True
    ):
        persons = "abdef" if activity == "rest" else "abcdef"
        assert set(split.enrolment[RECORD]) == {f"{p}{activity}{e}" for p in persons for e in "xyz"}
        assert set(split.probe[SUBJECT]) == set(persons)
        assert len(split.probe) == (45 if activity == "rest" else 51)


def test_everybody_is_left_out_once_and_chosen_on_once() -> None:
    made = protocols.LeaveSubjectOut(folds=3).splits(MOTION, FS, 0)
    probed, chosen = ([set(getattr(s, part)[SUBJECT]) for s in made] for part in ("probe", "validation"))
    assert chosen == probed[1:] + probed[:1]
    assert sorted(itertools.chain(*probed)) == list("abcdef")
    for split, trial, held in zip(made, probed, chosen, strict=True):
        assert set(split.train[SUBJECT]) == set("abcdef") - trial - held
        assert split.enrolment.empty
        assert split.unseen_persons


def test_too_few_persons_are_named() -> None:
    with pytest.raises(StudyError, match="2 persons are too few to leave people out in 3 folds"):
        protocols.LeaveSubjectOut(folds=3).splits(MOTION[MOTION[SUBJECT] < "c"], FS, 0)
    with pytest.raises(StudyError, match="3 persons are too few for 3 folds"):
        protocols.SubjectDisjoint(CrossRecord()).splits(DAYS, FS, seed=0)


def test_a_digest_is_of_every_segment_its_part_and_the_protocol() -> None:
    split = _only(CrossRecord(), DAYS)
    moved = [replace(split, **{part: getattr(split, part).assign(stop=1)}) for part in splits.PARTS]
    exchanged = replace(split, train=split.train[:0], validation=pd.concat([split.train, split.validation]))
    others = [*moved, exchanged, replace(split, protocol="cross_day")]
    assert len({one.digest for one in (split, *others)}) == 7
    assert replace(split).digest == split.digest


def _waves(*rows: tuple[str, str, str | None]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=[RECORD, SUBJECT, WAVEFORM])


TRAIN = _waves(("r1", "anna", "a1"), ("r2", "ben", "b1"))


def test_shared_persons_and_waveforms_are_refused_and_named() -> None:
    # unknown waveforms are not equal to each other
    assert_disjoint({"train": _waves(("r1", "anna", None)), "test": _waves(("r3", "cleo", None))})
    with pytest.raises(
        LeakageError, match=r"train and test share 1 value\(s\) of subject_id, records r2 and r9 for one"
    ):
        assert_disjoint({"train": TRAIN, "test": _waves(("r9", "ben", "b9"))})
    with pytest.raises(LeakageError, match=r"train and test share .* of sha256, records r1 and y for one"):
        assert_disjoint({"train": TRAIN, "val": _waves(("x", "xeno", "x1")), "test": _waves(("y", "yves", "a1"))})


def test_equal_names_in_two_cohorts_are_two_persons_but_equal_waveforms_are_not() -> None:
    other = _waves(("r1", "anna", "z1"))
    assert_disjoint({"ecgid": with_cohort("ecgid", TRAIN), "motion": with_cohort("motion", other)})
    with pytest.raises(LeakageError, match="sha256"):
        assert_disjoint({"ecgid": with_cohort("ecgid", TRAIN), "motion": with_cohort("motion", TRAIN)})


def test_a_waveform_under_two_persons_is_found_and_one_under_one_person_is_not() -> None:
    records = _waves(("r1", "anna", "same"), ("r2", "anna", "twice"), ("r3", "anna", "twice"), ("r4", "ben", "same"))
    assert splits.duplicated_waveforms(records)[RECORD].tolist() == ["r1", "r4"]
    assert splits.duplicated_waveforms(TRAIN).empty
