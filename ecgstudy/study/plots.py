"""House style of the figures, and ECG paper."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

PALETTE = sns.color_palette("colorblind")
WAVE_COLOURS = {"P": PALETTE[0], "QRS": PALETTE[3], "T": PALETTE[2]}
PAPER_SPEED = 25.0  # mm/s
PAPER_GAIN = 10.0  # mm/mV
PULSE_S = 0.4
"""Room that a calibration pulse takes to the left of a trace."""
_MM_PER_INCH = 25.4


def use_house_style() -> None:
    """Set seaborn's theme, colour-blind-safe colours and reproducible SVG for all figures that follow."""
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind")
    mpl.rcParams.update(
        {
            "figure.dpi": 96,
            "savefig.dpi": 110,
            "savefig.bbox": "tight",
            "figure.constrained_layout.use": True,
            "svg.hashsalt": "ecgstudy",
            "svg.fonttype": "none",
            "axes.titlesize": "medium",
            "axes.titleweight": "bold",
        }
    )


def ecg_paper(ax: Axes, seconds: tuple[float, float], millivolts: tuple[float, float]) -> None:
    """Turn an axis into ECG paper between two limits a side: 1 mm and 5 mm grid at 25 mm/s and 10 mm/mV."""
    ax.set(xlim=seconds, ylim=millivolts, xlabel="time (s)", ylabel="amplitude (mV)")
    ax.set_aspect(PAPER_GAIN / PAPER_SPEED)
    for axis, millimetre, form in ((ax.xaxis, 1 / PAPER_SPEED, ".1f"), (ax.yaxis, 1 / PAPER_GAIN, "g")):
        axis.set_minor_locator(MultipleLocator(millimetre))
        axis.set_major_locator(MultipleLocator(5 * millimetre))
        axis.set_major_formatter(lambda at, _, form=form: f"{at:{form}}" if np.isclose(at, round(at)) else "")
    ax.grid(which="minor", color="#f6c9c9", linewidth=0.4)
    ax.grid(which="major", color="#e79a9a", linewidth=0.8)
    ax.tick_params(which="both", length=0)
    for spine in ax.spines.values():
        spine.set_color("#e79a9a")


def calibration_pulse(ax: Axes, baseline: float) -> None:
    """Draw the pulse of 1 mV and 0.2 s before the start of a trace, and say speed and gain, on ECG paper."""
    ax.plot([-0.3, -0.3, -0.1, -0.1], baseline + np.array([0, 1, 1, 0]), color="black", linewidth=1)
    scale = f"{PAPER_SPEED:g} mm/s, {PAPER_GAIN:g} mm/mV"
    ax.text(0.99, 0.03, scale, ha="right", va="bottom", fontsize="small", transform=ax.transAxes)


def strip_figure(millivolts: np.ndarray, fs: float) -> Figure:
    """Draw a few heartbeats, samples in mV of shape (n,), on ECG paper at its true scale."""
    seconds, middle = len(millivolts) / fs, float(np.median(millivolts))
    figure, ax = plt.subplots(figsize=paper_size(seconds, 3.0))
    ax.plot(np.arange(len(millivolts)) / fs, millivolts, color="black", linewidth=0.9)
    ecg_paper(ax, (0, seconds), (middle - 1.5, middle + 1.5))
    plt.close(figure)  # shown once, by whoever asked for it
    return figure


def paper_size(seconds: float, millivolts: float) -> tuple[float, float]:
    """Figure size in inches at which ECG paper comes out at its true scale, margins added."""
    return seconds * PAPER_SPEED / _MM_PER_INCH + 0.9, millivolts * PAPER_GAIN / _MM_PER_INCH + 0.7
