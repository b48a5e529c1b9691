"""Cohorts of any size: who is on trial, galleries that are streamed, memory that stays bounded, refusals with names."""

import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from zlib import crc32

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.errors import NotApplicableError
from ecgstudy.evaluate import protocols
from ecgstudy.evaluate.biometric import NOT_STREAMED, ScoredFold, biometric_report, per_person_risk
from ecgstudy.evaluate.bootstrap import Resamples
from ecgstudy.evaluate.streamed import StreamedMatrix
from ecgstudy.evaluate.trials import ScoreMatrix
from ecgstudy.experiment.attackers import ATTACKERS, Attacker, Embedded, Fitted
from ecgstudy.experiment.evaluation import cohort_resamples, evaluate_all, scored_folds
from ecgstudy.experiment.jobs import Context, Outcome
from ecgstudy.experiment.networks import auxiliary_records
from ecgstudy.experiment.scores import ScoreSet, _block
from ecgstudy.experiment.templates import ENROLMENTS, Gallery
from ecgstudy.learn.train import make_trainer
from ecgstudy.reidentification.controls import control_table
from ecgstudy.reidentification.galleries import extrapolation_results
from ecgstudy.reidentification.plan import (
    notes,
    plan,
    protocols_of,
    protocols_on_trial,
    run_attackers,
)
from ecgstudy.reidentification.tables import undefined_results
from ecgstudy.reidentification.trialfiles import save_scores, save_trials
from ecgstudy.signals.ingest import build_store
from ecgstudy.signals.store import RecordStore

FS = 100.0


def _vectors(n: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Probe and gallery embeddings of unit length; without `noise` equal."""
    rng = np.random.default_rng([seed, n])
    gallery = rng.normal(size=(n, 16))
    probed = gallery + noise * rng.normal(size=gallery.shape)
    return tuple(vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in (probed, gallery))


def _streamed(probed: np.ndarray, gallery: np.ndarray, probe: np.ndarray, persons: np.ndarray) -> StreamedMatrix:
    """Give the cosines of probes with persons of one template each."""
    enrolled = Gallery.enrolled(gallery.astype(np.float32), np.arange(len(gallery)), len(gallery), ENROLMENTS["mean"])
    return StreamedMatrix(partial(_block, enrolled, probed.astype(np.float32)), probe, persons)


def _both(
    probed: np.ndarray, gallery: np.ndarray, probe: np.ndarray, persons: np.ndarray
) -> tuple[StreamedMatrix, ScoreMatrix]:
    """Give the same trials streamed and held."""
    streamed = _streamed(probed, gallery, probe, persons)
    return streamed, ScoreMatrix(streamed.block(slice(None)), probe, persons)


def _names(n: int) -> np.ndarray:
    return np.array([f"p{number:05d}" for number in range(n)])


@pytest.fixture(params=[0, 3], ids=["whole", "with gaps"])
def trials(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[StreamedMatrix, ScoreMatrix]:
    """300 persons, two probes each but of strangers too, some without a score, in blocks of 7 probes."""
    monkeypatch.setattr("ecgstudy.evaluate.streamed.BLOCK", 7 * 280)
    names, (first, gallery) = _names(300), _vectors(300, 0.6)
    probed = np.concatenate([first, _vectors(300, 0.7)[0]])
    probed[: request.param], gallery[10 : 10 + request.param] = np.nan, np.nan
    kept = np.random.default_rng(1).permutation(300)[:280]
    return _both(probed, gallery[kept], np.tile(names, 2), names[kept])


def test_a_streamed_matrix_says_what_the_held_one_says(trials: tuple[StreamedMatrix, ScoreMatrix]) -> None:
    streamed, held = trials
    assert streamed.unscored == held.unscored
    streamed, held = streamed.without_gaps(), held.without_gaps()
    enrolled, known = held.searches.enrolled, np.isfinite(streamed.searches.genuine_scores)
    assert np.array_equal(streamed.searches.enrolled, enrolled)
    assert np.array_equal(streamed.searches.ahead[enrolled], held.searches.ahead[enrolled])
    np.testing.assert_allclose(streamed.searches.genuine_scores[known], held.searches.genuine_scores[known], rtol=1e-6)
    resamples = Resamples.draw(_names(300), seed=0, n_resamples=300)
    one, other = (scored_folds([matrix], resamples)[0] for matrix in (streamed, held))
    assert [one.streamed, other.streamed] == [True, False]
    everybody = np.ones(300)
    coarse, exact = one.measure(everybody), other.measure(everybody)
    assert coarse.keys() == exact.keys()
    for name in ("rank1", "rank5", "dir_at_far_1e-2"):
        assert coarse[name] == exact[name]
    for name in ("eer", "tar_at_far_1e-2", "tar_at_far_1e-3", "zebra_bits", "cllr_min", "d_sys"):
        assert coarse[name] == pytest.approx(exact[name], abs=0.02), name
    # exact where one person alone is drawn more often, as probe and as gallery entry
    drawn = everybody.copy()
    drawn[resamples.index_of(streamed.gallery[:1])] = 5
    assert one.levels(drawn).totals == pytest.approx(other.levels(drawn).totals)
    assert one.measure(drawn)["eer"] == pytest.approx(other.measure(drawn)["eer"], abs=0.005)
    # intervals: the same draws, the impostors' weights to first order
    found, wanted = (biometric_report([fold], resamples, np.random.default_rng(0)) for fold in (one, other))
    for name in ("rank1", "eer", "tar_at_far_1e-2"):
        width = wanted[name].high - wanted[name].low
        assert found[name].low == pytest.approx(wanted[name].low, abs=0.15 * width + 0.003), name
        assert found[name].high == pytest.approx(wanted[name].high, abs=0.15 * width + 0.003), name
    assert all(found[name].reason == "not computed for more than 1,000,000 trials" for name in NOT_STREAMED)
    one, other = (per_person_risk([matrix]) for matrix in (streamed, held))
    assert one[["person", "rank1"]].equals(other[["person", "rank1"]])
    np.testing.assert_allclose(one["eer"], other["eer"], atol=0.02)


def test_means_of_streamed_scores_are_those_of_held_ones(trials: tuple[StreamedMatrix, ScoreMatrix]) -> None:
    streamed, held = trials
    mean = partial(np.mean, axis=0)
    double = StreamedMatrix(lambda rows: 2 * streamed.block(rows), streamed.probe, streamed.gallery)
    one = streamed.combined(mean, [streamed, double]).block(slice(None))
    np.testing.assert_allclose(one, 1.5 * held.scores, rtol=1e-6)
    sample = streamed.sampled()  # small enough: all of it
    np.testing.assert_allclose(sample.scores, held.scores[np.isin(held.probe, held.gallery)], atol=1e-6)


@pytest.mark.parametrize("known", [True, False], ids=["planted", "null"])
def test_twenty_thousand_enrolled_persons_fit_in_little_memory_and_a_null_model_fails(known: bool) -> None:
    names, (probed, gallery) = _names(20_000), _vectors(20_000, 0.2)
    probed = probed[:4000] if known else _vectors(4000, 0.2, seed=1)[0]
    resamples, rng = Resamples.draw(names, seed=0, n_resamples=20), np.random.default_rng(0)
    tracemalloc.start()
    matrix = _streamed(probed, gallery, names[:4000], names).without_gaps()
    report = biometric_report([ScoredFold(matrix, resamples, rng)], resamples, rng)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200e6  # all scores: 320 MB, and 1.6 GB if everybody probed
    if known:
        assert report["rank1"].low > 0.3
        assert report["eer"].high < 0.05
    else:
        assert report["rank1"].value < 0.002
        assert report["eer"].value == pytest.approx(0.5, abs=0.02)
        assert report["tar_at_far_1e-2"].value == pytest.approx(0.01, abs=0.01)
    assert report["eer"].low < report["eer"].value < report["eer"].high


@dataclass(frozen=True)
class _Drawn(Attacker, Fitted):
    """Embeddings of persons drawn by their name with some noise by segment; `knows` nothing: noise alone."""

    knows: bool = True

    def fit(self, *_: object) -> Fitted:
        return self

    def embed(self, dataset: object, segments: pd.DataFrame) -> Embedded:
        rows = []
        for person, record in zip(segments["subject_id"], segments["record_id"], strict=True):
            own, noise = (np.random.default_rng(crc32(name.encode())).normal(size=16) for name in (person, record))
            rows.append(self.knows * own + 0.3 * noise)
        vectors = np.array(rows).reshape(-1, 16)
        return Embedded(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def _store(n_again: int, n_once: int, seconds: float = 10.0, **columns: object) -> SimpleNamespace:
    """Record table of generated persons, those with two records (of two days) first."""
    names = [f"p{number}" for number in range(n_again + n_once)]
    table = pd.DataFrame({"subject_id": np.repeat(names, [2] * n_again + [1] * n_once)})
    table["session"] = table.groupby("subject_id").cumcount() + 1
    table["record_id"] = table["subject_id"] + "r" + table["session"].astype(str)
    table = table.assign(sha256=table["record_id"], store_samples=round(seconds * FS), sex=None, age=np.nan)
    leads = [("I",)] * len(table)
    records = table.assign(usable_leads=leads, leads=leads, reference_lead="I", **columns)
    manifest = {"key": f"{n_again} {n_once}", "cohort_digest": "d"}
    return SimpleNamespace(records=records, fs=FS, manifest=manifest, folder="none", exclusions=table.head(0))


def _context(tmp_path: Path, attackers: dict[str, Attacker] | None = None, **stores: SimpleNamespace) -> Context:
    return Context("real", stores, "cpu", attackers or {"template": _Drawn()}, cache=tmp_path)


@pytest.mark.parametrize(
    ("again", "once", "tried", "auxiliary"),
    [
        (23, 1772, 0, 1795),  # PTB-XL's subset
        (0, 1001, 0, 1001),
        (300, 4700, 300, 4700),
        (2000, 18_000, 2000, 18_000),
        (1001, 0, 1001, 0),
        (20_000, 0, 20_000, 0),
        (80, 10, 90, 0),
        (0, 200, 200, 200),
    ],
)
def test_persons_recorded_again_are_on_trial_and_the_others_help(
    tmp_path: Path, again: int, once: int, tried: int, auxiliary: int
) -> None:
    context = _context(tmp_path, own=_store(again, once))
    records = context.records("own")
    assert records.loc[records["on_trial"], "subject_id"].nunique() == tried
    assert (auxiliary_records(context)["subject_id"].nunique() if auxiliary else 0) == auxiliary
    planned = plan(context, 0)
    assert {job.protocol.name for job in planned} >= ({"cross_record"} if again and tried else set())
    assert bool(planned) == bool(tried)
    refused = pd.DataFrame([{"cohort": "own", "protocol": "cross_day", "reason": "Nobody came back."}] * 2)
    told = notes(context, Outcome({}, refused))
    assert told[0] == "own, cross day: Nobody came back."
    assert len(told) == 1 + (tried > 0 and again + once > 1000)
    for job in planned:
        (split, *_) = context.splits(job)
        few = protocols.some_on_trial(split)
        assert few.probe["subject_id"].nunique() == min(split.probe["subject_id"].nunique(), protocols.MOST_SHUFFLED)
        assert set(few.enrolment["subject_id"]) <= set(few.probe["subject_id"]) or few is split
    large = {(job.protocol.name): context.splits(job) for job in planned}
    for name, splits in large.items():
        learnt = [split.train["subject_id"].nunique() + split.validation["subject_id"].nunique() for split in splits]
        assert max(learnt) <= 2 * protocols.MOST_LEARNT, name
        if tried < again + once:
            assert not set(auxiliary_records(context)["subject_id"]) & set(splits[0].enrolment["subject_id"])


def test_a_person_alone_in_a_second_folder_helps_nobody(tmp_path: Path) -> None:
    # a network for one class cannot be trained, and every attacker of the first folder would be refused with it
    assert auxiliary_records(_context(tmp_path, own=_store(5, 0), ward=_store(0, 1))).empty
    assert len(auxiliary_records(_context(tmp_path, own=_store(5, 0), ward=_store(0, 2)))) == 2
    assert len(auxiliary_records(_context(tmp_path, a=_store(0, 1), b=_store(0, 1)))) == 2


def test_a_cohort_that_is_not_tried_is_a_row_with_its_reason(tmp_path: Path) -> None:
    context = _context(tmp_path, many=_store(23, 1772), one=_store(1, 0), few=_store(4, 0))
    outcome = run_attackers(context, plan(context, 0))
    reasons = outcome.refusals.drop_duplicates("cohort").set_index("cohort")["reason"]
    assert reasons["many"].startswith("23 of its 1,795 persons have several records")
    assert reasons["one"] == "It has one person only, who can be confused with nobody."
    rows = undefined_results(pd.DataFrame(columns=["cohort"]), outcome.refusals)
    assert {("many", "cross_record", "best"), ("one", "cross_record", "best")} <= set(
        rows[["cohort", "protocol", "attacker"]].itertuples(index=False, name=None)
    )
    # nobody on trial is ever learnt from under the name of another cohort
    two = _context(tmp_path, one=_store(5, 195), other=_store(0, 100))
    crossed = [protocol for protocol in protocols_of("one", two) if protocol.name.startswith("cross_cohort")]
    assert {name.split("/")[0] for protocol in crossed for name in protocol.others["subject_id"]} == {"other"}


@pytest.mark.parametrize("known", [True, False], ids=["planted", "null"])
def test_a_thousand_and_one_persons_go_through_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, known: bool
) -> None:
    attackers = {"template": _Drawn(known), "resnet1d": _Drawn(known)}
    context = _context(tmp_path, attackers, own=_store(1001, 30))
    jobs = [job for job in plan(context, 0) if job.protocol.name in ("cross_record", "subject_disjoint_cross_record")]
    score_sets: list[ScoreSet] = list(run_attackers(context, jobs).values.values())
    assert isinstance(score_sets[0].folds[0].trials, StreamedMatrix)
    assert all(fold.validation.scores.size <= 1_000_000 for s in score_sets for fold in s.folds)
    resamples = cohort_resamples(score_sets, 0, n_resamples=10)
    rows, attacks, _ = evaluate_all(score_sets, resamples)
    value = rows.set_index(["protocol", "attacker", "metric"])["value"]
    assert value["cross_record", "template", "enrolled"] == 1001
    assert value["cross_record", "template", "rank1"] == (
        pytest.approx(1, abs=0.3) if known else pytest.approx(0, abs=0.01)
    )
    assert value["cross_record", "template", "eer"] == (
        pytest.approx(0, abs=0.05) if known else pytest.approx(0.5, abs=0.05)
    )
    held = {key: attack for key, attack in attacks.items() if key[1:] == ("cross_record", "best")}
    assert control_table(rows, rows.head(0), held)["one in N"].item() == pytest.approx(1e-3, abs=1e-5)
    assert len(extrapolation_results(held, resamples, rows.head(0))) == 5
    trialled = protocols_on_trial(context, jobs[:1])
    save_trials(context, trialled, tmp_path / "trials")
    save_scores(context, trialled, attacks, tmp_path / "trials")
    parts = sorted(file.name.split(".")[2] for file in (tmp_path / "trials").glob("own.cross_record.*"))
    assert parts == ["enrolment", "probes", "train", "validation"]
    assert len(pd.read_csv(tmp_path / "trials" / "own.cross_record.probes.csv.gz")) == 1001


class _Recorder:
    """Stands in for the stage of a notebook whose cells are run here."""

    draws_traces, device = False, "cpu"

    def __init__(self, folder: Path) -> None:
        self.folder, self.findings = folder, []

    def finding(self, text: str) -> None:
        self.findings.append(text)

    def figure(self, name: str, figure: Figure, *_: str) -> None:
        figure.savefig(self.folder / f"{name}.png")
        plt.close(figure)

    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_, **__: None


ODD = {
    "one person": ({"n_subjects": 1}, "one person only"),
    "nobody to learn from": ({"n_subjects": 2, "n_records": 1}, "has one record; no two people have 4 s to learn from"),
    "two persons": ({"n_subjects": 2}, "2 persons are too few for 3 folds"),
    "hardly a probe": ({"n_subjects": 12, "n_records": 1}, "No attacker was chosen"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("size", "said"), ODD.values(), ids=ODD)
def test_stage_02_ends_with_a_result_or_a_reason_on_any_cohort(
    tmp_path: Path, project_root: Path, monkeypatch: pytest.MonkeyPatch, size: dict[str, int], said: str
) -> None:
    store = build_store(SyntheticCohort(**({"n_sessions": 1, "n_records": 2} | size), seed=3), tmp_path)
    unlabelled = store.records.assign(sex=None, age=np.nan)
    monkeypatch.setattr(RecordStore, "records", property(lambda _: unlabelled))
    attackers = {name: ATTACKERS[name] for name in ("template", "features_gbm")}
    context = Context("mine", {"own": store}, "cpu", attackers, cache=tmp_path)
    notebook = nbformat.read(project_root / "notebooks" / "02_reidentification.ipynb", as_version=4)
    _, opened, *cells = (cell.source for cell in notebook.cells if cell.cell_type == "code")
    stage, here = _Recorder(tmp_path), {"context": context, "seed": 0, "stores": context.stores, "profile": "mine"}
    exec(opened.split("stage = ")[0], here)
    here |= {"stage": stage, "jobs": plan(context, 0), "make_trainer": lambda epochs: make_trainer(epochs // 60)}
    try:
        for cell in cells:
            exec(cell, here)
    except NotApplicableError as reason:
        stage.finding(str(reason))
    assert said in " ".join(stage.findings)
