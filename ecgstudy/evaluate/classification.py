"""Sex and age: accuracy, balanced accuracy, macro F1, AUROC and mean absolute error, with intervals by person.

All of them are functions of counts per person, summed once; a resample only weighs those counts. That is why
they are written out here: scikit-learn's metrics, which the tests compare them with, validate and count the
samples again in each of thousands of resamples.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from ecgstudy.errors import StudyError
from ecgstudy.evaluate.bootstrap import (
    Estimate,
    Resamples,
    Statistic,
    bootstrap,
    person_means,
    ratio,
    with_exact_bounds,
)
from ecgstudy.evaluate.trials import SortedScores, auroc

NO_LABEL = "no record has a label"


def accuracy(confusion: np.ndarray) -> float:
    """Share of samples on the diagonal of a confusion matrix (true class, predicted class); NaN if empty."""
    total = confusion.sum()
    return float(np.trace(confusion) / total) if total > 0 else math.nan


def balanced_accuracy(confusion: np.ndarray) -> float:
    """Mean recall over the true classes that occur; NaN where fewer than two do."""
    support = confusion.sum(axis=1)
    occurs = support > 0
    return float(np.mean(np.diag(confusion)[occurs] / support[occurs])) if occurs.sum() > 1 else math.nan


def macro_f1(confusion: np.ndarray) -> float:
    """Mean F1 over the true classes that occur; NaN where fewer than two do."""
    support, predicted = confusion.sum(axis=1), confusion.sum(axis=0)
    occurs = support > 0
    f1 = 2 * np.diag(confusion)[occurs] / (support + predicted)[occurs]
    return float(np.mean(f1)) if occurs.sum() > 1 else math.nan


def classification_report(
    truth: Sequence[object],
    probabilities: ArrayLike,
    classes: Sequence[object],
    persons: ArrayLike,
    resamples: Resamples,
) -> dict[str, Estimate]:
    """Accuracy (also per person), balanced accuracy and AUROC of a classifier, beside naming the most frequent class.

    `truth` (one of `classes`; None or NaN is left out) and `persons` are of each sample; the highest of `probabilities`
    (n_samples, n_classes) is predicted, the first of equals. Gives ``accuracy``, ``balanced_accuracy``, ``auroc`` (one
    class against the rest, averaged over the classes that occur), ``accuracy_per_person``, in which every person weighs
    the same, and ``majority``, the accuracy of always naming the most frequent class. With fewer than two true classes
    all but the last are NaN, with the reason.
    """
    labels = np.array(truth, dtype=object)
    labelled = ~pd.isna(labels)
    truth = pd.Index(classes).get_indexer(labels[labelled])
    if (truth < 0).any():
        raise StudyError(f"The label {labels[labelled][truth < 0][0]!r} is not among the classes {list(classes)}.")
    probabilities = np.asarray(probabilities, dtype=np.float64)[labelled]
    if np.isnan(probabilities).any():
        raise StudyError("A predicted probability is not a number; look for a failed model.")
    person = resamples.index_of(np.asarray(persons)[labelled])
    n_persons, counts = np.unique(person).size, np.bincount(truth, minlength=len(classes))
    names = ("accuracy", "balanced_accuracy", "auroc", "accuracy_per_person")
    nothing = Estimate(math.nan, n=n_persons, undefined=len(resamples.indices), reason=NO_LABEL)
    if not counts.any():
        return dict.fromkeys((*names, "majority"), nothing)
    majority = {"majority": Estimate(float(counts.max() / truth.size), n=n_persons)}
    if np.count_nonzero(counts) < 2:
        return dict.fromkeys(names, replace(nothing, reason=f"every label is {classes[truth[0]]}")) | majority
    predicted, each = probabilities.argmax(axis=1), 1 / np.bincount(person)[person]
    of_truth = (truth, predicted, person, len(resamples.persons))
    statistics = (
        of_confusion(accuracy, *of_truth),
        of_confusion(balanced_accuracy, *of_truth),
        _macro_auroc(truth, probabilities, person),
        of_confusion(accuracy, *of_truth, weights=each),
    )
    found = (bootstrap(statistic, resamples, n_persons, "only one class occurs") for statistic in statistics)
    report = dict(zip(names, found, strict=True)) | majority
    for name, weights in (("accuracy", 1.0), ("accuracy_per_person", each)):
        report[name] = with_exact_bounds(report[name], predicted != truth, person, weights)
    return report


def mae_report(truth: ArrayLike, predicted: ArrayLike, persons: ArrayLike, resamples: Resamples) -> dict[str, Estimate]:
    """Mean absolute error of an age in years: ``mae_years`` and ``mae_years_per_person``.

    `truth`, `predicted` and `persons` have shape (n_samples,); samples whose truth is NaN are left out.
    """
    truth = np.asarray(truth, dtype=np.float64)
    known = ~np.isnan(truth)
    error = np.abs(np.asarray(predicted, dtype=np.float64)[known] - truth[known])
    if np.isnan(error).any():
        raise StudyError("A predicted value is not a number; look for a failed model.")
    persons = np.asarray(persons)[known].astype(str)
    total = pd.DataFrame({"error": error, "count": 1.0}).groupby(persons).sum()
    drawn = resamples.index_of(total.index)
    means = person_means({"error": error}, persons, resamples)
    statistics = {
        "mae_years": lambda multiplicity: ratio(*(multiplicity[drawn] @ total.to_numpy())),
        "mae_years_per_person": lambda multiplicity: means(multiplicity).item(),
    }
    return {name: bootstrap(statistic, resamples, len(total), NO_LABEL) for name, statistic in statistics.items()}


def of_confusion(
    measure: Callable[[np.ndarray], float],
    truth: np.ndarray,
    predicted: np.ndarray,
    cluster: np.ndarray,
    n_clusters: int,
    weights: np.ndarray | float = 1.0,
) -> Statistic:
    """Measure of a confusion matrix (true class, predicted class) as a function of how often each cluster was drawn.

    `truth` and `predicted` are labels of each sample, `cluster` is the number of its person (or record).
    """
    names, codes = np.unique(np.concatenate([truth, predicted]), return_inverse=True)
    confusion = np.zeros((n_clusters, names.size, names.size))
    np.add.at(confusion, (cluster, *codes.reshape(2, -1)), weights)
    return lambda multiplicity: measure(np.tensordot(multiplicity, confusion, axes=1))


def _macro_auroc(truth: np.ndarray, probabilities: np.ndarray, person: np.ndarray) -> Statistic:
    """AUROC of each class against the rest, averaged over the classes that occur in the resample.

    With two classes both directions are the same number, so the second column decides, as usual.
    """
    columns = [1] if probabilities.shape[1] == 2 else np.unique(truth)
    ranked = [SortedScores(probabilities[:, column], truth == column) for column in columns]

    def statistic(multiplicity: np.ndarray) -> float:
        drawn = multiplicity[person]
        values = np.array([auroc(scores.levels(drawn[scores.order])) for scores in ranked])
        defined = values[~np.isnan(values)]
        return float(defined.mean()) if defined.size else math.nan

    return statistic
