"""The paper's claims are judged where they can be judged, by what the intervals say."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from ecgstudy.attribution import claims
from ecgstudy.attribution.claims import CLAIMS, ClaimJob, claim_rows, judged, twelve_leads, ungated, verdict
from ecgstudy.attribution.exchange import BASELINES, DONOR, FACTORS, OWN_TIMING
from ecgstudy.attribution.methods import UNTRAINED, ZERO, Answers, Method, Question
from ecgstudy.attribution.planted import FINE, SHAPE, TIMING
from ecgstudy.attribution.shares import Spoken
from ecgstudy.attribution.waves import region_mask
from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.data.synthetic import SyntheticCohort
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.bootstrap import Estimate, Resamples
from ecgstudy.experiment.jobs import Context, Outcome
from ecgstudy.learn.models import create_model
from ecgstudy.signals.ingest import build_store

JOB = ClaimJob("synthetic", "sex", STANDARD_LEADS, (("replacement", DONOR),), 0)


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """Twelve persons with two records each."""
    cache = tmp_path_factory.mktemp("cache")
    cohort = SyntheticCohort(n_subjects=12, n_sessions=1, n_records=2, seed=1)
    return Context("demo", {"synthetic": build_store(cohort, cache, workers=1)}, "cpu", {}, cache=cache)


def estimate(value: float, low: float, high: float) -> Estimate:
    """Estimate of ten persons."""
    return Estimate(value, low, high, 10)


def test_verdicts_follow_the_paired_intervals() -> None:
    over, under, unsure = estimate(0.2, 0.1, 0.3), estimate(-0.2, -0.3, -0.1), estimate(0.1, -0.1, 0.3)
    assert verdict(over, over) == claims.HOLDS
    assert verdict(over, unsure) == verdict(over, under) == claims.CONTROL
    assert verdict(under, over) == claims.FAILS
    assert verdict(unsure, over) == claims.OPEN


def test_a_network_that_knows_no_more_than_chance_or_the_base_rate_is_not_asked() -> None:
    known = {"accuracy": estimate(0.8, 0.7, 0.9), "majority": Estimate(0.76), "auroc": estimate(0.8, 0.6, 0.9)}
    assert ungated(known) is None
    assert "no more often" in ungated(known | {"accuracy": estimate(0.61, 0.5, 0.7)})
    assert "no more often" in ungated(known | {"accuracy": estimate(0.76, 0.7, 0.8)})
    assert "no more than chance" in ungated(known | {"auroc": estimate(0.6, 0.5, 0.7)})
    assert "no more than chance" in ungated(known | {"auroc": Estimate(float("nan"))})


def shares(**of: float) -> np.ndarray:
    """Give drawn shares of a few factors that vary a little from draw to draw."""
    row = np.array([of.get(factor.replace(" ", "_"), 0.0) for factor in FACTORS])
    return np.abs(row * np.linspace(0.99, 1.01, 51)[:, None])


def test_a_claim_is_judged_by_the_largest_factor_outside_its_region_and_the_nearest_control() -> None:
    about = {"method": "replacement", "baseline": DONOR}

    def judge(name: str, own: np.ndarray, *controls: np.ndarray) -> dict[str, object]:
        return judged(CLAIMS[name], about, Spoken(own, list(controls), None, None), 10)

    own = shares(P=0.3, PR=0.1, PR_interval=0.2, T=0.4)
    found = judge("age_PR_to_QRS_onset", own, shares(P=0.2, T=0.8), shares(P=0.3, T=0.7))
    assert found["share"] == pytest.approx(0.6, abs=0.01)
    assert found["over_others"] == pytest.approx(0.2, abs=0.01)
    assert found["over_control"] == pytest.approx(0.3, abs=0.01)
    assert found["verdict"] == claims.HOLDS
    assert judge("age_PR_to_QRS_onset", own, shares(P=0.7, T=0.3))["verdict"] == claims.CONTROL
    # the reading to the R peak holds QRS too
    of_qrs = shares(P=0.2, QRS=0.5, T=0.3)
    assert judge("age_PR_to_QRS_onset", of_qrs, shares(T=1))["verdict"] == claims.FAILS
    assert judge("age_PR_to_R_peak", of_qrs, shares(T=1))["verdict"] == claims.HOLDS


def test_records_are_of_people_of_known_class_with_all_leads(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    windows, fiducials = twelve_leads(context, JOB)
    assert windows.samples.shape == (24, 12, 1000)
    np.testing.assert_allclose(windows.samples.mean(axis=-1), 0, atol=1e-5)
    assert len(fiducials) == 24
    people = context.people.reindex(windows.subjects)
    np.testing.assert_array_equal(windows.targets["sex"], people["sex"].map({"F": 0, "M": 1}))
    old, _ = twelve_leads(context, ClaimJob("synthetic", "age", ("I",), (), 0))
    ages = context.people.reindex(old.subjects)["age"]
    np.testing.assert_array_equal(old.targets["age"], (ages >= claims.OLD).astype(int))
    first = windows.samples[:, [STANDARD_LEADS.index("I")]]
    np.testing.assert_allclose(old.samples, first, atol=1e-6)
    store = context.stores["synthetic"]
    flawed = store.records["record_id"].iloc[0]
    flaws = pd.DataFrame({"record_id": [flawed], "lead": ["I"], "start": [0], "stop": [10], "reason": ["flat"]})
    monkeypatch.setattr(type(store), "flaws", flaws)
    assert len(twelve_leads(context, JOB)[0]) == 23
    unknown = context.people.assign(sex=None)
    monkeypatch.setitem(vars(context), "people", unknown)
    with pytest.raises(StudyError, match="nobody with all leads"):
        claims.judge_claims(context, JOB)


def asked(context: Context, monkeypatch: pytest.MonkeyPatch, right: float) -> list[Question]:
    """Ask a network that says the true class with a probability, about the middle of every record."""
    windows, fiducials = twelve_leads(context, JOB)
    shape = {"n_leads": 12, "n_samples": 400, "fs": 100.0, "lead_names": list(STANDARD_LEADS)}
    model = create_model("transecg", 0, classes={"sex": ["F", "M"]}, width=8, n_layers=1, n_heads=2, **shape)
    found = claims.question_of(model, JOB, windows, fiducials)

    def said(self: Question, samples: np.ndarray) -> np.ndarray:
        of_true = np.eye(2)[self.windows.targets]
        return of_true * right + (1 - of_true) * (1 - right)

    monkeypatch.setattr(Question, "probabilities", said)
    return [found]


def test_windows_are_the_middle_of_records_with_what_lies_around(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    (found,) = asked(context, monkeypatch, 0.9)
    windows, fiducials = twelve_leads(context, JOB)
    assert found.windows.samples.shape[1:] == (12, 400)
    np.testing.assert_array_equal(found.windows.samples[0], windows.samples[0, :, 300:700])
    np.testing.assert_array_equal(found.windows.around[0], windows.samples[0, :, 100:900])
    np.testing.assert_allclose(found.windows.fiducials[0]["r_peak"], fiducials[0]["r_peak"] - 300)


def test_windows_that_the_network_gets_wrong_are_not_explained(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    (question,) = asked(context, monkeypatch, 0.9)
    said = question.windows.targets.copy()
    said[::3] = 1 - said[::3]
    found = claims.subset(question, said, 100).windows
    np.testing.assert_array_equal(found.around, question.windows.around[said == question.windows.targets])
    assert len(found.persons) == len(found.fiducials) == len(found.codes) == len(found)
    assert len(claims.subset(question, said, 5).windows) == 5


def test_attention_is_measured_in_its_region_beside_the_rest_and_the_time_that_it_takes(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions, claim = asked(context, monkeypatch, 0.9), CLAIMS["sex_R_wave"]
    resamples = Resamples.draw(questions[0].windows.persons, 0, 50)
    windows = questions[0].windows
    inside = np.stack([region_mask(points, "R wave", 400) for points in windows.fiducials]).astype(float)
    monkeypatch.setattr(claims, "attribute", lambda *_: inside + 0.01)
    found = claims.by_attention(claim, questions, resamples)
    assert found["by_attention"] == claims.HOLDS
    assert found["attention"] > 0.6
    known = windows.codes >= 0
    assert found["time"] == pytest.approx(np.mean((inside * known).sum(axis=1) / known.sum(axis=1)), abs=0.01)
    monkeypatch.setattr(claims, "attribute", lambda *_: np.ones_like(inside))
    even = claims.by_attention(claim, questions, resamples)
    assert even["attention"] == pytest.approx(even["time"])
    assert even["by_attention"] == claims.FAILS  # other waves take longer
    # a patch of 100 ms can give an R wave of 50 ms half of what it has, one of 20 ms all
    reach = {}
    for length in (2, 10):
        bounds = [(start, start + length) for start in range(0, 400, length)]
        monkeypatch.setattr(type(questions[0].model), "patch_bounds", bounds)
        reach[length] = claims.by_attention(claim, questions, resamples)["reach"]
    assert reach[10] < 0.8 < reach[2] <= 1


def test_what_cannot_be_judged_says_why_and_shows_the_base_rate(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong = claim_rows(JOB, asked(context, monkeypatch, 0.1), 12).iloc[0]
    assert wrong["verdict"] == claims.UNJUDGED
    assert "chance" in wrong["reason"]
    assert wrong["majority"] >= 0.5
    nobody = claims.ClaimJob("synthetic", "sex", STANDARD_LEADS, (), 0)
    untrusted = claim_rows(nobody, asked(context, monkeypatch, 0.9), 12).iloc[0]
    assert untrusted["verdict"] == claims.UNJUDGED
    assert "no method" in untrusted["reason"]
    assert untrusted["windows"] == 12
    # this network gives the true class the same probability whatever it is shown
    assert untrusted[[f"removed_{name}" for name in (ZERO, *BASELINES)]].tolist() == pytest.approx([0] * 4)
    assert 0 < untrusted["attention"] < 1
    assert 0 < untrusted["time"] < untrusted["reach"] <= 1


def test_a_trusted_method_speaks_where_its_baseline_removes_the_evidence(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    questions = asked(context, monkeypatch, 0.9)
    qrs, left = np.eye(len(FACTORS))[FACTORS.index("QRS")], [0.0]

    def ask(question: Question, pairs: list[tuple[Method, str]]) -> Answers:
        n = len(question.windows)
        effects = {(method.name, baseline, ""): np.tile(1 - qrs, (n, 1)) for method, baseline in pairs}
        # the untrained network says what the trained one does
        effects |= {("replacement", DONOR, who): np.tile(qrs, (n, 1)) for who in ("", UNTRAINED)}
        return Answers(effects, {DONOR: np.array([[0.4] * n, left * n])})

    monkeypatch.setattr(claims, "ask", ask)
    row = claim_rows(JOB, questions, 12).iloc[0]
    assert (row["method"], row["baseline"], row["verdict"]) == ("replacement", DONOR, claims.CONTROL)
    assert row["share"] == pytest.approx(1)
    left[0] = 0.4
    assert claim_rows(JOB, questions, 12).iloc[0]["verdict"] == claims.UNJUDGED


def test_the_plan_has_every_task_cohort_and_lead_and_the_methods_trusted_on_that_network(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        (SHAPE, FINE, "shapley", OWN_TIMING, True),
        (SHAPE, FINE, "replacement", DONOR, True),
        (SHAPE, "resnet1d", "occlusion", DONOR, True),
        (TIMING, FINE, "path_gradients", DONOR, True),
        (SHAPE, FINE, "saliency", "none", False),
    ]
    verdicts = pd.DataFrame(rows, columns=["kind", "model", "method", "baseline", "trusted"])
    planned = []

    def run(_: object, jobs: list[ClaimJob], *__: object) -> Outcome:
        planned.extend(jobs)
        return Outcome({}, pd.DataFrame())

    monkeypatch.setattr(claims, "run", run)
    table, _ = claims.audit_claims(context, verdicts, 3)
    assert table.empty
    assert [(job.task, job.leads) for job in planned] == [
        (task, leads) for task in ("sex", "age") for leads in (STANDARD_LEADS, ("I",))
    ]
    assert planned[0].methods == (("replacement", DONOR), ("shapley", OWN_TIMING))
    assert planned[0].name == "synthetic.sex.twelve.3"
    assert planned[1].about() == {"cohort": "synthetic", "task": "sex", "leads": "I"}
    assert planned[0].made_from(context) != planned[1].made_from(context)


def test_nobody_is_explained_whom_the_network_has_learnt_from(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    learnt, held, shapes = [], [], []
    shape = {"classes": {"sex": ("F", "M")}, "lead_names": list(STANDARD_LEADS)}
    monkeypatch.setattr(claims, "trained", lambda *given, **told: shapes.append(told) or learnt.append(given))
    monkeypatch.setattr(claims, "question_of", lambda *given: held.append(given[2]) or SimpleNamespace())
    monkeypatch.setattr(claims, "claim_rows", lambda *_: pd.DataFrame())
    claims.judge_claims(context, JOB)
    assert len(learnt) == 2
    for (_, network, known, settings, fs), others in zip(learnt, held, strict=True):
        assert not set(known.subjects) & set(others.subjects)
        assert (network, fs) == (FINE, 100.0)
        assert (settings.epochs, settings.seed) == (claims.SIZES["demo"].epochs, 0)
    assert shapes == [shape] * 2
    assert {name for others in held for name in others.subjects} == set(context.people.index)
    claims.judge_claims(context, ClaimJob("synthetic", "sex", ("I",), (), 0))
    assert len(learnt) == 3  # one lead is asked about one fold
