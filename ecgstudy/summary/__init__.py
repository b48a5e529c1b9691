"""Stage 7: what the study found, which claims of the papers hold, and what it does not show."""
