"""Stage 1, ingestion: which recordings of which people the study rests on."""

from ecgstudy.ingestion.stores import open_usable_stores  # noqa: F401 (until notebooks 02 and 04 import it themselves)
