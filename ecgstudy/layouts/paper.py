"""``python -m ecgstudy digitise``: pictures of printed ECGs in, WFDB records out, and what was read drawn on each page.

What a page does not show is missing in the record (NaN); no word that stands on the page goes into it.
"""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import wfdb

from ecgstudy.errors import StudyError
from ecgstudy.layouts.digitise import FS, Reading, digitise

COLOURS = ((200, 30, 30), (30, 80, 200), (20, 130, 60), (170, 80, 0))
"""Colours (RGB) of the leads' lines on the overlay, in turns."""
STEPS_PER_MV = 1000
_SHIFT = 4


def digitise_files(pictures: Sequence[str], target: str, dpi: float | None, fs: float = FS) -> Iterator[str]:
    """Read pictures into a folder, a record and an overlay each; lines on what became of them.

    Raises
    ------
    StudyError
        The folder is a file, a record is there already, or no picture could be read.
    """
    folder, records = Path(target), {}
    if folder.exists() and not folder.is_dir():
        raise StudyError(f"{target} is a file; name a folder for the records.")
    for picture in pictures:
        name = re.sub(r"[^A-Za-z0-9_-]", "_", Path(picture).stem)
        if name in records or (folder / f"{name}.hea").exists():
            raise StudyError(f"{folder / name}.hea is there already, or is another picture's too; name another folder.")
        records[name] = Path(picture)
    n_read = 0
    for name, picture in records.items():
        try:
            reading = digitise(picture, fs, dpi)
        except StudyError as refusal:
            yield f"Not read: {refusal}"
            continue
        folder.mkdir(parents=True, exist_ok=True)
        write_record(reading, folder, name)
        cv2.imwrite(str(folder / f"{name}.png"), overlay(reading)[..., ::-1])
        n_read += 1
        yield f"{folder / name}.hea: {summary(reading)}"
    if not n_read:
        raise StudyError("No picture was read.")


def summary(reading: Reading) -> str:
    """Layout, seconds and least confidence, in words."""
    least = int(np.argmin(reading.confidence))
    return (
        f"{reading.layout.name}, {reading.values.shape[1] / reading.fs:g} s, "
        f"confidence {reading.confidence[least]:.2f} or more (least in {reading.leads[least]})"
    )


def write_record(reading: Reading, folder: Path, name: str) -> None:
    """Write what was read as a WFDB record in mV."""
    wfdb.wrsamp(
        name,
        fs=reading.fs,
        units=["mV"] * len(reading.leads),
        sig_name=list(reading.leads),
        p_signal=reading.values.T.astype(float),
        fmt=["16"] * len(reading.leads),
        adc_gain=[STEPS_PER_MV] * len(reading.leads),
        baseline=[0] * len(reading.leads),
        comments=[f"Layout: {reading.layout.name}", f"Confidence: {reading.confidence.round(2).tolist()}"],
        write_dir=str(folder),
    )


def overlay(reading: Reading) -> np.ndarray:
    """Draw on the flat page what was read; uint8 (h, w, 3), RGB."""
    image = cv2.cvtColor(reading.page.paper, cv2.COLOR_GRAY2RGB)
    for at, (lead, points) in enumerate(reading.drawn):
        colour = COLOURS[at % len(COLOURS)]
        line = np.rint(points * (1 << _SHIFT)).astype(np.int32)
        cv2.polylines(image, [line], False, colour, 1, cv2.LINE_AA, _SHIFT)
        x, y = points[0]
        place = round(x) + 4, round(min(y, np.median(points[:, 1]))) - 24
        cv2.putText(image, lead, place, cv2.FONT_HERSHEY_SIMPLEX, 0.6, colour, 2, cv2.LINE_AA)
    return image
