"""The plan and results of stage 06: who learns from whom, what is compared on which records, and metrics by name."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from ecgstudy.data.ptbxl import PtbxlCohort
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.errors import NotApplicableError
from ecgstudy.evaluate.splits import RECORD, SUBJECT
from ecgstudy.experiment.jobs import Context, run
from ecgstudy.layouts import figures, plan, results, tables
from ecgstudy.layouts import pages as cohort_pages
from ecgstudy.layouts.beats import PIECES
from ecgstudy.layouts.layout import LAYOUTS, RANDOM
from ecgstudy.layouts.models import BeatECG, replaced, untrained
from ecgstudy.layouts.pages import Pages
from ecgstudy.layouts.plan import BEST, PageJob, Reading
from ecgstudy.layouts.rhythm import FEATURES
from ecgstudy.signals.ingest import build_store

N = 120


def pages(n: int = N, labels: dict[str, np.ndarray] | None = None) -> Pages:
    """Make records of as many persons, without any samples."""
    records = pd.DataFrame({RECORD: [f"c/{row:03d}" for row in range(n)], SUBJECT: [f"c/p{row}" for row in range(n)]})
    truth = {"subclass A": np.arange(n) % 3 == 0, "subclass RARE": np.arange(n) < 3, "superclass S": np.arange(n) % 2}
    table = pd.DataFrame(labels or truth).astype(float)
    return Pages(records, np.zeros((n, 12, 10), dtype=np.float32), table, np.arange(n) % 10 + 1)


def scores(of: Pages, model: str, strength: float, rows: slice = slice(None), seed: int = 0) -> results.Scores:
    """Log odds of a model that knows each label as well as it is strong, the same on every layout but for noise."""
    rng = np.random.default_rng(seed)
    table = of.labels.set_axis(of.records[RECORD])[rows]
    return {
        (model, view): strength * table + rng.normal(size=table.shape) * (2 if view == "3x4" else 1)
        for view in plan.VIEWS
    }


@pytest.fixture(scope="module")
def compared() -> tuple[Pages, results.Scores, pd.DataFrame]:
    """Give a strong judged model, a weak one, two fills, and one that has read the last half of the records only."""
    of = pages()
    every = scores(of, BEST, 3.0) | scores(of, "resnet1d", 1.0, seed=1) | scores(of, "fill_knn", 0.5, seed=2)
    every |= scores(of, "fill_copy", 2.0, seed=3) | scores(of, "patchecg_paper", 0.0, slice(60, None), seed=4)
    return of, every, results.page_results(of, every, "c", 0, 100)


def value(rows: pd.DataFrame, name: str, column: str = "value") -> float:
    """Look up the number of a metric."""
    return float(rows.set_index("name").loc[name, column])


def test_numbers_bear_the_names_of_the_issue_and_are_those_of_scikit_learn(
    compared: tuple[Pages, results.Scores, pd.DataFrame],
) -> None:
    of, every, rows = compared
    own = [roc_auc_score(of.labels["subclass A"], every[BEST, view]["subclass A"]) for view in LAYOUTS]
    rare = [roc_auc_score(of.labels["subclass RARE"], every[BEST, view]["subclass RARE"]) for view in LAYOUTS]
    for number, view in enumerate(LAYOUTS):
        assert value(rows, f"c.subclass5.{view}.{BEST}.auroc") == pytest.approx(own[number])
        assert value(rows, f"c.subclass.{view}.{BEST}.auroc") == pytest.approx((own[number] + rare[number]) / 2)
    assert value(rows, f"c.subclass5.mean.{BEST}.auroc") == pytest.approx(np.mean(own))
    assert value(rows, "c.subclass5.spread") == pytest.approx(max(own) - min(own))
    drawn = roc_auc_score(of.labels["subclass A"], every[BEST, RANDOM]["subclass A"])
    assert value(rows, "c.subclass5.random_minus_mean") == pytest.approx(drawn - np.mean(own))
    assert f"c.superclass.{RANDOM}.resnet1d.auroc" in set(rows["name"])
    assert not rows["name"].duplicated().any()


def test_what_is_compared_is_compared_on_the_same_records(
    compared: tuple[Pages, results.Scores, pd.DataFrame],
) -> None:
    of, every, rows = compared
    truth = of.labels["subclass A"].to_numpy()

    def mean(model: str, half: slice) -> float:
        found = [every[model, view] for view in LAYOUTS]
        tables = [table.loc[of.records[RECORD][half].tolist()] for table in found]
        return float(np.mean([roc_auc_score(truth[half], table["subclass A"]) for table in tables]))

    late = slice(60, None)
    gain = value(rows, "c.subclass5.gain_over_patchecg_paper")
    assert gain == pytest.approx(mean(BEST, late) - mean("patchecg_paper", late))
    assert value(rows, "c.subclass5.gain_over_patchecg_paper", "n") == 60
    assert value(rows, "c.subclass5.gain_over_patchecg_paper", "low") > 0
    everybody = slice(None)
    assert value(rows, "c.subclass5.gain_over_resnet1d") == pytest.approx(
        mean(BEST, everybody) - mean("resnet1d", everybody)
    )
    # the best fill, not the first
    expected = mean(BEST, everybody) - mean("fill_copy", everybody)
    assert value(rows, "c.subclass5.gain_over_best_fill") == pytest.approx(expected)


def test_a_model_answers_only_what_it_was_asked() -> None:
    of = pages(labels={"subclass A": np.arange(N) % 3 == 0, "af AFIB": np.arange(N) % 4 == 0})
    rhythm = {cell: table[["af AFIB"]] for cell, table in scores(of, "rhythm", 2.0).items()}
    rows = results.page_results(of, scores(of, BEST, 1.0) | rhythm, "c", 0, 5)
    asked = rows[rows["attacker"] == "rhythm"]["task"].unique().tolist()
    assert asked == ["af"]


def test_a_class_that_a_fold_could_not_learn_is_said_to_be_absent() -> None:
    of = pages()
    every = scores(of, BEST, 3.0)
    lost = {
        cell: table.assign(**{"subclass A": table["subclass A"].where(of.labels["subclass A"].to_numpy() == 0)})
        for cell, table in every.items()
    }
    rows = results.page_results(of, lost, "c", 0, 2)
    assert value(rows, f"c.subclass5.mean.{BEST}.auroc") == 0.0


def test_calibration_is_the_mean_distance_from_the_diagonal() -> None:
    of = pages(labels={"subclass A": np.arange(N) % 4 == 0})
    odds = pd.DataFrame({"subclass A": np.full(N, np.log(0.65 / 0.35))}, of.records[RECORD])
    table = results.calibration(of, {(BEST, view): odds for view in plan.VIEWS})
    assert table[["predicted", "observed", "n"]].to_numpy().tolist() == [[pytest.approx(0.65), 0.25, 6 * N]]
    row = results.calibration_results(table, "c").iloc[0]
    assert (row["name"], row["value"]) == (f"c.subclass5.mean.{BEST}.calibration_error", pytest.approx(0.4))


def test_seeds_are_averaged_and_folds_pooled() -> None:
    jobs = [PageJob("c", "c", BEST, pair, seed) for pair in ((1, 2), (3, 4)) for seed in (0, 1)]
    names = {(1, 2): ["c/0", "c/1"], (3, 4): ["c/2"]}
    values = {
        job.name: Reading(
            names[job.pair], ["t"], {(BEST, "3x4"): np.full((len(names[job.pair]), 1), job.seed + job.pair[0])}
        )
        for job in jobs
    }
    values |= {"other": Reading(["c/9"], ["t"], {(BEST, "3x4"): np.zeros((1, 1))})}
    pooled = results.scores_of(values, jobs, "c")[BEST, "3x4"]["t"]
    assert pooled.to_dict() == {"c/0": 1.5, "c/1": 1.5, "c/2": 3.5}
    assert results.scores_of(values, jobs, "elsewhere") == {}


def test_tables_and_sentences_say_what_the_rows_say(compared: tuple[Pages, results.Scores, pd.DataFrame]) -> None:
    of, every, rows = compared
    table = tables.model_table(rows)
    assert table["model"].tolist()[0] == BEST
    assert [*table] == ["model", "persons", "mean", *plan.VIEWS]
    assert table.set_index("model").loc["patchecg_paper", "persons"] == 60
    told = tables.findings(rows)
    assert any("above patchecg_paper" in sentence for sentence in told)
    assert len(told) == 1 + 3
    labels = tables.label_table(results.label_results(of, every, "c"))
    assert labels.set_index("label").loc["subclass RARE", "positives"] == 3
    assert tables.paper_table(rows)["model"].tolist()[0].startswith("PatchECG")
    drawn, masks = figures.layouts_figure(rows), figures.masks_figure()
    assert masks.axes
    bars = drawn.axes[0].containers
    hollow = {bar.get_label() for bar in bars if bar.lines[0].get_markerfacecolor() == "none"}
    assert hollow == {"patchecg_paper"}  # asked about fewer people


def test_evidence_is_found_where_it_was_put(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [str(row) for row in range(29)]
    model = untrained(BeatECG, 0, n_leads=29, n_samples=80, fs=100.0, classes={"t": ["no", "yes"]}, lead_names=names)
    inputs, usual = np.random.default_rng(0).normal(size=(4, 29, 80)), np.zeros((29, 80))

    def forward(x: torch.Tensor) -> dict[str, torch.Tensor]:
        odds = x[:, 7, 40] + 2 * x[:, 19, 30] + x[:, 25, 0]  # V2's median and deviation, both in QRS, and the rhythm
        return {"t": torch.vstack([odds * 0, odds]).T}

    monkeypatch.setattr(model, "forward", forward)
    falls = replaced(model, inputs, usual)[..., 0]
    told = {PIECES[at] for at in np.flatnonzero(np.abs(falls).max(axis=0) > 1e-6)}
    assert told == {("V2", "QRS"), ("rhythm", "rhythm")}
    np.testing.assert_allclose(falls[:, -1], inputs[:, 25, 0], rtol=1e-4)
    assert figures.evidence_figure({"t": falls.mean(axis=0)}).axes


def small_context(folder: Path, monkeypatch: pytest.MonkeyPatch, n: int = 24) -> Context:
    """Context of a few synthetic persons, and recipes of networks that are trained at once."""
    monkeypatch.setattr(cohort_pages, "SYNTHETIC_PERSONS", n)
    kept = {
        name: replace(plan.RECIPES[name], epochs=1, draws=min(plan.RECIPES[name].draws, 1))
        for name in (BEST, "fill", "patchecg_paper")
    }
    monkeypatch.setattr(plan, "RECIPES", kept)
    monkeypatch.setattr(
        plan, "recipe_of", lambda profile, model, own=plan.recipe_of: replace(own(profile, model), epochs=1)
    )
    cohort = cohort_pages._synthetic(0)
    return Context(
        "demo", {cohort.name: build_store(cohort, folder, delineate=False)}, "cpu", {}, cache=folder, split_seed=0
    )


def test_every_record_is_read_once_by_models_that_have_not_seen_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = small_context(tmp_path, monkeypatch)
    cohort, others = cohort_pages.asked_cohorts(context)
    assert (cohort, others) == (SyntheticCohort.name, ())
    of = cohort_pages.pages_of(context, cohort)
    assert of.values.shape == (48, 12, 1000)
    assert len(set(zip(of.records[SUBJECT], of.fold, strict=True))) == 24
    jobs = plan.page_jobs(context, 0)
    assert [job.pair for job in jobs if job.model == "patchecg_paper"] == [plan.LAST_PAIR]
    trained: list[set[str]] = []
    own = plan.fit
    monkeypatch.setattr(
        plan, "fit", lambda model, known, *rest: trained.append({*known.subjects}) or own(model, known, *rest)
    )
    read = run(plan.diagnose, jobs, context, "models")
    assert read.refusals.empty
    for job, persons in zip(jobs, trained, strict=True):
        asked = of.records.set_index(RECORD).loc[read.values[job.name].records, SUBJECT]
        assert not persons & set(asked)
        assert len(persons) + asked.nunique() == 24
    pooled = results.scores_of(read.values, jobs, cohort)
    assert sorted(pooled[BEST, RANDOM].index) == sorted(of.records[RECORD])
    assert {model for model, _ in pooled} == {
        BEST,
        "fill_linear",
        "fill_knn",
        "fill_copy",
        "fill_repeat",
        "patchecg_paper",
    }
    label = next(name for name in of.labels if name.startswith("subclass"))
    assert np.isfinite(results.evidence_of(read.values, jobs, of, label)).all()
    table = cohort_pages.cohort_table(context)
    assert table.set_index(["labels", "label"]).loc[("af", "AFIB"), "positives"] == of.labels["af AFIB"].sum()


def test_what_training_takes_is_that_of_a_batch_times_its_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = small_context(tmp_path, monkeypatch)
    clock = iter(np.arange(100.0) ** 2)  # the median of three batches takes so many seconds
    monkeypatch.setattr(plan, "time", SimpleNamespace(process_time=lambda: next(clock)))
    costs = plan.training_cost(context, SyntheticCohort.name, 0).set_index("model")
    of = cohort_pages.pages_of(context, SyntheticCohort.name)
    n = int((~np.isin(of.fold, plan.LAST_PAIR)).sum())
    assert n < plan.BATCH  # one batch a layout
    draws = {name: max(plan.recipe_of("demo", name).draws, 1) for name in costs.index}
    assert costs["batches"].to_dict() == draws
    assert costs["core_s"].tolist() == [5.0 * draws[BEST], 17.0, 29.0]
    rows = results.cost_results(costs.reset_index(), "c")
    assert value(rows, f"c.training.{BEST}.times_faster_than_patchecg_paper") == pytest.approx(29 / (5 * draws[BEST]))
    assert value(rows, "c.training.fill.core_s") == 17


def test_nobody_is_asked_without_twelve_leads_and_diagnoses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = small_context(tmp_path, monkeypatch)
    monkeypatch.setattr(cohort_pages, "LEAST_PERSONS", 25)
    with pytest.raises(NotApplicableError, match="no cohort has 25 persons or more"):
        cohort_pages.asked_cohorts(context)


def test_labels_of_the_official_layout_are_read_by_set(tree: object) -> None:
    records = tree("ptbxl").records()
    labels = cohort_pages.label_table(records)
    assert isinstance(tree("ptbxl"), PtbxlCohort)
    for kind, column in (("subclass", "subclasses"), ("superclass", "superclasses")):
        for name in {name for cell in records[column] for name in cell}:
            expected = [float(name in cell) if cell else np.nan for cell in records[column]]
            np.testing.assert_array_equal(labels[f"{kind} {name}"], expected)
    assert [*labels.filter(regex="^af ")] in ([], ["af AFIB"])


def test_ludb_s_words_become_superclasses(tree: object) -> None:
    labels = cohort_pages.label_table(tree("ludb").records())
    assert labels["af AFIB"].tolist() == [0.0, 1.0]
    assert labels["superclass HYP"].tolist() == [1.0, 0.0]
    assert labels["superclass NORM"].tolist() == [0.0, 1.0]
    words = {"ischaemia": [("Stemi: septal",), ("Ischemia: apical",), ("Undefined ischemia/scar/supp.nstemi: apical",)]}
    words |= {"conduction": [(), ("Left anterior hemiblock",), ()]}
    words |= {column: [(), (), ()] for column in ("hypertrophy", "repolarisation")}
    found = cohort_pages._ludb_superclasses(pd.DataFrame(words))
    assert found["MI"].tolist() == [1, 0, 0]
    assert found["STTC"].tolist() == [0, 1, 1]
    assert found["CD"].tolist() == [0, 1, 0]


def test_the_threshold_of_fibrillation_has_the_highest_balanced_accuracy() -> None:
    scores, truth = np.array([0.1, 0.4, 0.35, 0.8, 0.9]), np.array([False, False, True, True, True])
    threshold = plan._threshold(scores, truth)
    assert threshold == 0.8  # two of three seen, nobody falsely; at 0.35 all are seen, and one falsely
    of = pages(4, {"af AFIB": np.array([1, 1, 0, np.nan])})
    odds = pd.DataFrame({"af AFIB": [0.0, -1.0, -1.0, 5.0]}, of.records[RECORD])
    rows = results.threshold_results(of, {("rhythm", "3x4"): odds, (BEST, "3x4"): odds.assign(more=0)}, "c", 0)
    assert rows["name"].tolist() == ["c.af.3x4.rhythm.sensitivity", "c.af.3x4.rhythm.specificity"]
    assert rows["value"].tolist() == [0.5, 1.0]
    assert results.threshold_results(pages(4, {"subclass LVH": np.ones(4)}), {("x", "3x4"): odds}, "c", 0).empty


def test_fibrillation_may_stand_among_the_diagnoses() -> None:
    labels = cohort_pages.label_table(pd.DataFrame({"diagnosis": ["AFIB", "LVH", ""]}))
    np.testing.assert_array_equal(labels["af AFIB"], [1.0, 0.0, np.nan])


def test_the_model_of_the_rhythm_learns_from_the_other_folds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = small_context(tmp_path, monkeypatch)
    learnt: list[set[int]] = []

    class Model:
        def __init__(self, seed: int) -> None: ...

        def fit(self, table: pd.DataFrame, labels: np.ndarray) -> "Model":
            learnt.append(set(table.index))
            assert labels.dtype == bool
            return self

        def score(self, features: pd.DataFrame) -> np.ndarray:
            assert tuple(features) == FEATURES
            return np.zeros(len(features))

    monkeypatch.setattr(plan, "FibrillationModel", Model)
    of = cohort_pages.pages_of(context, SyntheticCohort.name)
    job = plan.rhythm_jobs(context, 0)[0]
    reading = plan.fibrillation(context, job)
    held = set(np.flatnonzero(np.isin(of.fold, job.pair)))
    assert {row for row, record in enumerate(of.records[RECORD]) if record in reading.records} == held
    assert learnt[-1] == set(range(48)) - held
    # the halves that find the threshold share nobody
    assert not learnt[0] & learnt[1]
    assert learnt[0] | learnt[1] == learnt[-1]
    assert set(reading.scores) == {("rhythm", view) for view in plan.VIEWS}
