"""What the README says of adding to the study runs: its examples are extracted and joined."""

import sys
from pathlib import Path

import numpy as np
import pytest

from ecgstudy.data import cohorts
from ecgstudy.deidentification import release
from ecgstudy.deidentification.cycles import Recording
from ecgstudy.experiment import attackers
from ecgstudy.experiment.jobs import Context, Job
from ecgstudy.layouts import layout
from ecgstudy.reidentification.plan import run_attackers
from ecgstudy.signals.ingest import build_store

LONGEST = 9


@pytest.fixture
def added(project_root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    """Give all names of the five examples, run in their order; registries are as before afterwards."""
    registries = (cohorts, "REGISTRY"), (attackers, "ATTACKERS"), (release, "PROTECTIONS"), (layout, "LAYOUTS")
    for module, name in registries:
        monkeypatch.setattr(module, name, dict(getattr(module, name)))
    part = (project_root / "README.md").read_text().split("## Where things are, and how to add to them")[1]
    examples = [code.split("```")[0] for code in part.split("\n## ")[0].split("```python\n")[1:]]
    assert len(examples) == 5
    names: dict[str, object] = {"__name__": __name__}
    for code in examples:
        assert len([line for line in code.splitlines() if line]) <= LONGEST
        exec(compile(code, "README.md", "exec"), names)
    monkeypatch.setattr(sys.modules[__name__], "Hamlet", names["Hamlet"], raising=False)  # a store pickles its cohort
    return names


def test_a_cohort_an_attacker_and_a_protocol_of_the_readme_join(added: dict, tmp_path: Path) -> None:
    assert cohorts.open_cohort("hamlet").name == "hamlet"
    people = added["Hamlet"](n_subjects=5, n_sessions=1, n_records=1, seed=3)
    store = build_store(people, tmp_path, delineate=False, workers=1)
    context = Context("real", {"hamlet": store}, "cpu", attackers.ATTACKERS, cache=tmp_path)
    jobs = [Job("hamlet", added["Halves"](), name, 0) for name in ("template", "upside_down")]
    upright, turned = run_attackers(context, jobs).values.values()
    np.testing.assert_allclose(turned.folds[0].trials.scores, upright.folds[0].trials.scores, atol=1e-6)
    assert upright.folds[0].trials.scores.size == 25


def test_a_protection_and_a_layout_of_the_readme_are_found_by_their_names(added: dict) -> None:
    recording = Recording(np.array([[0.12, 0.38]], dtype=np.float32), 100.0, np.zeros(0))
    changed = release.protection_of("coarse.0_1").protect(recording, np.zeros(0), np.random.default_rng(0))
    np.testing.assert_allclose(changed, [[0.1, 0.4]], atol=1e-6)
    (drawn,) = layout.assigned(["one"], added["cabrera"].name)
    assert drawn == layout.LAYOUTS["6x2-cabrera+V1"]
    assert drawn.visible(["V1"], 100).all()
