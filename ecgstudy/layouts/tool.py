"""``python -m ecgstudy render``: WFDB records in, a picture of each on ECG paper out.

A picture holds the traces, names of leads, speed and gain, and no word of a header or a table.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.image import imsave

from ecgstudy.data.base import Signal
from ecgstudy.data.own import FolderCohort
from ecgstudy.errors import DataNotFoundError, RecordError, StudyError
from ecgstudy.layouts.layout import assigned
from ecgstudy.layouts.printout import Style, check_dpi, draw, random_style
from ecgstudy.layouts.scan import defects_of, scan
from ecgstudy.study.cache import new_file

PAGE_S, LEAST_S = 10.0, 2.0
"""Seconds that a page shows, and that a record must have."""
MOST_MV = 20.0
"""No heart goes beyond it; 99 of 100 samples must stay within."""
PNG_LEVEL = 3


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
    folder, pictures, n_drawn = Path(target), {}, 0
    if folder.exists() and not folder.is_dir():
        raise StudyError(f"{target} is a file; name a folder for the pictures.")
    found, skipped = _found(records)
    for cohort, record_id in found:
        path = folder / f"{record_id}.png"
        if path.exists() or path in pictures:
            raise StudyError(f"{path} is there already, or is another record's picture too; name another folder.")
        pictures[path] = cohort, record_id
    for path, (cohort, record_id) in pictures.items():
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
                raise StudyError(
                    f"{name} holds no WFDB record (.hea with .dat or .mat), or you may not read it."
                ) from None
            found += [(cohort, record_id) for record_id in cohort.records()["record_id"]]
            failed += [f"{row.file} {row.reason}; {row.remedy}." for row in cohort.failures().itertuples()]
        elif header.is_file():
            found.append((_OneRecord(header), header.stem))
        else:
            raise StudyError(f"{name} is no folder and no WFDB record: there is no {header}.")
    return found, failed


def _picture(cohort: FolderCohort, record_id: str, look: Look) -> tuple[np.ndarray, bool]:
    """Draw a record; uint8 (height, width, 3), and whether it goes on after what is drawn."""
    seconds, values, signal = _drawable(cohort, record_id)
    digest = hashlib.sha256(f"{look.seed}\0{record_id}".encode(errors="surrogateescape")).digest()
    seed = int.from_bytes(digest[:8])
    style = random_style(np.random.default_rng(seed)) if look.vary else Style()
    (layout,) = assigned([record_id], look.layout)
    printout = draw(values, signal.leads, signal.fs, layout, look.dpi, replace(style, header=look.header))
    return scan(printout, look.scan, seed).image, seconds > PAGE_S


def _drawable(cohort: FolderCohort, record_id: str) -> tuple[float, np.ndarray, Signal]:
    """Read a record: its seconds, and what a page shows of it, in mV around the middle of each lead."""
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
    return seconds, values, signal
