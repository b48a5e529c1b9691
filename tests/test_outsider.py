"""Trials as files, and somebody else's scores of them: the same numbers as ours, or one sentence."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from ecgstudy.__main__ import main
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.evaluate.protocols import CrossCohort, CrossDay, CrossRecord, SubjectDisjoint
from ecgstudy.experiment.attackers import Embedded, TemplateAttacker
from ecgstudy.experiment.dataset import Dataset
from ecgstudy.experiment.evaluation import Evaluation, cohort_resamples, evaluate_all
from ecgstudy.experiment.jobs import Context, Job
from ecgstudy.ingestion import stores
from ecgstudy.reidentification import outsider, trialfiles
from ecgstudy.reidentification.plan import protocols_on_trial, run_attackers
from ecgstudy.reidentification.trialfiles import save_scores, save_trials
from ecgstudy.signals.ingest import build_store


@dataclass(frozen=True)
class _Noisy(TemplateAttacker):
    """The template with noise, so that the two differ."""

    noise: ClassVar[float] = 0.1

    def embed(self, dataset: Dataset, segments: pd.DataFrame) -> Embedded:
        vectors = super().embed(dataset, segments).vectors
        return Embedded(vectors + self.noise * np.random.default_rng(len(segments)).normal(size=vectors.shape))


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    cache = tmp_path_factory.mktemp("cache")
    opened = {"synthetic": build_store(SyntheticCohort(n_subjects=10, n_records=2, seed=1), cache, delineate=False)}
    attackers = {"template": TemplateAttacker(), "noisy": _Noisy()}
    return Context("demo", opened, "cpu", attackers, cache=cache)


@pytest.fixture(scope="module")
def jobs(context: Context) -> list[Job]:
    others = context.records("synthetic").head(0)
    protocols = [CrossDay(), SubjectDisjoint(CrossRecord()), CrossCohort(others, CrossDay())]
    return [Job("synthetic", protocol, attacker, 0) for protocol in protocols for attacker in context.attackers]


@pytest.fixture(scope="module")
def found(context: Context, jobs: list[Job]) -> Evaluation:
    score_sets = [*run_attackers(context, jobs).values.values()]
    return evaluate_all(score_sets, cohort_resamples(score_sets, 0, 20))


@pytest.fixture
def trials(
    context: Context, jobs: list[Job], found: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    monkeypatch.setenv("ECGSTUDY_RESULTS", str(tmp_path))
    folder = tmp_path / "demo" / "02_reidentification" / "trials"
    trialled = protocols_on_trial(context, jobs)
    save_trials(context, trialled, folder)
    save_scores(context, trialled, found.attacks, folder)
    return folder


def test_files_list_every_part_and_pair_in_samples_and_seconds(context: Context, trials: Path, jobs: list[Job]) -> None:
    names = {file.name for file in trials.iterdir()}
    parts = ("train", "validation", "enrolment", "pairs", "scores")
    assert {f"synthetic.subject_disjoint_cross_record.{part}.csv.gz" for part in parts} < names
    split = context.splits(jobs[0])[0]
    for part in ("train", "validation", "enrolment"):
        listed, own = pd.read_csv(trials / f"synthetic.cross_day.{part}.csv.gz"), getattr(split, part)
        assert list(listed) == ["fold", "subject_id", "record_id", "start", "stop", "start_s", "stop_s", "lead"]
        for column in ("subject_id", "record_id", "start", "stop"):
            assert listed[column].tolist() == own[column].tolist()
        np.testing.assert_allclose(listed["stop_s"], own["stop"] / 100)
        assert set(listed["lead"]) == {"I"}
    pairs = pd.read_csv(trials / "synthetic.cross_day.pairs.csv.gz")
    owner = dict(zip(split.probe["record_id"], split.probe["subject_id"], strict=True))
    assert (pairs["genuine"] == (pairs["record_id"].map(owner) == pairs["enrolled"])).all()
    assert (len(pairs), pairs["genuine"].sum()) == (200, 20)
    readme = (trials / "README.md").read_text()
    for words in (
        "samples at 100 Hz",
        "lead",
        "a tie counts against",
        "`fold`",
        "synthetic: 40 records take part, 0 were",
    ):
        assert words in readme
    assert "$" not in readme


def test_files_are_the_same_bytes_each_time(
    context: Context, jobs: list[Job], trials: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 1)  # by another process
    save_trials(context, protocols_on_trial(context, jobs), tmp_path / "again")
    for file in (tmp_path / "again").iterdir():
        assert file.read_bytes() == (trials / file.name).read_bytes()


def test_scores_of_every_attacker_stand_beside_the_pairs(trials: Path, found: Evaluation) -> None:
    table = pd.read_csv(trials / "synthetic.subject_disjoint_cross_record.scores.csv.gz")
    pairs = pd.read_csv(trials / "synthetic.subject_disjoint_cross_record.pairs.csv.gz")
    pd.testing.assert_frame_equal(table.iloc[:, :5], pairs[["fold", "record_id", "start", "enrolled", "genuine"]])
    assert list(table)[5:] == [of for (_, protocol, of) in found.attacks if protocol.startswith("subject_disjoint")]
    for (_, protocol, attacker), folds in found.attacks.items():
        if protocol == "subject_disjoint_cross_record":
            expected = np.concatenate([fold.scores.ravel() for fold in folds])
            np.testing.assert_allclose(table[attacker], expected, rtol=1e-6)


def test_of_more_pairs_than_a_file_holds_the_probes_are_listed(
    context: Context, jobs: list[Job], found: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trialfiles, "MOST_HELD_TRIALS", 199)
    trialled = protocols_on_trial(context, jobs[:1])
    save_trials(context, trialled, tmp_path)
    save_scores(context, trialled, found.attacks, tmp_path)
    parts = sorted(file.name.split(".")[2] for file in tmp_path.glob("synthetic.*"))
    assert parts == ["enrolment", "probes", "train", "validation"]


def _mine(trials: Path, list_of: str = "cross_day", attacker: str = "template") -> pd.DataFrame:
    """Scores of ours as if they were somebody else's, in another order."""
    table = pd.read_csv(trials / f"synthetic.{list_of}.scores.csv.gz")
    return table.assign(score=table[attacker])[["score", "enrolled", "start", "record_id", "fold"]].sample(
        frac=1, random_state=0
    )


def _said(mine: pd.DataFrame, capsys: pytest.CaptureFixture, code: int = 0) -> list[str]:
    mine.to_csv("mine.csv", index=False)
    assert main(["score", "mine.csv", "--profile", "demo"]) == code
    said = capsys.readouterr()
    return (said.err if code else said.out).splitlines()


@pytest.fixture
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work where the test's files are, with few resamples."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(outsider, "cohort_resamples", partial(cohort_resamples, n_resamples=20))


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize("list_of", ["cross_day", "subject_disjoint_cross_record"])
def test_our_scores_from_somebody_else_are_worth_what_they_are_from_us(
    trials: Path, found: Evaluation, list_of: str, capsys: pytest.CaptureFixture
) -> None:
    lines = _said(_mine(trials, list_of), capsys)
    rows = found.rows.set_index(["protocol", "attacker", "metric"])["value"][list_of]
    told = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines if line.startswith("  ")}
    for metric in ("rank1", "rank1_per_person", "eer"):
        assert told[metric].startswith(f"{rows['template', metric]:.3f} (")
    assert told["template"].startswith(f"rank1 {rows['template', 'rank1']:.3f}, yours +0.000 (+0.000 to +0.000); eer")
    difference = rows["template", "eer"] - rows["noisy", "eer"]
    assert f"eer {rows['noisy', 'eer']:.3f}, yours {difference:+.3f} (" in told["noisy"]
    assert rows["noisy", "rank1"] != rows["template", "rank1"]
    # the trials of a protocol are those of another that learns from somebody else
    named = [line.split(":")[0] for line in lines if line and not line.startswith(" ")]
    also = ["synthetic.cross_cohort_cross_day"] if list_of == "cross_day" else []
    assert named == [*also, f"synthetic.{list_of}"]


MISTAKES = {
    "a wrong column": (lambda t: t.rename(columns={"score": "similarity"}), "mine.csv has no column score;"),
    "a trial is missing": (lambda t: t.iloc[1:], "1 of that list are missing and 0 rows are none of it"),
    "a strange trial": (
        lambda t: t.replace("synthetic/S003", "S3"),
        "20 of that list are missing and 20 rows are",
    ),
    "no score": (lambda t: t.assign(score=t["score"].where(t.index != 7)), "has no score (0.0, synthetic/"),
    "no number": (lambda t: t.assign(score="high"), "Line 2 of mine.csv has a score that is no number"),
    "infinite": (lambda t: t.assign(score=np.inf), "Line 2 of mine.csv has a score that is no number"),
    "twice": (lambda t: pd.concat([t, t.iloc[[5]]]), "Line 202 of mine.csv scores a trial again"),
}


@pytest.mark.usefixtures("_here")
@pytest.mark.parametrize(("spoil", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_sentence(trials: Path, spoil: object, sentence: str, capsys: pytest.CaptureFixture) -> None:
    (line,) = _said(spoil(_mine(trials)), capsys, code=1)
    assert sentence in line


@pytest.mark.usefixtures("_here")
def test_semicolons_absent_files_and_absent_results_are_one_sentence(
    trials: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    _mine(trials).to_csv("mine.csv", index=False, sep=";")
    assert main(["score", "mine.csv", "--profile", "demo"]) == 1
    assert "its first line must name it, separated by commas" in capsys.readouterr().err
    assert main(["score", "their.csv", "--profile", "demo"]) == 1
    assert "There is no file their.csv" in capsys.readouterr().err
    _mine(trials).to_csv("mine.csv", index=False)
    monkeypatch.setenv("ECGSTUDY_RESULTS", str(tmp_path / "other"))
    assert main(["score", "mine.csv", "--profile", "demo"]) == 1
    assert "holds no scores of ours; run `python -m ecgstudy study demo` first" in capsys.readouterr().err


@pytest.mark.usefixtures("_here")
def test_the_readmes_attacker_in_thirty_lines_runs_and_is_as_good_as_the_template(
    context: Context, trials: Path, project_root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    code = (project_root / "README.md").read_text().split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) <= 30
    monkeypatch.setattr(stores, "open_usable_stores", lambda *_, **__: (context.stores, None))
    exec(compile(code, "README.md", "exec"), {})
    lines = _said(pd.read_csv("mine.csv"), capsys)
    rank1 = next(float(line.split()[1]) for line in lines if line.strip().startswith("rank1 "))
    assert rank1 >= 0.7
