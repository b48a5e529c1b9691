"""``python -m ecgstudy render`` and ``digitise``: WFDB records in, a picture of each on ECG paper out, and back.

A picture holds the traces, names of leads, speed and gain, and no word of a header or a table. What a page does not
show is missing in the record (NaN), and no word that stands on the page goes into it; what was read is drawn on it.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import wfdb
from matplotlib.image import imsave

from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.data.own import FolderCohort
from ecgstudy.errors import DataNotFoundError, RecordError, StudyError
from ecgstudy.layouts.digitise import Reading, digitise
from ecgstudy.layouts.layout import assigned
from ecgstudy.layouts.printout import Style, check_dpi, draw, random_style
from ecgstudy.layouts.scan import defects_of, scan
from ecgstudy.study.cache import new_file

PAGE_S, LEAST_S = 10.0, 2.0
"""Seconds that a page shows, and that a record must have."""
MOST_MV = 20.0
"""No heart goes beyond it; 99 of 100 samples must stay within."""
PNG_LEVEL = 3
COLOURS = ((200, 30, 30), (30, 80, 200), (20, 130, 60), (170, 80, 0))
"""Colours (RGB) of the leads' lines on the overlay, in turns."""
STEPS_PER_MV = 1000
_SHIFT = 4


@dataclass(frozen=True)
class Look:
    """How pictures shall look; `StudyError` where there is no such layout, resolution, severity or seed."""

    layout: str  # or "random", which is another one for every record
    dpi: int
    scan: str  # severity of the defects
    vary: bool  # another grid, ink, separators, names and pulse for every record
    header: tuple[str, ...]  # lines above the traces
    seed: int

    def __post_init__(self) -> None:
        assigned([], self.layout)
        check_dpi(self.dpi)
        defects_of(self.scan)
        if self.seed < 0:
            raise StudyError(f"The seed is {self.seed}; give a number from 0 on.")


class _OneRecord(FolderCohort):
    """A record alone, whatever lies beside it."""

    def __init__(self, header: Path) -> None:
        self.root = header.parent.resolve()
        self.paths = {header.stem: header}


def render(records: Sequence[str], target: str, look: Look) -> Iterator[str]:
    """Draw records, or all records of folders, into a folder; lines on what became of them.

    Raises
    ------
    StudyError
        There is no such record, a picture has the name of one that is there already, or none can be drawn.
    """
    (found, skipped), n_drawn = _found(records), 0
    files = _files(target, [f"{record_id}.png" for _, record_id in found], "pictures", "record's picture")
    for path, (cohort, record_id) in zip(files, found, strict=True):
        try:
            picture, is_cut = _picture(cohort, record_id, look)
        except StudyError as unfit:
            skipped.append(str(unfit) if isinstance(unfit, RecordError) else f"{record_id}: {unfit}")
            continue
        with new_file(path) as unfinished:
            imsave(unfinished, picture, dpi=look.dpi, pil_kwargs={"compress_level": PNG_LEVEL})
        n_drawn += 1
        yield f"{path}{f' shows the first {PAGE_S:g} s' if is_cut else ''}"
    yield from (f"Skipped: {told}" for told in skipped)
    if not n_drawn:
        raise StudyError("No record was drawn.")


def _files(target: str, names: Sequence[str], made: str, whose: str) -> list[Path]:
    """Give files to make in a folder; refuses a file in its place, and the name of one that is there or comes twice."""
    folder, files = Path(target), {}
    if folder.exists() and not folder.is_dir():
        raise StudyError(f"{target} is a file; name a folder for the {made}.")
    for path in (folder / name for name in names):
        if path.exists() or path in files:
            raise StudyError(f"{path} is there already, or is another {whose} too; name another folder.")
        files[path] = None
    return list(files)


def _found(records: Sequence[str]) -> tuple[list[tuple[FolderCohort, str]], list[str]]:
    """Give records and those of folders, each with the cohort that reads it, and sentences on those that cannot be."""
    found, failed = [], []
    for name in records:
        path = Path(name)
        header = path if path.suffix == ".hea" else path.with_name(f"{path.name}.hea")
        if path.is_dir():
            try:
                cohort = FolderCohort(path)
            except DataNotFoundError:
                none = f"{name} holds no WFDB record (.hea with .dat or .mat), or you may not read it."
                raise StudyError(none) from None
            found += [(cohort, record_id) for record_id in cohort.records()["record_id"]]
            failed += [f"{row.file} {row.reason}; {row.remedy}." for row in cohort.failures().itertuples()]
        elif header.is_file():
            found.append((_OneRecord(header), header.stem))
        else:
            raise StudyError(f"{name} is no folder and no WFDB record: there is no {header}.")
    return found, failed


def _picture(cohort: FolderCohort, record_id: str, look: Look) -> tuple[np.ndarray, bool]:
    """Draw a record; uint8 (height, width, 3), and whether it goes on after what is drawn."""
    signal, file = cohort.signal(record_id), f"{record_id}.hea"
    seconds = signal.values.shape[1] / signal.fs
    if signal.unit != "mV":
        raise RecordError(file, "is in no multiple of the volt", "state gain and unit in the header, as 200/mV")
    if seconds < LEAST_S:
        raise RecordError(file, f"holds less than {LEAST_S:g} s", "choose a longer record")
    values = signal.values[:, : round(PAGE_S * signal.fs)]
    if not np.isfinite(values).any():
        raise RecordError(file, f"holds no sample that is a number in its first {PAGE_S:g} s", "choose another record")
    values = values - np.nanmedian(values, axis=1, keepdims=True)  # printers let no constant voltage through
    reach = float(np.nanpercentile(np.abs(values), 99))
    if reach > MOST_MV:
        raise RecordError(file, f"reaches {reach:.3g} mV, as no heart does", "correct gain or unit in its header")
    digest = hashlib.sha256(f"{look.seed}\0{record_id}".encode(errors="surrogateescape")).digest()
    seed = int.from_bytes(digest[:8])
    style = random_style(np.random.default_rng(seed)) if look.vary else Style()
    (layout,) = assigned([record_id], look.layout)
    printout = draw(values, signal.leads, signal.fs, layout, look.dpi, replace(style, header=look.header))
    return scan(printout, look.scan, seed).image, seconds > PAGE_S


def digitise_files(pictures: Sequence[str], target: str, dpi: float | None) -> Iterator[str]:
    """Read pictures into a folder, a record and an overlay each; lines on what became of them.

    Raises
    ------
    StudyError
        The folder is a file, a record is there already, or no picture could be read.
    """
    names, n_read = [re.sub(r"[^A-Za-z0-9_-]", "_", Path(picture).stem) for picture in pictures], 0
    headers = _files(target, [f"{name}.hea" for name in names], "records", "picture's")
    for picture, header in zip(pictures, headers, strict=True):
        try:
            reading = digitise(Path(picture), dpi)
        except StudyError as refusal:
            yield f"Not read: {refusal}"
            continue
        header.parent.mkdir(parents=True, exist_ok=True)
        write_record(reading, header.parent, header.stem)
        cv2.imwrite(str(header.with_suffix(".png")), overlay(reading)[..., ::-1])
        n_read += 1
        yield f"{header}: {reading.summary}"
    if not n_read:
        raise StudyError("No picture was read.")


def write_record(reading: Reading, folder: Path, name: str) -> None:
    """Write what was read as a WFDB record in mV."""
    n, samples = len(STANDARD_LEADS), reading.values.T.astype(float)
    told = [f"Layout: {reading.layout.name}", f"Confidence: {reading.confidence.round(2).tolist()}"]
    how = {"fmt": ["16"] * n, "adc_gain": [STEPS_PER_MV] * n, "baseline": [0] * n, "comments": told}
    wfdb.wrsamp(name, reading.fs, ["mV"] * n, list(STANDARD_LEADS), samples, write_dir=str(folder), **how)


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
