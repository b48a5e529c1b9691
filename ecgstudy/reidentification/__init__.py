"""Stage 2, re-identification: who can be recognised from an ECG, under protocols that hold."""

from ecgstudy.experiment.evaluation import cohort_resamples, evaluate_all
from ecgstudy.experiment.jobs import run_jobs
from ecgstudy.experiment.plan import refused_protocols
from ecgstudy.reidentification.demographics import evaluate_demographics
from ecgstudy.reidentification.explain import shap_table
from ecgstudy.reidentification.figures import (
    demographics_figure,
    det_figure,
    gallery_figure,
    inflation_figure,
    shap_figure,
)
from ecgstudy.reidentification.recording import (
    best_finding,
    chance_finding,
    demographic_finding,
    inflation_finding,
    record_demographics,
    record_evaluations,
    record_extrapolation,
    record_refusals,
)
from ecgstudy.reidentification.tables import (
    attacker_table,
    best_table,
    contrast_table,
    control_table,
    demographic_table,
    disclosure_table,
    extrapolation_table,
    paper_table,
    protocol_table,
    reporting_table,
    seed_table,
    tail_table,
    verification_table,
)
from ecgstudy.reidentification.trials import protocols_on_trial, save_trials

__all__ = [
    "attacker_table",
    "best_finding",
    "best_table",
    "chance_finding",
    "cohort_resamples",
    "contrast_table",
    "control_table",
    "demographic_finding",
    "demographic_table",
    "demographics_figure",
    "det_figure",
    "disclosure_table",
    "evaluate_all",
    "evaluate_demographics",
    "extrapolation_table",
    "gallery_figure",
    "inflation_figure",
    "inflation_finding",
    "paper_table",
    "protocol_table",
    "protocols_on_trial",
    "record_demographics",
    "record_evaluations",
    "record_extrapolation",
    "record_refusals",
    "refused_protocols",
    "reporting_table",
    "run_jobs",
    "save_trials",
    "seed_table",
    "shap_figure",
    "shap_table",
    "tail_table",
    "verification_table",
]
