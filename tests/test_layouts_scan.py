"""Defects of scans: each is there, the truth follows the page, and no trace is cut off."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.errors import StudyError
from ecgstudy.layouts import scan as module
from ecgstudy.layouts.layout import layout_named
from ecgstudy.layouts.printout import Printout, Style, draw
from ecgstudy.layouts.scan import SEVERITIES, TABLE, Defects, scan

DPI = 100


@pytest.fixture(scope="module")
def flat() -> Printout:
    """Draw a page whose traces are straight lines."""
    return draw(np.zeros((12, 1000)), STANDARD_LEADS, 100, layout_named("3x4"), DPI, Style(names="none", pulse="none"))


def _with(monkeypatch: pytest.MonkeyPatch, printout: Printout, seed: int = 0, **defects: float) -> module.Scan:
    """Scan with some defects alone."""
    monkeypatch.setitem(module.SEVERITIES, "some", replace(Defects(), **defects))
    return scan(printout, "some", seed)


def test_a_clean_scan_is_the_page(flat: Printout) -> None:
    scanned = scan(flat, "clean", 5)
    assert (scanned.image == flat.image).all()
    assert (scanned.homography == np.eye(3)).all()
    assert scanned.image is not flat.image


@pytest.mark.parametrize("severity", ["mild", "moderate", "severe"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_truth_follows_the_page(flat: Printout, severity: str, seed: int) -> None:
    scanned = scan(flat, severity, seed)
    ink = 255 - scanned.image.min(axis=2).astype(np.float32)
    reach = np.arange(-3, 3.1, 0.25, dtype=np.float32)
    offs = []
    for segment in flat.segments:
        points = scanned.moved(flat.points(segment)[10:-10])
        x, y = np.repeat(points[:, :1], len(reach), axis=1), points[:, 1:] + reach
        across = cv2.remap(ink, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR)
        weight = across - across.min(axis=1, keepdims=True)
        offs.append((weight * reach).sum(axis=1) / weight.sum(axis=1))
    assert abs(np.median(offs)) < 0.1
    assert np.abs(np.median(offs, axis=1)).max() < 0.35


@pytest.mark.parametrize("severity", [*SEVERITIES])
def test_no_trace_is_cut_off_and_pulses_are(severity: str) -> None:
    page = draw(np.zeros((12, 1000)), STANDARD_LEADS, 100, layout_named("12x1"), 50)
    far, cut = np.inf, 0
    for seed in range(60):
        homography, (width, height) = module._placed(
            page.image.shape, page.px_per_mm, SEVERITIES[severity], np.random.default_rng(seed)
        )
        moved = module.Scan(page.image, homography).moved
        ends = moved(np.vstack([page.points(segment)[[0, -1]] for segment in page.segments]))
        far = min(far, ends.min(), (np.array([width, height]) - ends).min())
        cut += (moved(np.array(page.pulses))[:, 0] < 0).any()
    assert far > 2 * page.px_per_mm
    assert (cut > 0) == (severity == "severe")


def test_scans_are_seeded(flat: Printout) -> None:
    first, again, other = (scan(flat, "severe", seed) for seed in (3, 3, 4))
    assert first.image.shape == again.image.shape
    assert (first.image == again.image).all()
    assert not np.allclose(first.homography, other.homography)


def test_severer_scans_are_further_off_and_darker(flat: Printout) -> None:
    corners = np.array([(0.0, 0), (1000, 0), (0, 700), (1000, 700)])
    tilts, lights = [], []
    for severity in ("mild", "moderate", "severe"):
        scans = [scan(flat, severity, seed) for seed in range(4)]
        sides = [np.diff(scanned.moved(corners)[:2], axis=0)[0] for scanned in scans]
        tilts.append(np.mean([abs(np.degrees(np.arctan2(y, x))) for x, y in sides]))
        seeded = map(np.random.default_rng, range(8))
        lights.append(np.mean([module._light(flat.image.shape, SEVERITIES[severity], rng) for rng in seeded]))
    assert tilts == sorted(tilts)
    assert lights == sorted(lights, reverse=True)
    assert tilts[0] > 0.3


def test_each_defect_leaves_its_mark(flat: Printout, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = _with(monkeypatch, flat, blur_mm=0.05).image.astype(int)
    paper = (slice(30, 150), slice(45, 60))  # without ink

    def spread(image: np.ndarray) -> float:
        return float(image[paper][..., 1].std())

    noisy = _with(monkeypatch, flat, noise=20, blur_mm=0.05, shadow=0.2).image
    assert noisy[3:15, 100:300, 1].std() > 8 > 1 > plain[3:15, 100:300, 1].std()
    assert spread(_with(monkeypatch, flat, blur_mm=1).image) < spread(plain) / 2
    assert np.median(_with(monkeypatch, flat, shadow=0.5, blur_mm=0.05).image) < np.median(plain) - 15
    tinted = np.median(_with(monkeypatch, flat, tint=0.2, blur_mm=0.05).image, axis=(0, 1))
    assert np.ptp(tinted - np.median(plain, axis=(0, 1))) > 8
    packed = _with(monkeypatch, flat, jpeg=10, blur_mm=0.05).image.astype(int)
    assert np.abs(packed - plain).mean() > 2


def test_folds_are_lines_across_the_page_and_not_across_the_table(
    flat: Printout, monkeypatch: pytest.MonkeyPatch
) -> None:
    blank = replace(flat, image=np.full_like(flat.image, 250))
    for seed in range(4):
        folded = _with(monkeypatch, blank, seed, folds=1, rotation=5, table=1, blur_mm=0.1).image.astype(int)
        page = folded.min(axis=2) > 120
        assert folded.mean(axis=2)[page].min() < 235
        beside = np.abs(folded - TABLE).max(axis=2)
        assert np.median(beside[:8, :8]) <= 2
        assert (cv2.erode((~page).astype(np.uint8), np.ones((9, 9))) * beside).max() < 40


def test_a_copy_has_no_colours_and_one_in_black_and_white_no_greys(
    flat: Printout, monkeypatch: pytest.MonkeyPatch
) -> None:
    grey = _with(monkeypatch, flat, grey=1, blur_mm=0.05).image
    assert (np.ptp(grey, axis=2) == 0).all()
    bilevel = _with(monkeypatch, flat, black_and_white=1, blur_mm=0.05, shadow=0.4).image
    assert ((bilevel < 20) | (bilevel > 235)).mean() > 0.98
    assert 0.01 < (bilevel < 128).mean() < 0.2


def test_an_unknown_severity_is_one_sentence(flat: Printout) -> None:
    with pytest.raises(StudyError, match="choose one of clean, mild, moderate, severe"):
        scan(flat, "awful", 0)
