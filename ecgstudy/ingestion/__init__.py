"""Stage 1, ingestion: which recordings of which people the study rests on."""

from ecgstudy.ingestion.boundaries import (
    boundary_matches,
    boundary_reference,
    delineation_finding,
    delineation_table,
    record_delineation,
)
from ecgstudy.ingestion.figures import beats_figure, delineation_figure, people_figure, traces_figure
from ecgstudy.ingestion.stores import open_stores, open_usable_stores, study_cohort
from ecgstudy.ingestion.tables import (
    assert_no_leakage,
    cohort_table,
    exclusion_finding,
    exclusion_table,
    leakage_table,
    record_cohorts,
    unusable_table,
)

__all__ = [
    "assert_no_leakage",
    "beats_figure",
    "boundary_matches",
    "boundary_reference",
    "cohort_table",
    "delineation_figure",
    "delineation_finding",
    "delineation_table",
    "exclusion_finding",
    "exclusion_table",
    "leakage_table",
    "open_stores",
    "open_usable_stores",
    "people_figure",
    "record_cohorts",
    "record_delineation",
    "study_cohort",
    "traces_figure",
    "unusable_table",
]
