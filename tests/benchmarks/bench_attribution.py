"""Attribution against bare passes of the same batch, and memory: ``python tests/benchmarks/bench_attribution.py``.

Ratios of medians in one run, methods and bare passes taking turns. Bare passes are the cheapest there are:
gradients of the windows alone, on the same frozen network. Memory is the peak of a process of its own.
"""

import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch

from ecgstudy.attribution import methods
from ecgstudy.attribution.exchange import Windows
from ecgstudy.attribution.methods import METHODS, N_STEPS, OCCLUSION_SECONDS, ZERO, Question, attribute
from ecgstudy.learn.models import create_model

N_WINDOWS, N_SAMPLES, FS = 64, 400, 100.0
TARGET_RATIO, ROUNDS = 1.15, 5
MEMORY_WINDOWS, MEMORY_CHUNK = (32, 128), 16


def ask(model: str, n_windows: int) -> Question:
    """Windows of noise, a fresh network of default size, 90 people."""
    rng = np.random.default_rng(0)
    shape = {"n_leads": 1, "n_samples": N_SAMPLES, "fs": FS, "classes": {"person": range(90)}, "lead_names": ["I"]}
    windows = rng.standard_normal((n_windows, 1, N_SAMPLES), dtype=np.float32)
    windows = Windows(windows, rng.integers(90, size=n_windows), FS, seed=0)
    return Question(create_model(model, 0, **shape), "person", windows)


def bare_gradients(question: Question) -> None:
    """As many forward-backward passes as integrated gradients takes steps."""
    for x, target, _ in question.chunks(ZERO):
        for _ in range(N_STEPS):
            x.requires_grad_()
            torch.autograd.grad(question.contrast(x).gather(1, target[:, None]).sum(), x)


def bare_forwards(question: Question) -> None:
    """As many forward passes as the occluding patch has places, and one of the whole window."""
    length = round(OCCLUSION_SECONDS * FS)
    places = -(-(N_SAMPLES - length) // (length // 2)) + 1
    with torch.no_grad():
        for x, _, _ in question.chunks(ZERO):
            for _ in range(places + 1):
                question.contrast(x)


def seconds(run: Callable[[], object]) -> float:
    """Processor time of one call: what other processes do meanwhile does not count."""
    start = time.process_time()
    run()
    return time.process_time() - start


def bench_ratio(method: str, model: str, bare: Callable[[Question], None]) -> None:
    """Time a method and its bare passes in turns."""
    question = ask(model, N_WINDOWS)
    turns = [
        (seconds(lambda: attribute(METHODS[method], ZERO, question)), seconds(lambda: bare(question)))
        for _ in range(ROUNDS)
    ]
    own, passes = np.median(turns, axis=0)
    print(
        f"{method} of {N_WINDOWS} windows, {model}: {own:.2f} s, bare passes {passes:.2f} s, "
        f"ratio {own / passes:.2f} (target {TARGET_RATIO})",
        flush=True,
    )


def peak_memory(method: str, n_windows: int) -> None:
    """Print the peak memory of this process in MiB after explaining windows."""
    methods.CHUNK = MEMORY_CHUNK
    attribute(METHODS[method], ZERO, ask("resnet1d", n_windows))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def bench_memory(method: str) -> None:
    """Compare peaks of two numbers of windows, each in a fresh process."""
    peaks = [
        float(subprocess.run([sys.executable, __file__, method, str(n)], check=True, capture_output=True).stdout)
        for n in MEMORY_WINDOWS
    ]
    few, many = MEMORY_WINDOWS
    print(f"{method}: peak {peaks[0]:.0f} MiB for {few} windows, {peaks[1]:.0f} MiB for {many}", flush=True)


def main() -> None:
    """Run all."""
    for model in ("resnet1d", "transecg"):
        bench_ratio("integrated_gradients", model, bare_gradients)
        bench_ratio("occlusion", model, bare_forwards)
    for method in ("integrated_gradients", "occlusion"):
        bench_memory(method)


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        peak_memory(sys.argv[1], int(sys.argv[2]))
