"""Splits that refuse leakage, and metrics with intervals clustered by person."""
