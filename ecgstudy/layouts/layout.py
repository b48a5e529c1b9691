"""Layouts of printed 12-lead ECGs: which lead shows which stretch of time.

A page has rows of columns; column k shows the k-th of equal stretches of time, so that leads of different columns were
never seen together. Rhythm strips below show one lead the whole time. A layout is known by its name, as ``3x4+II+V1``
(three rows of four columns, strips of II and V1); ``-cabrera`` after the columns puts the limb leads in Cabrera's
order, in which aVR is drawn upside down.
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.errors import StudyError

RANDOM = "random"
"""Name of the view in which every record has a layout of its own."""
INVERTED = "-"
"""What the name of a lead begins with where it is drawn upside down."""
ORDERS = {
    "standard": STANDARD_LEADS,
    "cabrera": ("aVL", "I", f"{INVERTED}aVR", "II", "aVF", "III", *STANDARD_LEADS[6:]),
}
STRIPS = ("II", "V1", "V5", "III")
"""Leads that are printed as rhythm strips, the most common first."""
MOST_STRIPS = 3
COLUMNS = (1, 2, 4)
"""Numbers of columns of a printout."""


SPEED, GAIN = 25.0, 10.0
"""Usual paper speed (mm/s) and gain (mm/mV)."""


@dataclass(frozen=True)
class Stretch:
    """Where a page shows a lead: row (strips below the others), column, and samples from `start` up to `stop`."""

    lead: str
    row: int
    column: int
    start: int
    stop: int
    sign: int  # -1 where it is drawn upside down

    @property
    def span(self) -> slice:
        """Its samples."""
        return slice(self.start, self.stop)

    @property
    def written(self) -> str:
        """Name of the lead as it stands on the page."""
        return f"{INVERTED if self.sign < 0 else ''}{self.lead}"


@dataclass(frozen=True)
class Layout:
    """Rows of leads, one a column, and the leads of the strips below; paper speed (mm/s) and gain (mm/mV)."""

    name: str
    rows: tuple[tuple[str, ...], ...]
    strips: tuple[str, ...] = ()
    speed: float = SPEED
    gain: float = GAIN

    @property
    def columns(self) -> int:
        """Number of columns."""
        return len(self.rows[0])

    @property
    def leads(self) -> tuple[str, ...]:
        """Every lead that is shown, once."""
        return tuple(dict.fromkeys(part.lead for part in self.stretches(0)))

    def edges(self, n_samples: int) -> np.ndarray:
        """First sample of each column, and `n_samples`; shape (columns + 1,)."""
        return np.rint(np.linspace(0, n_samples, self.columns + 1)).astype(int)

    def stretches(self, n_samples: int) -> list[Stretch]:
        """Every stretch of a lead, row by row, then the strips."""
        edges, found = self.edges(n_samples).tolist(), []
        for row, leads in enumerate(self.rows):
            for column, lead in enumerate(leads):
                sign = -1 if lead.startswith(INVERTED) else 1
                found.append(Stretch(lead.removeprefix(INVERTED), row, column, *edges[column : column + 2], sign))
        below = enumerate(self.strips, start=len(self.rows))
        return found + [Stretch(lead, row, 0, 0, n_samples, 1) for row, lead in below]

    def visible(self, leads: Sequence[str], n_samples: int) -> np.ndarray:
        """Whether the page shows a sample, bool (n_leads, n_samples); nothing of a lead that it does not name."""
        shown = np.zeros((len(leads), n_samples), dtype=bool)
        for part in self.stretches(n_samples):
            if part.lead in leads:
                shown[leads.index(part.lead), part.span] = True
        return shown


def grid(columns: int, strips: Sequence[str] = (), order: str = "standard") -> Layout:
    """Layout of the 12 leads, filled column by column in one of the :data:`ORDERS`, with rhythm strips."""
    leads = ORDERS[order]
    n_rows = len(leads) // columns
    rows = tuple(leads[row::n_rows] for row in range(n_rows))
    base = f"{n_rows}x{columns}" + ("" if order == "standard" else f"-{order}")
    return Layout("+".join([base, *strips]), rows, tuple(strips))


LAYOUTS = {
    layout.name: layout
    for layout in (grid(4), grid(4, ["II"]), grid(4, ["II", "V1"]), grid(2), grid(2, ["II"]), grid(1))
}
"""Layouts that the study reports on, by name."""


def layout_named(name: str) -> Layout:
    """Give a layout by its name, as ``3x4+II+V1`` or ``6x2-cabrera``; `StudyError` where no page is called so."""
    base, *strips = name.split("+")
    match = re.fullmatch(r"(\d+)x(\d+)(?:-(\w+))?", base)
    known = match and int(match[2]) in COLUMNS and int(match[1]) * int(match[2]) == len(STANDARD_LEADS)
    of_leads = len({*strips}) == len(strips) <= MOST_STRIPS and {*strips} <= {*STANDARD_LEADS}
    if not (known and of_leads and (match[3] or "standard") in ORDERS):
        told = ", ".join(LAYOUTS)
        raise StudyError(
            f"There is no layout {name!r}; choose one of {told}, or write 3x4, 6x2 or 12x1, then -cabrera where the "
            f"limb leads are in that order, then up to {MOST_STRIPS} different strips, as in 6x2-cabrera+II+V5."
        )
    return grid(int(match[2]), strips, match[3] or "standard")


def random_layout(rng: np.random.Generator) -> Layout:
    """Draw columns (1, 2 or 4), order of the limb leads, and up to three strips, none beside whole leads."""
    columns = COLUMNS[rng.integers(len(COLUMNS))]
    order = [*ORDERS][rng.integers(len(ORDERS))]
    n_strips = rng.integers(MOST_STRIPS + 1) if columns > 1 else 0
    return grid(columns, [STRIPS[at] for at in rng.permutation(len(STRIPS))[:n_strips]], order)


def assigned(record_ids: Iterable[str], name: str) -> list[Layout]:
    """Layout of each record: the named one, or for ``random`` one that the record's id alone decides."""
    if name != RANDOM:
        layout = layout_named(name)
        return [layout for _ in record_ids]
    digests = (hashlib.sha256(f"layout\0{record_id}".encode()).digest() for record_id in record_ids)
    return [random_layout(np.random.default_rng(int.from_bytes(digest[:16]))) for digest in digests]


def assignment_table(record_ids: Sequence[str]) -> pd.DataFrame:
    """Table of the random assignment (record_id, layout), for a stage's manifest."""
    names = [layout.name for layout in assigned(record_ids, RANDOM)]
    return pd.DataFrame({"record_id": list(record_ids), "layout": names})
