"""Stage 4, attribution: which wave of the heartbeat gives a person away, and which methods that say so hold."""

from ecgstudy.attribution.agreement import model_agreement
from ecgstudy.attribution.cases import explain_cases
from ecgstudy.attribution.claims import claim_finding, claim_table
from ecgstudy.attribution.figures import (
    effect_figure,
    enrichment_figure,
    mean_beat_figure,
    planted_figure,
    removal_figure,
    single_beats_figure,
)
from ecgstudy.attribution.people_audits import audit_people, feature_model_shares, model_shares
from ecgstudy.attribution.planted_audits import audit_planted_people, with_permuted
from ecgstudy.attribution.recording import (
    causal_rows,
    effect_finding,
    record_audits,
    record_planted,
    record_shares,
    record_trust,
    trust_finding,
)
from ecgstudy.attribution.sanity import randomised_correlation
from ecgstudy.attribution.scoreboard import LEAST_MASS, scoreboard
from ecgstudy.attribution.tables import (
    all_shares,
    boundary_table,
    case_table,
    completeness_table,
    enrichment_table,
    failures,
    main_rows,
    method_table,
    paper_table,
    refusal_table,
)
from ecgstudy.attribution.viewer import show_viewer

__all__ = [
    "LEAST_MASS",
    "all_shares",
    "audit_people",
    "audit_planted_people",
    "boundary_table",
    "case_table",
    "causal_rows",
    "claim_finding",
    "claim_table",
    "completeness_table",
    "effect_figure",
    "effect_finding",
    "enrichment_figure",
    "enrichment_table",
    "explain_cases",
    "failures",
    "feature_model_shares",
    "main_rows",
    "mean_beat_figure",
    "method_table",
    "model_agreement",
    "model_shares",
    "paper_table",
    "planted_figure",
    "randomised_correlation",
    "record_audits",
    "record_planted",
    "record_shares",
    "record_trust",
    "refusal_table",
    "removal_figure",
    "scoreboard",
    "show_viewer",
    "single_beats_figure",
    "trust_finding",
    "with_permuted",
]
