"""Speed of training on pages, records a second on one core, by model (target: beatecg 20 times PatchECG's paper size).

Run as a script: ``python tests/benchmarks/bench_layouts.py``.
"""

import time

import torch

from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.layouts.beats import N_ROWS, POINTS
from ecgstudy.layouts.models import untrained
from ecgstudy.layouts.plan import BATCH, BEST, RECIPES

TASKS = {f"task {number}": ["no", "yes"] for number in range(29)}
STEPS = 3


def speed(model: str) -> float:
    """Count records a second of forward, backward and optimiser, of whole records at first."""
    recipe = RECIPES[model]
    n_leads, n_samples = (N_ROWS, POINTS) if recipe.beats else (len(STANDARD_LEADS), 1000)
    names = [str(row) for row in range(n_leads)]
    shape = {"n_leads": n_leads, "n_samples": n_samples, "fs": 100.0, "classes": TASKS, "lead_names": names}
    network = untrained(recipe.kind, 0, **shape, **dict(recipe.sizes)).train()
    network.log = lambda *_, **__: None  # there is no trainer
    optimiser = torch.optim.Adam(network.parameters())
    x, targets = torch.randn(BATCH, n_leads, n_samples), {task: torch.randint(0, 2, (BATCH,)) for task in TASKS}
    started = time.perf_counter()
    for step in range(STEPS + 1):
        if step == 1:  # the first one allocates
            started = time.perf_counter()
        optimiser.zero_grad()
        network.training_step((x, targets), 0).backward()
        optimiser.step()
    return STEPS * BATCH / (time.perf_counter() - started)


def main() -> None:
    """Print every model's speed, and how many times that of the paper's size the judged one is."""
    torch.set_num_threads(1)
    speeds = {model: speed(model) for model in RECIPES}
    for model, found in speeds.items():
        print(f"{model}: {found:.0f} records/s")
    print(f"{BEST}: {speeds[BEST] / speeds['patchecg_paper']:.0f} times the paper's size")


if __name__ == "__main__":
    main()
