"""Sex and age metrics against scikit-learn, on samples and on resamples written out."""

import math

import numpy as np
import pytest
from sklearn import metrics as sk

from ecgstudy.errors import StudyError
from ecgstudy.evaluate.bootstrap import Resamples
from ecgstudy.evaluate.classification import accuracy, balanced_accuracy, classification_report, macro_f1, mae_report

CLASSES = ("young", "middle", "old")


@pytest.fixture
def samples() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make the true classes, probabilities and persons of 20 persons with unequal numbers of samples."""
    rng = np.random.default_rng(0)
    person = np.repeat(np.arange(20), rng.integers(1, 9, 20))
    truth = rng.integers(0, 3, 20)[person]
    probabilities = rng.dirichlet(np.ones(3), person.size) + 0.4 * np.eye(3)[truth]
    return truth, (probabilities / 1.4).round(2), person


def _expected(truth: np.ndarray, probabilities: np.ndarray, weights: np.ndarray) -> dict[str, float]:
    """Metrics of the drawn samples by scikit-learn."""
    kept = weights > 0
    truth, probabilities, weights = truth[kept], probabilities[kept], weights[kept]
    predicted, present = probabilities.argmax(axis=1), np.unique(truth)
    per_class = [sk.roc_auc_score(truth == c, probabilities[:, c], sample_weight=weights) for c in present]
    return {
        "accuracy": sk.accuracy_score(truth, predicted, sample_weight=weights),
        "balanced_accuracy": sk.balanced_accuracy_score(truth, predicted, sample_weight=weights),
        "auroc": float(np.mean(per_class)),
    }


def test_values_equal_scikit_learn(samples: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    truth, probabilities, person = samples
    labels = [CLASSES[t] for t in truth]
    resamples = Resamples.draw(person, seed=1, n_resamples=50)
    report = classification_report(labels, probabilities, CLASSES, person, resamples)
    expected = _expected(truth, probabilities, np.ones(person.size))
    per_person = _expected(truth, probabilities, 1 / np.bincount(person)[person])
    expected |= {"accuracy_per_person": per_person["accuracy"], "majority": np.bincount(truth).max() / truth.size}
    assert {name: estimate.value for name, estimate in report.items()} == pytest.approx(expected, abs=1e-12)
    assert {estimate.n for estimate in report.values()} == {20}


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_intervals_equal_resamples_written_out(samples: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    truth, probabilities, person = samples
    resamples = Resamples.draw(person, seed=1, n_resamples=40)
    report = classification_report([CLASSES[t] for t in truth], probabilities, CLASSES, person, resamples)
    position = resamples.index_of(person)
    draws = [_expected(truth, probabilities, m[position]) for m in resamples.multiplicities]
    for name in ("accuracy", "balanced_accuracy", "auroc"):
        low, high = np.quantile([draw[name] for draw in draws], [0.025, 0.975])
        assert report[name].low == pytest.approx(low, abs=1e-12)
        assert report[name].high == pytest.approx(high, abs=1e-12)


def test_two_classes_use_the_second_column() -> None:
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7], [0.8, 0.2]])
    resamples = Resamples.draw("abcd", seed=0, n_resamples=200)
    report = classification_report(["M", "M", "F", "F"], probabilities, ("M", "F"), list("abcd"), resamples)
    assert report["auroc"].value == 0.75
    assert report["accuracy"].value == 0.5
    one_sided = (resamples.multiplicities[:, :2] == 0).all(axis=1) | (resamples.multiplicities[:, 2:] == 0).all(axis=1)
    assert report["auroc"].undefined == np.count_nonzero(one_sided) > 0


def test_missing_labels_are_left_out_and_a_constant_one_is_undefined() -> None:
    resamples = Resamples.draw("abcd", seed=0, n_resamples=20)
    probabilities = np.eye(2)[[0, 1, 0, 1]]
    partly = classification_report(["M", None, math.nan, "F"], probabilities, ("M", "F"), list("abcd"), resamples)
    assert (partly["accuracy"].value, partly["accuracy"].n) == (1.0, 2)
    constant = classification_report(["M"] * 4, probabilities, ("M", "F"), list("abcd"), resamples)
    assert constant.pop("majority").value == 1.0
    assert {estimate.reason for estimate in constant.values()} == {"every label is M"}
    assert all(math.isnan(estimate.value) for estimate in constant.values())
    missing = classification_report([None] * 4, probabilities, ("M", "F"), list("abcd"), resamples)
    assert {estimate.reason for estimate in missing.values()} == {"no record has a label"}
    with pytest.raises(StudyError, match="'X'"):
        classification_report(["X"] * 4, probabilities, ("M", "F"), list("abcd"), resamples)


def test_confusion_metrics_by_hand() -> None:
    confusion = np.array([[3.0, 1.0], [2.0, 4.0]])
    assert accuracy(confusion) == 0.7
    assert balanced_accuracy(confusion) == pytest.approx((3 / 4 + 4 / 6) / 2)
    assert macro_f1(confusion) == pytest.approx((6 / 9 + 8 / 11) / 2)
    # a class that is never predicted scores 0, one that never occurs does not count
    assert macro_f1(np.array([[2.0, 0, 0], [2, 0, 0], [0, 0, 0]])) == pytest.approx((2 / 3 + 0) / 2)
    assert math.isnan(accuracy(np.zeros((2, 2))))


def test_mean_absolute_error_in_years() -> None:
    resamples = Resamples.draw("abc", seed=0, n_resamples=300)
    report = mae_report([20.0, 20, 60, math.nan], [25.0, 21, 50, 0], ["a", "a", "b", "c"], resamples)
    assert report["mae_years"].value == pytest.approx((5 + 1 + 10) / 3)
    assert report["mae_years_per_person"].value == pytest.approx((3 + 10) / 2)
    assert report["mae_years"].n == 2
    assert report["mae_years"].undefined == np.count_nonzero((resamples.multiplicities[:, :2] == 0).all(axis=1))
    unknown = mae_report([math.nan], [3.0], ["a"], resamples)
    assert unknown["mae_years"].reason == "no record has a label"
    with pytest.raises(StudyError, match="not a number"):
        mae_report([30.0], [math.nan], ["a"], resamples)
