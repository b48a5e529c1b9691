"""The study as a user starts it: killed, it goes on and gives the same; it runs what was not run here, and no more."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from chaos import STUDY, Chaos, content

WORK = """
import time
import pandas as pd
from ecgstudy.study.cache import remember
from ecgstudy.study.config import cache_dir
from ecgstudy.study.parallel import in_parallel

def made(number):
    return remember(cache_dir(profile), f"part{number}", {"number": number}, lambda: time.sleep(1) or number**2)[0]

parts = list(in_parallel(made, [(number,) for number in range(4)], "cpu", "parts", 2))
stage.table("parts", pd.DataFrame({"part": parts}), "Parts.")
"""


@pytest.fixture
def small(trial: Callable[..., Path], tmp_path: Path, project_root: Path) -> tuple[Path, dict[str, str]]:
    """Give a copy of the project in a folder with blanks whose study is one small stage, and its environment."""
    project = tmp_path / "a small study"
    shutil.copytree(project_root / "ecgstudy", project / "ecgstudy", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "Snakefile", "pyproject.toml", "requirements.lock"):
        shutil.copy2(project_root / name, project)
    config = project / "ecgstudy" / "study" / "config.py"
    config.write_text(config.read_text() + '\nSTAGES = (StageInfo("90_trial", "A trial", "Why?"),)\n')
    trial(WORK)
    shutil.copytree(tmp_path / "notebooks", project / "notebooks")
    own = dict.fromkeys(("ECGSTUDY_NOTEBOOKS", "ECGSTUDY_RESULTS", "ECGSTUDY_CACHE", "ECGSTUDY_DATA"), "")
    # the make that runs the tests hands its own options down
    around = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    return project, around | own | {"PYTHONPATH": str(project)}


@pytest.mark.slow
def test_a_killed_study_goes_on_by_itself_and_gives_the_same(small: tuple[Path, dict[str, str]]) -> None:
    project, environment = small
    calm = subprocess.Popen(
        STUDY, cwd=project, env=environment | {"ECGSTUDY_RESULTS": "calm", "ECGSTUDY_CACHE": "still"}
    )
    chaos = Chaos(STUDY, project, environment)
    for link, how in [("make", signal.SIGKILL), ("-m snakemake", signal.SIGTERM)]:
        told = chaos.disturb(lambda: len(chaos.alive("popen_loky")) == 2, link, how)
        print(told)
        assert told.startswith(f"{how.name} to {link}, all gone")
    chaos.finish()
    assert calm.wait(300) == 0
    made = content(project / "results" / "demo")
    assert {"index.html", "90_trial/90_trial.ipynb", "90_trial/tables/parts.csv"} <= made.keys()
    assert made == content(project / "calm" / "demo")


def _jobs(project: Path, environment: dict[str, str], profile: str = "demo") -> subprocess.CompletedProcess:
    """Ask snakemake what it would do."""
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "--dry-run",
        "--cores",
        "1",
        "--nolock",
        "--quiet",
        "host",
        "--config",
    ]
    command.append(f"profile={profile}")
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


def test_results_that_came_with_the_repository_are_made_here_and_own_ones_are_not_made_again(
    small: tuple[Path, dict[str, str]],
) -> None:
    project, environment = small
    metrics = project / "results" / "demo" / "90_trial" / "metrics.json"
    metrics.parent.mkdir(parents=True)
    metrics.write_text(json.dumps({"profile": "demo"}))
    (metrics.parents[1] / "index.html").write_text("a page")
    asked = _jobs(project, environment).stdout
    assert "rule trial" in asked
    receipt = next(line.split(": ")[1] for line in asked.splitlines() if ".made-here-" in line)
    shutil.copyfile(metrics, receipt)
    (metrics.parents[1] / "index.html").write_text("a newer page")
    assert "Nothing to be done" in _jobs(project, environment).stdout
    metrics.write_text(json.dumps({"profile": "of somebody else"}))
    assert "rule trial" in _jobs(project, environment).stdout


@pytest.mark.parametrize("profile", ["real", "mine", "wrong"])
def test_a_study_without_data_is_one_sentence(small: tuple[Path, dict[str, str]], profile: str) -> None:
    project, environment = small
    sentence = f"ecgstudy: There is no profile '{profile}'" if profile == "wrong" else "ecgstudy: No re"
    done = subprocess.run(
        [*STUDY, f"PROFILE={profile}"], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    told, makes_own = done.stderr.splitlines()
    assert told.startswith(sentence)
    assert "Error 1" in makes_own
    assert done.stdout == ""
    if profile == "mine":  # the same of snakemake itself
        done = _jobs(project, environment, profile)
        assert done.returncode != 0
        assert sentence in done.stderr
        assert "Traceback" not in done.stderr
