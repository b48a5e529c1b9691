"""Atrial fibrillation from what a page shows, with the evidence: irregular beats, no P wave that repeats, no ectopy.

The columns of a page show different leads, one after the other, but together all of its time: R peaks are sought in
whatever leads are shown at each moment. Every feature is a ratio (to the median interval, to the lead's own QRS, of
what repeats to what does not), so that it does not depend on the unit, the rate or the gain of the source. Flutter
counts as not fibrillating.
"""

import numpy as np
import pandas as pd
from scipy import ndimage
from sklearn.ensemble import HistGradientBoostingClassifier

from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.errors import StudyError
from ecgstudy.layouts.beats import FS, masks, r_peaks, sheets, slope_power
from ecgstudy.layouts.layout import random_layout

_IRREGULAR = ("rr_rmssd", "rr_step", "rr_spread", "rr_recurrence", "rr_normal")
_REPEATS = ("p_coherence", "p_coherence_median", "p_coherence_best", "p_repeats", "p_energy")
_P_LIKE = ("p_likeness", "p_likeness_median", "p_size", "p_beats")
EVIDENCE = {
    "irregularity": dict.fromkeys(_IRREGULAR, 1) | {"rr_lattice": -1, "rr_smooth": 0, "rate": 0},
    "p_wave": dict.fromkeys((*_REPEATS, *_P_LIKE), -1) | {"p_residual": 0, "f_wave": 0},
    "ectopy": dict.fromkeys(("ectopic", "qrs_least", "premature", "compensated"), 0),
}
"""Kind of evidence -> its features -> whether fibrillation may only become more (1) or less (-1) likely as it grows."""
_MONOTONE = {name: sign for features in EVIDENCE.values() for name, sign in features.items()}
FEATURES = tuple(_MONOTONE)

_POLARITY = np.array([1, 1, 0.4, -1, 0.4, 0.8, 0.4, 0.6, 0.6, 0.6, 0.6, 0.6])
"""Direction and usual size of a sinus P wave in the standard leads, against lead II."""
_BEFORE_R = np.arange(-32, -6)  # samples: where a P wave may lie
_QRS = np.arange(-8, 9)
_P_CENTRES, _P_WIDTH = np.arange(-27, -9), 3.5
_P_SHAPES = np.exp(-0.5 * ((_BEFORE_R[:, None] - _P_CENTRES) / _P_WIDTH) ** 2)
_FEWEST_BEATS, _FEWEST_SAMPLES = 3, 9
_ALIKE = 0.7  # similarity to the likest other beat under which a QRS is ectopic
_EARLY, _LATE = 0.85, 1.1  # of the median interval
_LEAST = 1e-5
_RETIMED_WEIGHT = 0.2
"""Of a record whose beats were moved, in training, against one as it was."""


def rhythm_features(sheet: np.ndarray) -> pd.DataFrame:
    """Features of the rhythm that pages show, one row a record, columns :data:`FEATURES`; NaN where there are none.

    `sheet` is what :func:`ecgstudy.layouts.beats.sheets` gives. A page with fewer than three beats has none; one on
    which every beat follows too fast for a P wave to stand free has those of intervals.
    """
    rows = [_record(*record) for record in zip(sheet, slope_power(sheet, 2.0), r_peaks(sheet), strict=True)]
    return pd.DataFrame(rows, columns=list(FEATURES), dtype=float)


def _record(sheet: np.ndarray, power: np.ndarray, peaks: np.ndarray) -> dict[str, float]:
    """Features of one page, (12, n_samples), with its power of slopes, (n_samples,), and R peaks."""
    if len(peaks) < _FEWEST_BEATS or len(beats := _centred(power, peaks)) < _FEWEST_BEATS:
        return {}
    whole = np.rint(beats).astype(int)
    qrs, seen = _cut(sheet, whole[:, None] + _QRS)
    seen = np.broadcast_to(seen.all(axis=-1, keepdims=True), qrs.shape)
    qrs = np.where(seen, qrs - qrs.mean(axis=-1, keepdims=True), 0)
    size = np.ones(len(sheet))
    there = seen[..., 0].any(axis=0)
    size[there] = np.nanmedian(np.where(seen, np.abs(qrs), np.nan).max(axis=-1)[:, there], axis=0)
    alike = _likest(_similarity(qrs / size[:, None], seen))
    normal = alike > _ALIKE
    if normal.sum() < _FEWEST_BEATS:
        normal[:] = True
    early = np.r_[False, np.diff(beats) < _EARLY * np.median(np.diff(beats))]
    late = np.r_[np.diff(beats) > _LATE * np.median(np.diff(beats)), False]
    ectopy = {"ectopic": 1 - normal.mean(), "qrs_least": alike.min(), "premature": early.mean()}
    ectopy["compensated"] = (early & late).sum() / max(early.sum(), 1)
    atrial = _p_wave(sheet / size[:, None], power, whole, normal, there)
    return _intervals(beats, normal) | ectopy | atrial


def _centred(power: np.ndarray, peaks: np.ndarray) -> np.ndarray:
    """Place beats at the centre of their slopes, in samples: a wide QRS has several peaks; T waves are left out."""
    high = power[peaks]
    t_wave = np.r_[False, (np.diff(peaks) < 0.4 * FS) & (high[1:] < 0.3 * high[:-1])]
    beats = peaks[~t_wave].astype(float)
    for _ in range(2):
        places = np.rint(beats).astype(int)[:, None] + np.arange(-12, 13)
        weight = np.where((places >= 0) & (places < len(power)), power[np.clip(places, 0, len(power) - 1)], 0) + 1e-12
        beats = (places * weight).sum(axis=1) / weight.sum(axis=1)
    return beats


def _cut(sheet: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cut all leads at places (n_beats, width): samples and whether they are shown, (n_beats, n_leads, width)."""
    n_samples = sheet.shape[1]
    cut = sheet[:, np.clip(places, 0, n_samples - 1)].transpose(1, 0, 2)
    return cut, (cut != 0) & ((places >= 0) & (places < n_samples))[:, None]


def _similarity(waves: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Cosine of each two beats over what both show, (n_beats, n_beats); NaN on the diagonal, and for nothing shared."""
    waves, seen = waves.reshape(len(waves), -1), seen.reshape(len(seen), -1)
    energy = (waves * waves) @ seen.T.astype(waves.dtype)
    norm = np.sqrt(energy * energy.T)
    cosine = np.divide(waves @ waves.T, norm, out=np.full_like(norm, np.nan), where=norm > _LEAST**2)
    np.fill_diagonal(cosine, np.nan)
    return cosine


def _likest(similarity: np.ndarray) -> np.ndarray:
    """Similarity of each beat to the one, of those it can be compared with, that most resembles the others."""
    votes = np.nansum(similarity, axis=1)
    chosen = np.where(np.isfinite(similarity), votes, -np.inf).argmax(axis=1)
    return np.nan_to_num(similarity[np.arange(len(similarity)), chosen], nan=1.0)


def _intervals(beats: np.ndarray, normal: np.ndarray) -> dict[str, float]:
    """Irregularity of the intervals between beats, as shares of their median."""
    median = np.median(np.diff(beats))
    rr = np.diff(beats) / median
    steps, ascending = np.abs(np.diff(rr)), np.sort(rr)
    most = int(np.ceil(0.75 * len(rr))) - 1
    recurrence = [np.median(np.abs(rr[lag:] - rr[:-lag])) for lag in (1, 2, 3) if len(rr) - lag > 1]
    undisturbed = rr[normal[1:] & normal[:-1]]
    # sinus beats stay on a lattice of time when an ectopic one falls between them
    lattice = beats[normal, None] / (median * np.linspace(0.8, 1.25, 46))
    apart = rr - rr.mean()
    return {
        "rate": 60 * FS / median,
        "rr_smooth": (apart[1:] * apart[:-1]).sum() / max((apart**2).sum(), 1e-4),  # breathing changes it slowly
        "rr_rmssd": np.sqrt(np.mean(steps**2)),
        "rr_step": np.median(steps),
        "rr_spread": (ascending[most:] - ascending[: len(rr) - most]).min(),
        "rr_recurrence": min(recurrence, default=np.nan),  # small in bigeminy and trigeminy too
        "rr_normal": undisturbed.std() / undisturbed.mean() if len(undisturbed) > 2 else np.nan,
        "rr_lattice": np.abs(np.exp(2j * np.pi * lattice).mean(axis=0)).max(),
    }


def _level(waves: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Take each wave's own straight line away, over what is shown of it."""
    weight = seen.astype(waves.dtype)
    count = np.maximum(weight.sum(axis=-1, keepdims=True), 1)
    time = np.linspace(-1, 1, waves.shape[-1], dtype=waves.dtype)
    time = time - (weight * time).sum(axis=-1, keepdims=True) / count
    waves = waves - (weight * waves).sum(axis=-1, keepdims=True) / count
    across = np.maximum((weight * time**2).sum(axis=-1, keepdims=True), _LEAST)
    return (waves - (weight * time * waves).sum(axis=-1, keepdims=True) / across * time) * weight


def _p_wave(
    sheet: np.ndarray, power: np.ndarray, beats: np.ndarray, normal: np.ndarray, there: np.ndarray
) -> dict[str, float]:
    """Measure what repeats before each QRS, and how like a P wave it is; `sheet` in heights of each lead's QRS."""
    # what is before the QRS begins: where its slopes do, in the median beat
    rise = np.sqrt(np.median(power[np.clip(beats[:, None] + np.arange(-20, 1), 0, None)], axis=0))
    onset = np.clip(np.flatnonzero(np.r_[True, rise[:-1] < 0.3 * rise[-1]]).max() - 21, -14, -7)
    rr = np.r_[np.median(np.diff(beats)), np.diff(beats)]
    t_end = beats - rr + 0.12 * FS + 0.25 * np.minimum(rr, 1.2 * FS)
    places = beats[:, None] + _BEFORE_R
    waves, seen = _cut(sheet, places)
    seen = seen & ((places > t_end[:, None]) & (onset >= _BEFORE_R))[:, None] & normal[:, None, None] & there[:, None]
    seen = seen & (seen.sum(axis=-1, keepdims=True) >= _FEWEST_SAMPLES)
    waves = _level(np.where(seen, waves, 0), seen)
    count = seen.sum(axis=0)
    freedom = np.maximum(count - 1, 0)
    if not freedom.any():
        return {}
    mean = waves.sum(axis=0) / np.maximum(count, 1)
    variance = (seen * (waves - mean) ** 2).sum(axis=0) / np.maximum(freedom, 1)
    # the mean's own energy holds a share of the variance; without it, pure noise has none
    signal = (freedom * (mean**2 - variance / np.maximum(count, 1))).sum(axis=1)
    noise, weight = (freedom * variance).sum(axis=1), freedom.sum(axis=1)
    coherence = (signal / (signal + noise + _LEAST))[weight > 0]
    pairs = _similarity(waves, seen)
    found = {
        "p_coherence": signal.sum() / (signal.sum() + noise.sum() + _LEAST),
        "p_coherence_median": np.median(coherence),
        "p_coherence_best": coherence.max(),
        "p_repeats": np.median(pairs[np.isfinite(pairs)]) if np.isfinite(pairs).any() else np.nan,
        "p_energy": np.log(max(signal.sum() / weight.sum(), _LEAST)),
        "p_residual": np.log(max(noise.sum() / weight.sum(), _LEAST)),
    }
    return found | _likeness(waves, seen, mean, freedom > 0) | _f_wave(sheet, beats, t_end)


def _likeness(waves: np.ndarray, seen: np.ndarray, mean: np.ndarray, known: np.ndarray) -> dict[str, float]:
    """How like a sinus P wave the mean beat and single beats are, where it fits best; all leads at the same time."""
    shape = np.where(known[..., None], _P_SHAPES, 0)
    centre = shape.sum(axis=1, keepdims=True) / np.maximum(known.sum(axis=1)[:, None, None], 1)
    shape = np.where(known[..., None], shape - centre, 0) * _POLARITY[:, None, None]
    match, size = np.einsum("lw,lwk->lk", mean, shape), (shape**2).sum(axis=1)
    energy = np.where(known, mean**2, 0).sum(axis=1)
    total = match.sum(axis=0) / np.sqrt(energy.sum() * size.sum(axis=0) + _LEAST**2)
    best = total.argmax()
    each = match[:, best] / np.sqrt(energy * size[:, best] + _LEAST**2)
    shape = shape[..., best]
    norm = np.sqrt((waves**2).sum(axis=(1, 2)) * np.einsum("blw,lw->b", seen, shape**2))
    single = np.einsum("blw,lw->b", waves, shape)[norm > _LEAST] / norm[norm > _LEAST]
    return {
        "p_likeness": total[best],
        "p_likeness_median": np.median(each[known.any(axis=1)]),
        "p_size": match[:, best].sum() / size[:, best].sum(),
        "p_beats": np.median(single) if len(single) else np.nan,
    }


def _f_wave(sheet: np.ndarray, beats: np.ndarray, t_end: np.ndarray) -> dict[str, float]:
    """Unrest of V1 between T wave and QRS, where V1 shows a quarter of a second of it or more."""
    time = np.arange(sheet.shape[1])
    beat = np.clip(np.searchsorted(beats, time), 0, len(beats) - 1)
    rest = (time > t_end[beat] + 3) & (time < beats[beat] - 8)
    quiet = sheet[STANDARD_LEADS.index("V1"), rest]
    quiet = quiet[quiet != 0]
    return {"f_wave": np.log(quiet.std() + _LEAST) if len(quiet) > 0.25 * FS else np.nan}


class FibrillationModel:
    """Boosted trees over :data:`FEATURES`, monotone where physiology says in which direction."""

    def __init__(self, seed: int = 0) -> None:
        trees = {"max_leaf_nodes": 5, "min_samples_leaf": 20, "l2_regularization": 5.0, "max_features": 0.3}
        rounds = {"max_iter": 120, "learning_rate": 0.06, "early_stopping": False, "random_state": seed}
        self._trees = HistGradientBoostingClassifier(**trees, **rounds, monotonic_cst=_MONOTONE)

    def fit(self, table: pd.DataFrame, labels: np.ndarray) -> "FibrillationModel":
        """Train on rows of :func:`training_table` and whether the record of each fibrillates, bool (n_rows,)."""
        if len(np.unique(labels)) < 2:
            raise StudyError("Fibrillation cannot be learnt: all training records fibrillate, or none does.")
        features = table[list(FEATURES)]
        self._trees.fit(features, labels, sample_weight=table["weight"])
        self._usual = features[~labels].median()
        return self

    def score(self, features: pd.DataFrame) -> np.ndarray:
        """Log-odds of fibrillation, (n,), for the rows of :func:`rhythm_features`."""
        return self._trees.decision_function(features[list(FEATURES)])

    def evidence(self, features: pd.DataFrame) -> pd.DataFrame:
        """By how much each kind of :data:`EVIDENCE` raises the log-odds above what its usual values would give."""
        score = self.score(features)
        usual = {kind: features.assign(**self._usual[list(names)]) for kind, names in EVIDENCE.items()}
        return pd.DataFrame({kind: score - self.score(table) for kind, table in usual.items()}, index=features.index)


def training_table(values: np.ndarray, labels: np.ndarray, seed: int = 0) -> pd.DataFrame:
    """Features of whole records, each on several random pages: as it is, noisy, and with its beats moved.

    `values` is (n, 12, n_samples) at 100 Hz, `labels` says which records fibrillate, bool (n,). Columns
    :data:`FEATURES` and `weight`; the index is the record's row in `values`, for cutting the table by folds.
    """
    rng = np.random.default_rng(seed)
    kinds = [(values, 1.0), (values, 1.0), (noisy(values, rng), 1.0), (retimed(values, labels, rng), _RETIMED_WEIGHT)]
    tables = []
    for records, weight in kinds:
        layouts = [random_layout(rng) for _ in labels]
        tables.append(rhythm_features(sheets(records, masks(layouts, values.shape[-1]))).assign(weight=weight))
    return pd.concat(tables)


def noisy(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add muscle noise and a wandering baseline, of another strength in each record and lead."""
    spread, strength = values.std(axis=-1, keepdims=True), rng.uniform(size=(2, len(values), 1, 1)) ** 2
    muscle, wander = (ndimage.gaussian_filter1d(rng.standard_normal(values.shape), s, axis=-1) for s in (0.8, 25.0))
    muscle *= rng.uniform(0, 1.5, size=(*values.shape[:2], 1)) / muscle.std()
    return (values + spread * (0.12 * strength[0] * muscle + strength[1] * wander / wander.std())).astype(np.float32)


def retimed(values: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Give fibrillating records a pacemaker's regular beats, and the others beats that are irregular in other ways.

    Other ways are chance, premature beats with a pause, and breathing; their P waves stay before their QRS. Neither
    kind of record is rare in a hospital, and both are in a cohort of mostly healthy hearts. Whole records at 100 Hz.
    """
    changed = np.array(values, dtype=np.float32)
    peaks = r_peaks(sheets(values))
    for row, (beats, fibrillates) in enumerate(zip(peaks, labels, strict=True)):
        n = len(beats) - 1
        if n < _FEWEST_BEATS:
            continue
        rr = np.diff(beats).astype(float)
        early = np.where(rng.permutation(n) < n // 4, rng.uniform(0.55, 0.85), 1.0)
        pauses = early * np.where(np.r_[1.0, early[:-1]] < 1, 2 - early.min(), 1)
        breath = 1 + rng.uniform(0.1, 0.3) * np.sin(2 * np.pi * (np.arange(n) / rng.uniform(3, 9) + rng.random()))
        chance = np.exp(rng.uniform(0.05, 0.3) * rng.standard_normal(n))
        new = rr * (chance, pauses, breath)[rng.integers(3)]
        if fibrillates:
            new = rr.mean() * rng.uniform(1.0, 1.3) * (1 + 0.01 * rng.standard_normal(n))
        changed[row] = stretched(values[row], beats, new * max(1.0, rr.sum() / new.sum()))
    return changed


def stretched(record: np.ndarray, beats: np.ndarray, intervals: np.ndarray) -> np.ndarray:
    """Bring the beats of a record (n_leads, n_samples) to other intervals (samples), between T and P wave only."""
    rr = np.diff(beats)
    t_end, p_onset = np.minimum(0.2 * FS + 0.2 * np.minimum(rr, 1.2 * FS), 0.62 * rr), np.minimum(0.26 * FS, 0.33 * rr)
    new = beats[0] + np.r_[0, np.cumsum(np.maximum(np.rint(intervals), np.ceil(t_end + p_onset) + 2))]
    far = record.shape[1]
    old_places = np.r_[beats[0] - far, np.c_[beats[:-1], beats[:-1] + t_end, beats[1:] - p_onset].ravel(), beats[-1]]
    new_places = np.r_[new[0] - far, np.c_[new[:-1], new[:-1] + t_end, new[1:] - p_onset].ravel(), new[-1]]
    source = np.interp(np.arange(far), np.r_[new_places, new[-1] + far], np.r_[old_places, beats[-1] + far])
    return np.stack([np.interp(source, np.arange(far), lead) for lead in record])
