"""Protocols in words: gaps and seconds by hand, probes cut short, and tables and figures that name both."""

import numpy as np
import pandas as pd
import pytest

from ecgstudy.evaluate.protocols import CrossDay, CrossRecord
from ecgstudy.evaluate.splits import Split
from ecgstudy.evaluate.variants import Shortened, cut
from ecgstudy.reidentification.figures import inflation_figure
from ecgstudy.reidentification.spans import days_apart, gap_words, span_results, with_spans


def _records(*rows: tuple[str, int, float]) -> pd.DataFrame:
    """Person, session and its day of records of 22 s at 100 Hz."""
    table = pd.DataFrame(rows, columns=["subject_id", "session", "session_day"])
    names = [f"r{number}" for number in range(len(rows))]
    return table.assign(record_id=names, sha256=names, store_samples=2200)


def _segments(*rows: tuple[str, int, int]) -> pd.DataFrame:
    """Record, start and stop."""
    table = pd.DataFrame(rows, columns=["record_id", "start", "stop"])
    return table.assign(subject_id="p", session=1, sha256=table["record_id"])


RECORDS = _records(("a", 1, 0.0), ("a", 1, 0.0), ("a", 2, 9.0), ("b", 1, 0.0), ("b", 2, 4.0), ("c", 1, 0.0))


@pytest.mark.parametrize(
    ("days", "protocol", "words"),
    [
        ({}, CrossRecord(), "another record, the same day in 1 of 2"),
        ({"b": 0.0}, CrossRecord(), "another record, same day"),
        ({"a": np.nan, "b": np.nan}, CrossRecord(), "another record, day not stated"),
        ({}, CrossDay(), "another day, 6.5 days later (4 to 9)"),
        ({"b": np.nan}, CrossDay(), "another day, 9 days later (9 to 9)"),
    ],
)
def test_the_gap_is_told_by_the_days_of_enrolment_and_probe(
    days: dict[str, float], protocol: CrossRecord, words: str
) -> None:
    (split,) = protocol.splits(RECORDS, 100.0, 0)
    stated = RECORDS["session_day"].where(~RECORDS["subject_id"].isin(days), RECORDS["subject_id"].map(days))
    assert gap_words([split], stated.set_axis(RECORDS["record_id"])) == words
    inside = Split("t", split.train, split.validation, split.enrolment, split.probe, within_record=True)
    assert gap_words([inside], stated.set_axis(RECORDS["record_id"])) == "same recording"


def test_a_probe_is_as_far_as_the_nearest_record_that_enrols_its_person() -> None:
    enrolment, probe = _segments(("r0", 0, 1), ("r2", 0, 1)), _segments(("r4", 0, 1), ("r9", 0, 1))
    probe.loc[1, "subject_id"] = "nobody"
    days = pd.Series({"r0": 0.0, "r2": 9.0, "r4": 7.0, "r9": 1.0})
    np.testing.assert_array_equal(days_apart(enrolment, probe, days), [2.0, np.nan])


def test_probes_are_cut_into_a_few_stretches_evenly_spread() -> None:
    long, short = ("long", 100, 3199), ("short", 0, 400)
    found = cut(_segments(long, short, ("two", 0, 1099)), 500, 4)
    spans = found.groupby("record_id")[["start", "stop"]].apply(lambda rows: rows.to_numpy().tolist()).to_dict()
    # six whole stretches, of which the first, the last and two between; a short one stays as it is
    assert spans == {
        "long": [[100, 600], [1100, 1600], [1600, 2100], [2600, 3100]],
        "short": [[0, 400]],
        "two": [[0, 500], [500, 1000]],
    }


def test_short_probes_change_nothing_else() -> None:
    (inner,), (split,) = (protocol.splits(RECORDS, 100.0, 0) for protocol in (CrossDay(), Shortened(CrossDay())))
    for part in ("train", "validation", "enrolment"):
        pd.testing.assert_frame_equal(getattr(split, part), getattr(inner, part))
    assert split.protocol == Shortened(CrossDay()).name == "cross_day_5s"
    assert Shortened(CrossDay()).claim.endswith("among everybody's first days, from 5 s")
    assert len(split.probe) == 4 * len(inner.probe)
    assert (split.probe["stop"] - split.probe["start"]).unique().tolist() == [500]


SPANS = pd.DataFrame(
    {
        "cohort": "x",
        "protocol": ["random_windows", "cross_day"],
        "gap": ["same recording", "another day, 6.5 days later (4 to 9)"],
        "enrolment s": [80.0, 22.4],
        "probe s": [5.0, np.nan],
        "probes": [9, 0],
    }
)


def test_tables_and_metrics_state_the_seconds() -> None:
    rows = span_results(SPANS).set_index(["protocol", "metric"])
    assert rows.loc[("random_windows", "probe_seconds"), ["value", "unit", "n", "note"]].tolist() == [
        *(5.0, "s", 9, "Median; same recording.")
    ]
    assert rows["note"]["cross_day", "probe_seconds"] == "Not defined: no probe is left."
    table = pd.DataFrame({"cohort": ["x", "y"], "protocol": "cross_day", "rank1": [0.5, 0.6]})
    shown = with_spans(table, SPANS)
    assert list(shown) == ["cohort", "protocol", "enrolment s", "probe s", "rank1"]
    assert shown["enrolment s"].tolist() == [22, pd.NA]
    renamed = with_spans(table.rename(columns={"protocol": "held apart"}), SPANS, "held apart")
    assert list(renamed)[:4] == ["cohort", "held apart", "enrolment s", "probe s"]
    assert with_spans(pd.DataFrame(), SPANS).empty


def test_the_inflation_figure_names_gap_and_seconds_and_compares_equal_galleries() -> None:
    cells = [("random_windows", 0.9), ("cross_day", 0.4)]
    about = {"cohort": "x", "attacker": "transecg", "low": 0.1, "high": 1.0}
    rows = [
        {**about, "protocol": p, "metric": m, "value": v} for p, v in cells for m in ("rank1", "rank1_equal_gallery")
    ]
    rows[1]["value"] = 0.7
    rows += [{**about, "protocol": p, "metric": "enrolled", "value": n} for p, n in (("cross_day", 90), ("other", 30))]
    (ax,) = inflation_figure(pd.DataFrame(rows), SPANS.fillna(20)).axes
    assert [label.get_text() for label in ax.get_yticklabels()] == [
        "random windows\nsame recording, 5 s",
        "cross day\nanother day, 6.5 days later (4 to 9), 20 s",
    ]
    assert ax.containers[0].lines[0].get_xdata().tolist() == [0.7, 0.4]
    assert len(ax.patches) == 1  # the leaky one stands on grey
    assert ax.get_title() == "x, galleries of 30 people"
    lines = {line.get_label(): line.get_xdata()[0] for line in ax.lines}
    assert lines["guessing"] == 1 / 30
    assert lines["published: 88.6 % (87 people)"] == 0.886
    leakier = [row | {"protocol": "overlapping_windows"} for row in rows[:2]]
    spans = pd.concat([SPANS, SPANS.assign(protocol="overlapping_windows").head(1)]).fillna(20)
    (ax,) = inflation_figure(pd.DataFrame([*rows, *leakier]), spans).axes
    assert len(ax.patches) == 2
