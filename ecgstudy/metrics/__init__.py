"""Metrics of recognition, disclosure and classification, with intervals clustered by person.

Scores are similarities everywhere: higher = more similar. What is undefined is NaN with a reason, never 0.
"""

from ecgstudy.metrics.bootstrap import (
    Estimate,
    PairedDifference,
    Resamples,
    bootstrap,
    bootstrap_each,
    paired_difference,
)
from ecgstudy.metrics.classification import accuracy, balanced_accuracy, classification_report, macro_f1, mae_report
from ecgstudy.metrics.disclosure import (
    PERFECT_DISCLOSURE,
    cllr,
    cllr_min,
    logistic_llr,
    zebra_bits,
    zebra_tag,
    zebra_worst_case,
)
from ecgstudy.metrics.extrapolation import SNN_ECG_RANK1, TAILS, extrapolate_rank1
from ecgstudy.metrics.gallery import GallerySearch
from ecgstudy.metrics.identification import (
    Searches,
    cmc,
    dir_at_far,
    pool_windows,
    rank1_by_gallery_size,
    rank_k,
    search_gallery,
)
from ecgstudy.metrics.levels import ScoreLevels, SortedScores
from ecgstudy.metrics.linkability import Linkability
from ecgstudy.metrics.report import (
    ScoredFold,
    biometric_report,
    eer_statistic,
    per_person_risk,
    rank1_statistic,
    risk_tail,
)
from ecgstudy.metrics.streaming import StreamedVerification, cosine_rows, stream_verification
from ecgstudy.metrics.trials import Trials
from ecgstudy.metrics.verification import auroc, det_curve, eer, tar_at_far, threshold_at_far

__all__ = [
    "PERFECT_DISCLOSURE",
    "SNN_ECG_RANK1",
    "TAILS",
    "Estimate",
    "GallerySearch",
    "Linkability",
    "PairedDifference",
    "Resamples",
    "ScoreLevels",
    "ScoredFold",
    "Searches",
    "SortedScores",
    "StreamedVerification",
    "Trials",
    "accuracy",
    "auroc",
    "balanced_accuracy",
    "biometric_report",
    "bootstrap",
    "bootstrap_each",
    "classification_report",
    "cllr",
    "cllr_min",
    "cmc",
    "cosine_rows",
    "det_curve",
    "dir_at_far",
    "eer",
    "eer_statistic",
    "extrapolate_rank1",
    "logistic_llr",
    "macro_f1",
    "mae_report",
    "paired_difference",
    "per_person_risk",
    "pool_windows",
    "rank1_by_gallery_size",
    "rank1_statistic",
    "rank_k",
    "risk_tail",
    "search_gallery",
    "stream_verification",
    "tar_at_far",
    "threshold_at_far",
    "zebra_bits",
    "zebra_tag",
    "zebra_worst_case",
]
