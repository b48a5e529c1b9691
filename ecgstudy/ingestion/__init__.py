"""Stage 1, ingestion: which recordings of which people the study rests on."""
