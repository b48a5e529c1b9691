"""Layouts: which lead shows which stretch of time, by name, at random, and frozen by a record's id."""

from collections import Counter

import numpy as np
import pytest

from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.errors import StudyError
from ecgstudy.layouts.layout import (
    LAYOUTS,
    RANDOM,
    assigned,
    assignment_table,
    grid,
    layout_named,
    random_layout,
)


def _stretches(name: str, n_samples: int = 1000) -> dict[str, tuple[int, int]]:
    """First and last visible sample (plus one) of each lead; what is visible has no hole."""
    shown = layout_named(name).visible(STANDARD_LEADS, n_samples)
    assert shown.shape == (12, n_samples)
    assert all(np.abs(np.diff(row.astype(int), prepend=0, append=0)).sum() == 2 for row in shown)
    firsts, lasts = shown.argmax(axis=1), n_samples - shown[:, ::-1].argmax(axis=1)
    return {lead: (int(firsts[at]), int(lasts[at])) for at, lead in enumerate(STANDARD_LEADS)}


def test_the_layouts_of_the_study_have_the_names_of_the_field() -> None:
    assert [*LAYOUTS] == ["3x4", "3x4+II", "3x4+II+V1", "6x2", "6x2+II", "12x1"]
    assert all(layout == layout_named(name) for name, layout in LAYOUTS.items())
    assert LAYOUTS["3x4"].rows[1] == ("II", "aVL", "V2", "V5")
    assert LAYOUTS["6x2+II"].rows[5] == ("aVF", "V6")


def test_column_k_shows_the_kth_stretch_of_time_and_a_strip_the_whole() -> None:
    found = _stretches("3x4+II")
    assert found["I"] == found["III"] == (0, 250)
    assert found["aVL"] == (250, 500)
    assert found["V3"] == (500, 750)
    assert found["V6"] == (750, 1000)
    assert found["II"] == (0, 1000)
    assert _stretches("6x2")["V1"] == (500, 1000)
    assert {*_stretches("12x1").values()} == {(0, 1000)}


@pytest.mark.parametrize("name", [*LAYOUTS, "3x4-cabrera", "6x2-cabrera+V5"])
def test_every_lead_is_seen_and_columns_share_the_time(name: str) -> None:
    layout = layout_named(name)
    shown = layout.visible(STANDARD_LEADS, 1003)  # no multiple of the columns
    strips = [lead in layout.strips for lead in STANDARD_LEADS]
    assert shown.any(axis=1).all()
    assert (shown[~np.array(strips)].sum(axis=0) <= len(layout.rows)).all()
    assert layout.edges(1003)[[0, -1]].tolist() == [0, 1003]
    assert np.ptp(np.diff(layout.edges(1003))) <= 1


def test_leads_are_shown_in_the_order_of_the_record() -> None:
    shown = LAYOUTS["3x4"].visible(["V6", "MLII", "I"], 8)
    assert shown.tolist() == [[False] * 6 + [True] * 2, [False] * 8, [True] * 2 + [False] * 6]


def test_cabrera_turns_avr_and_names_the_lead_all_the_same() -> None:
    layout = layout_named("3x4-cabrera+II")
    assert [row[:2] for row in layout.rows] == [("aVL", "II"), ("I", "aVF"), ("-aVR", "III")]
    assert {*layout.leads} == {*STANDARD_LEADS}
    assert _stretches("3x4-cabrera")["aVR"] == (0, 250)


@pytest.mark.parametrize(
    "name",
    ["", "random", "4x3", "3x4+", "3x4+II+II", "3x4+VX", "3x4-ward", "2x4", "3x4+II+V1+V5+III", "03x4 ", "6x2+-aVR"],
)
def test_an_unknown_layout_is_one_sentence(name: str) -> None:
    with pytest.raises(StudyError, match=r"There is no layout .* choose one of 3x4, 3x4\+II"):
        layout_named(name)


def test_random_layouts_are_of_every_kind_and_can_be_named() -> None:
    rng = np.random.default_rng(0)
    drawn = [random_layout(rng) for _ in range(400)]
    assert all(layout == layout_named(layout.name) for layout in drawn)
    kinds = Counter((layout.columns, len(layout.strips)) for layout in drawn)
    assert {*kinds} == {(1, 0)} | {(columns, strips) for columns in (2, 4) for strips in range(4)}
    assert {layout.rows[0][0] for layout in drawn} == {"I", "aVL"}
    assert {layout.strips[0] for layout in drawn if layout.strips} == {"II", "V1", "V5", "III"}


def test_an_assignment_rests_on_the_records_id_alone_and_is_frozen() -> None:
    ids = ["ptbxl/00001", "ptbxl/00002", "ludb/1", "ludb/2"]
    names = [layout.name for layout in assigned(ids, RANDOM)]
    assert names == ["3x4-cabrera+II+III+V5", "12x1", "12x1", "3x4-cabrera+III"]
    assert [layout.name for layout in assigned(ids[::-1], RANDOM)] == names[::-1]
    table = assignment_table(ids)
    assert table.to_dict("list") == {"record_id": ids, "layout": names}


def test_a_named_layout_is_every_records() -> None:
    assert assigned(["a", "b"], "6x2+II") == [grid(2, ["II"])] * 2
