"""Stage 1, ingestion: which recordings of which people the study rests on."""

from ecgstudy.ingestion.figures import beats_figure, delineation_figure, people_figure, traces_figure
from ecgstudy.ingestion.stores import DELINEATED, boundary_reference, open_stores, study_cohort
from ecgstudy.ingestion.tables import (
    cohort_table,
    delineation_table,
    exclusion_table,
    leakage_table,
    record_cohorts,
    record_delineation,
    unusable_table,
)

__all__ = [
    "DELINEATED",
    "beats_figure",
    "boundary_reference",
    "cohort_table",
    "delineation_figure",
    "delineation_table",
    "exclusion_table",
    "leakage_table",
    "open_stores",
    "people_figure",
    "record_cohorts",
    "record_delineation",
    "study_cohort",
    "traces_figure",
    "unusable_table",
]
