"""Speed of reading pages (target: 2 a second on 2 cores at 200 dpi): ``python tests/benchmarks/bench_digitise.py``."""

import time

import numpy as np

from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.layouts.digitise import read_page
from ecgstudy.layouts.layout import LAYOUTS
from ecgstudy.layouts.printout import draw
from ecgstudy.layouts.scan import scan

FS, SECONDS, CORES = 500, 10, 2


def heart() -> np.ndarray:
    """Twelve leads of equal beats in mV that obey Einthoven's law; float (12, 5000)."""
    time_s = np.arange(FS * SECONDS) / FS
    after = time_s[:, None] - np.arange(0.7, SECONDS, 0.8)
    beats = (np.exp(-((after / 0.02) ** 2)) + 0.3 * np.exp(-(((after - 0.25) / 0.06) ** 2))).sum(axis=1)
    mixed = [0.7, 1.1, 0.4, -0.9, 0.15, 0.75, 0.3, 0.6, 0.9, 1.2, 1.0, 0.8]
    return np.array(mixed)[:, None] * beats


def main() -> None:
    """Read a page of every layout as it is printed and as a bad scan; processor time, so that others do not count."""
    for name, layout in LAYOUTS.items():
        printout = draw(heart(), STANDARD_LEADS, FS, layout)
        for severity in ("clean", "moderate"):
            image = scan(printout, severity, 0).image
            start = time.process_time()
            read_page(image)
            rate = CORES / (time.process_time() - start)
            print(f"{name}, {severity}: {rate:.1f} pages a second on {CORES} cores (target 2)", flush=True)


if __name__ == "__main__":
    main()
