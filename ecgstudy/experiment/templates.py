"""Enrolment: which templates a person's segments leave behind, and how a probe's likeness to them becomes a score."""

from dataclasses import dataclass, replace

import numpy as np

from ecgstudy.learn.classical import unit_rows

LEAST_OTHERS = 3
"""Persons beside the likeliest whose scores say what is usual; with fewer enrolled, scores stay as they are."""
MOST_STRANGERS = 1000
"""Enrolled segments, evenly spread, that tell how alike strangers are to a person."""
SMALLEST_SPREAD = 1e-6
"""Least deviation that scores are divided by."""


@dataclass(frozen=True)
class EnrolmentRule:
    """How persons are enrolled.

    With `several` every segment stays a template of its own and the likeliest counts; else their mean direction is the
    only one: a person recorded in two states lies between them, and a spoilt segment spoils the mean. `normalised`
    scores are relative (s-norm: Kenny, "Bayesian speaker verification with heavy-tailed priors", Odyssey 2010): the
    mean of two standardised ones, by the scores of other persons' enrolment segments with the same person, and by those
    of the same probe with the other enrolled persons, its highest left out, which may be the owner's. No other probe is
    looked at.
    """

    several: bool = False
    normalised: bool = False


MEAN = "mean"
ENROLMENTS = {
    MEAN: EnrolmentRule(),
    "max": EnrolmentRule(several=True),
    "mean_normalised": EnrolmentRule(normalised=True),
    "max_normalised": EnrolmentRule(several=True, normalised=True),
}
"""Rules by name; every attacker is scored by each."""


@dataclass(frozen=True)
class Gallery:
    """Templates of unit length (n_templates, d), those of a person beside each other.

    `first` (n_enrolled,) is the first template of each person who has any, `rows` the person's number among
    `n_persons`; `centre` and `spread` (n_enrolled,) are of strangers' scores with each, None where scores stay as they
    are.
    """

    templates: np.ndarray
    first: np.ndarray
    rows: np.ndarray
    n_persons: int
    centre: np.ndarray | None = None
    spread: np.ndarray | None = None

    @classmethod
    def enrolled(cls, vectors: np.ndarray, codes: np.ndarray, n_persons: int, rule: EnrolmentRule) -> "Gallery":
        """Enrol `n_persons` by segments' `vectors` (n, d; NaN: unusable), each of the person that `codes` says."""
        usable = np.isfinite(vectors).all(axis=1)
        vectors, codes = vectors[usable], codes[usable]
        order = np.argsort(codes, kind="stable")
        rows, first = np.unique(codes[order], return_index=True)
        if rule.several:
            gallery = cls(vectors[order], first, rows, n_persons)
        else:
            sums = np.zeros((n_persons, vectors.shape[1]), dtype=vectors.dtype)
            np.add.at(sums, codes, vectors)
            gallery = cls(unit_rows(sums[rows]), np.arange(len(rows)), rows, n_persons)
        if not rule.normalised or len(rows) <= LEAST_OTHERS:
            return gallery
        some = np.unique(np.linspace(0, len(vectors) - 1, min(MOST_STRANGERS, len(vectors))).astype(np.int64))
        likeness = gallery._likeness(vectors[some])
        likeness[codes[some][:, None] == rows] = np.nan
        centre, spread = np.nanmean(likeness, axis=0), np.nanstd(likeness, axis=0)
        return replace(gallery, centre=centre, spread=np.maximum(spread, SMALLEST_SPREAD))

    def scores(self, probed: np.ndarray) -> np.ndarray:
        """Scores of embeddings (n, d) with everybody, float32 of shape (n, n_persons); NaN for who has no template."""
        found = self._likeness(probed)
        if self.centre is not None:
            others = np.sort(found, axis=1)[:, :-1]
            centre, spread = others.mean(axis=1, keepdims=True), others.std(axis=1, keepdims=True)
            by_probe = (found - centre) / np.maximum(spread, SMALLEST_SPREAD)
            found = ((found - self.centre) / self.spread + by_probe) / 2
        scores = np.full((len(probed), self.n_persons), np.nan, dtype=np.float32)
        scores[:, self.rows] = found
        return scores

    def _likeness(self, probed: np.ndarray) -> np.ndarray:
        """Cosine with the likeliest template of each person who has any, shape (n, n_enrolled)."""
        if not len(self.first):
            return np.empty((len(probed), 0))
        return np.maximum.reduceat(probed @ self.templates.T, self.first, axis=1)
