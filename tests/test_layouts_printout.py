"""Printing: what is measured on the paper is what the truth says, to a fraction of a pixel."""

import numpy as np
import pytest

from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.errors import StudyError
from ecgstudy.layouts.layout import Layout, layout_named
from ecgstudy.layouts.printout import SPECIMEN, Printout, Segment, Style, draw, random_style

FS = 250.0
BARE = Style(grid="none", pulse="none", names="none", legend=False, ink=(0, 0, 0))


def _waves(n_samples: int = 2500) -> np.ndarray:
    """Slow waves, 0.25 mV, another in every lead."""
    time = np.arange(n_samples) / FS
    return np.stack([0.25 * np.sin(2 * np.pi * (0.5 + 0.1 * at) * time + at) for at in range(12)])


def _ink(printout: Printout) -> np.ndarray:
    """Share of ink of each pixel, 0 to 1, drawn in black on white."""
    return 1 - printout.image[..., 1] / np.float32(255)


def _measured(printout: Printout, segment: Segment, reach: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Height of the ink (pixels) in the columns of a segment, away from its ends, and what the truth says."""
    points = printout.points(segment)
    columns = np.arange(np.ceil(points[0, 0]) + 5, points[-1, 0] - 5).astype(int)
    top = round(segment.y) - reach
    band = 1 - printout.image[top : round(segment.y) + reach, columns, 1] / 255
    found = top + (band * np.arange(len(band))[:, None]).sum(axis=0) / band.sum(axis=0)
    return found, np.interp(columns, *points.T)


@pytest.mark.parametrize("name", ["3x4+II", "6x2-cabrera+V5", "12x1"])
@pytest.mark.parametrize("dpi", [100, 201])
def test_the_ink_lies_where_the_truth_says(name: str, dpi: int) -> None:
    printout = draw(_waves(), STANDARD_LEADS, FS, layout_named(name), dpi, BARE)
    assert printout.px_per_mm == dpi / 25.4
    for segment in printout.segments:
        found, true = _measured(printout, segment, reach=round(0.3 * printout.px_per_mv))
        assert np.abs(found - true).max() < 0.5, segment
        assert np.abs((found - true).mean()) < 0.1, segment


def test_a_segment_shows_its_leads_stretch_at_25_mm_a_second_and_10_mm_a_millivolt() -> None:
    values = _waves()
    printout = draw(values, STANDARD_LEADS, FS, layout_named("3x4+II"), 254, BARE)  # 10 pixels a mm
    segment = next(part for part in printout.segments if part.lead == "V2")
    assert (segment.row, segment.column, segment.start, segment.stop) == (1, 2, 1250, 1875)
    x, y = printout.points(segment).T
    assert x[:2] == pytest.approx([250 + 5 * 250, 250 + 5 * 250 + 1])  # 25 mm beside, 5 s, 250 samples a second
    assert y == pytest.approx(segment.y - 100 * values[7, 1250:1875], abs=1e-4)


def test_paper_speed_and_gain_are_the_layouts() -> None:
    layout = Layout("3x4", layout_named("3x4").rows, speed=50, gain=5)
    printout = draw(_waves(), STANDARD_LEADS, FS, layout, 127, BARE)
    assert (printout.px_per_sample, printout.px_per_mv) == (1.0, 25.0)
    assert printout.image.shape[1] == (25 + 500 + 22) * 5
    found, true = _measured(printout, printout.segments[0], 25)
    assert np.abs(found - true).max() < 0.5


def test_the_truth_is_what_the_layout_shows_and_no_more() -> None:
    values = _waves()
    values[0, 100:150], values[2, 30] = np.nan, np.inf
    printout = draw(values, STANDARD_LEADS, FS, layout_named("3x4"), 100, BARE)
    expected = layout_named("3x4").visible(STANDARD_LEADS, 2500)
    expected[0, 100:150] = expected[2, 30] = False
    assert (printout.shown == expected).all()
    assert (np.isfinite(printout.values) == expected).all()
    assert printout.values[expected] == pytest.approx(values[expected])


def test_no_line_is_drawn_where_samples_are_lost() -> None:
    values = np.zeros((12, 2500))
    values[0, 200:300] = np.nan
    printout = draw(values, STANDARD_LEADS, FS, layout_named("3x4"), 254, BARE)
    segment = printout.segments[0]
    ink = _ink(printout)[round(segment.y), 250:875]
    assert ink[:195].min() > 0.9
    assert ink[205:295].max() == 0
    assert ink[305:620].min() > 0.9


def test_cabrera_draws_avr_upside_down() -> None:
    values = np.zeros((12, 2500))
    values[STANDARD_LEADS.index("aVR")] = -0.5
    for name, sign in (("3x4", 1), ("3x4-cabrera", -1)):
        printout = draw(values, STANDARD_LEADS, FS, layout_named(name), 254, BARE)
        segment = next(part for part in printout.segments if part.lead == "aVR")
        found, _ = _measured(printout, segment, 80)
        assert segment.sign == sign
        assert np.median(found) == pytest.approx(segment.y + sign * 50, abs=0.5)


def test_tall_waves_cross_rows() -> None:
    values = np.zeros((12, 2500))
    values[8, 1000:1010] = 4.0
    printout = draw(values, STANDARD_LEADS, FS, layout_named("12x1"), 100, BARE)
    wave, above = printout.segments[8], printout.segments[6]
    x = round(wave.x + 1005 * printout.px_per_sample)
    assert (_ink(printout)[round(above.y) - 8 : round(above.y) - 3, x - 5 : x + 6].max(axis=1) > 0.5).all()


def test_what_lies_far_off_the_page_does_no_harm() -> None:
    values = _waves()
    values[3] = 1e30
    printout = draw(values, STANDARD_LEADS, FS, layout_named("12x1"), 100, BARE)
    found, true = _measured(printout, printout.segments[5], 12)
    assert np.abs(found - true).max() < 0.5


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_pulse_of_every_row_is_5_mm_wide_and_10_mm_high(side: str) -> None:
    style = Style(grid="none", pulse=side, names="none", legend=False, ink=(0, 0, 0), pen_mm=0.1)
    printout = draw(np.full((12, 2500), np.nan), STANDARD_LEADS, FS, layout_named("3x4+II+V1"), 254, style)
    ink = _ink(printout) > 0.5
    assert len(printout.pulses) == 5
    for x, y in printout.pulses:
        assert (x < 250) == (side == "left")
        rows, columns = np.nonzero(ink[round(y) - 120 : round(y) + 20, round(x) - 40 : round(x) + 100])
        high = ink[round(y) - 50, round(x) - 40 : round(x) + 100]
        assert np.ptp(rows) == pytest.approx(100, abs=2)
        assert np.ptp(np.flatnonzero(high)) == pytest.approx(50, abs=2)
        assert np.flatnonzero(high)[0] == pytest.approx(40, abs=2)
        assert np.ptp(columns) == pytest.approx(90, abs=3)  # with 2 mm of zero on both sides
    without = draw(np.full((12, 2500), np.nan), STANDARD_LEADS, FS, layout_named("3x4+II+V1"), 254, BARE)
    assert without.pulses == ()
    assert _ink(without).max() == 0


@pytest.mark.parametrize("grid", ["red", "green", "grey"])
def test_the_paper_has_lines_every_millimetre_and_darker_ones_every_five(grid: str) -> None:
    style = Style(grid=grid, pulse="none", names="none", legend=False)
    image = draw(np.full((12, 2500), np.nan), STANDARD_LEADS, FS, layout_named("3x4"), 254, style).image.astype(int)
    across = image[505, 500:1000].sum(axis=1)  # between two lines
    at = np.arange(500)
    assert (across[at % 10 == 0] < across[at % 10 == 5].min()).all()
    assert across[at % 50 == 0].max() < across[(at % 10 == 0) & (at % 50 > 0)].min()
    paper = image[2, 2]
    assert (image[:40] == paper).all()
    assert (image[:, -60:] == paper).all()
    assert (image[:, :40] == paper).all()


def test_separators_stand_between_columns_and_nowhere_else() -> None:
    def columns(kind: str, name: str = "3x4+II") -> tuple[set[int], float]:
        style = Style(grid="none", separators=kind, pulse="none", names="none", legend=False, ink=(0, 0, 0))
        printout = draw(np.full((12, 2500), np.nan), STANDARD_LEADS, FS, layout_named(name), 254, style)
        ink = _ink(printout)
        assert ink[round(printout.segments[-1].y) - 20 :].max() == 0 or name == "3x4"  # not through the strip
        return {int(x / 10 + 0.5) for x in np.flatnonzero(ink.max(axis=0) > 0.9)}, ink.sum()

    bounds = {87, 88, 150, 212, 213}  # 25 mm and every 62.5
    solid, dotted, ticks = (columns(kind) for kind in ("solid", "dotted", "ticks"))
    assert solid[0] <= bounds
    assert dotted[0] <= bounds
    assert ticks[0] <= bounds
    assert min(map(len, (solid[0], dotted[0], ticks[0]))) >= 3
    assert solid[1] > 1.3 * dotted[1] > 1.3 * ticks[1] > 0
    assert columns("none") == (set(), 0)


def test_texts_are_only_those_that_are_asked_for() -> None:
    empty = np.full((12, 2500), np.nan)

    def ink(**style: object) -> np.ndarray:
        asked = {"grid": "none", "pulse": "none", "names": "none", "legend": False, "ink": (0, 0, 0)} | style
        return _ink(draw(empty, STANDARD_LEADS, FS, layout_named("3x4"), 200, Style(**asked)))

    assert ink().max() == 0
    assert ink(header=SPECIMEN)[:180, :900].sum() > 500
    assert ink(header=SPECIMEN)[180:].max() == 0
    assert ink(legend=True)[-150:].sum() > 100
    assert ink(legend=True)[:-150].max() == 0
    above, trace = ink(names="above"), ink(names="trace")
    segments = draw(empty, STANDARD_LEADS, FS, layout_named("3x4"), 200, BARE).segments
    for segment in segments:
        y, x = round(segment.y), round(segment.x)
        assert above[y - 120 : y - 50, x : x + 100].sum() > 20
        assert trace[y - 30 : y + 5, x : x + 100].sum() > 20


def test_drawing_leaves_the_cached_paper_clean() -> None:
    first = draw(_waves(), STANDARD_LEADS, FS, layout_named("3x4"), 100)
    blank = draw(np.full((12, 2500), np.nan), STANDARD_LEADS, FS, layout_named("3x4"), 100, Style(names="none"))
    again = draw(_waves(), STANDARD_LEADS, FS, layout_named("3x4"), 100)
    assert (first.image == again.image).all()
    assert (blank.image[300:400, 300:400].min(axis=(0, 1)) > 100).all()


def test_a_missing_lead_or_an_impossible_resolution_is_one_sentence() -> None:
    with pytest.raises(StudyError, match="Without V5, V6 the layout 3x4 cannot be drawn"):
        draw(_waves()[:10], STANDARD_LEADS[:10], FS, layout_named("3x4"))
    for dpi in (49, 601):
        with pytest.raises(StudyError, match="choose from 50 to 600"):
            draw(_waves(), STANDARD_LEADS, FS, layout_named("3x4"), dpi)


def test_random_styles_are_of_every_kind_and_seeded() -> None:
    rng, again = np.random.default_rng(0), np.random.default_rng(0)
    drawn = [random_style(rng) for _ in range(60)]
    assert drawn == [random_style(again) for _ in range(60)]
    kinds = {name: {getattr(style, name) for style in drawn} for name in ("grid", "separators", "pulse", "names")}
    assert {name: len(found) for name, found in kinds.items()} == {"grid": 4, "separators": 4, "pulse": 3, "names": 2}
    assert {style.header for style in drawn} == {(), SPECIMEN}
    assert all(style.pulse != "none" for style in drawn if style.grid == "none")
    assert any(style.pulse == "none" for style in drawn)
