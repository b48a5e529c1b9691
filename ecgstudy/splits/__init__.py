"""Splits that refuse leakage, each named after the claim that it supports."""

from ecgstudy.splits.disjoint import PERSON, WAVEFORM, LeakageError, assert_disjoint, duplicated_waveforms, with_cohort

__all__ = ["PERSON", "WAVEFORM", "LeakageError", "assert_disjoint", "duplicated_waveforms", "with_cohort"]
