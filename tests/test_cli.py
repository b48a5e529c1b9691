"""The command line answers a user's mistake with one sentence and a code other than 0."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from ecgstudy.__main__ import _parser, main
from ecgstudy.deidentification import attributes as deidentification
from ecgstudy.dual_task import plan as dual_task
from ecgstudy.experiment import jobs
from ecgstudy.layouts import images as layouts
from ecgstudy.reidentification import plan as reidentification


def test_cohorts_lists_what_is_there_and_how_to_get_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("ECGSTUDY_DATA", str(tmp_path))
    assert main(["cohorts"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert str(tmp_path) in lines["Data"]
    assert "found" in lines["synthetic"]
    assert "persons" in lines["synthetic"]
    assert "not found" in lines["ecgid"]
    assert "python -m ecgstudy fetch ecgid" in lines["ecgid"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["run", "77_nothing"], "There is no notebook 77_nothing.ipynb"),
        (["run", "01_ingestion", "-p", "profil", "demo"], "There is no parameter 'profil'; did you mean profile?"),
        (["run", "01_ingestion", "-p", "seed", "many"], "Parameter 'seed' must be a int like 0, not the str 'many'."),
        (
            ["run", "01_ingestion", "-p", "profile", "full"],
            "There is no profile 'full'; choose one of demo, real, mine, mine-quick.",
        ),
        (["report", "full"], "There is no profile 'full'"),
        (["fetch", "nothing"], "nothing"),
    ],
)
def test_a_mistake_is_one_sentence(arguments: list[str], sentence: str, capsys: pytest.CaptureFixture) -> None:
    assert main(arguments) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert sentence in said.err
    assert said.err.count("\n") == 1


@pytest.mark.parametrize("page", ["README.md", "ecgstudy/templates/index.md.j2"])
def test_every_command_that_a_page_tells_is_one_that_the_command_line_takes(page: str, project_root: Path) -> None:
    told = re.findall(r"python -m ecgstudy ([^`\n]*)", (project_root / page).read_text())
    commands = [words for line in told if (words := shlex.split(line, comments=True)) != ["..."]]
    assert len(commands) > 3
    for words in commands:
        assert _parser().parse_args(words).command


def test_work_shares_the_jobs_of_every_stage(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    for stage, left in ((reidentification, 0), (dual_task, 2), (deidentification, 0), (layouts, 0)):
        monkeypatch.setattr(stage, "shared", lambda *asked, left=left: [(asked, left, None), (asked, 0, None)])
    monkeypatch.setattr(jobs, "share", lambda asked, left, _: left if asked == ("demo", 0, "cpu") else None)
    assert main(["work", "demo", "--device", "cpu"]) == 0
    told = ["reidentification: all jobs are done", "dual_task: 2 jobs are still done by other processes"]
    told += ["deidentification: all jobs are done", "layouts: all jobs are done"]
    assert capsys.readouterr().out.splitlines() == told


@pytest.mark.parametrize("code", [0, 1])
def test_a_study_is_run_once_at_a_time_and_names_its_report(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def snakemake(command: list[str], **_: object) -> int:
        assert {"--nolock", "--rerun-incomplete", "profile=demo"} <= set(command)
        with pytest.raises(Timeout):
            FileLock(tmp_path / ".demo.lock", timeout=0).acquire()
        return code

    monkeypatch.setenv("ECGSTUDY_RESULTS", str(tmp_path))
    monkeypatch.setattr(subprocess, "call", snakemake)
    assert main(["study", "demo", "--cores", "1"]) == code
    said = capsys.readouterr()
    assert said.out == ("" if code else f"Report: {tmp_path / 'demo' / 'index.html'}\n")
    assert said.err.count("run the same command again to go on") == code


def test_real_profile_without_data_says_what_to_do(tmp_path: Path) -> None:
    environment = os.environ | {"ECGSTUDY_DATA": str(tmp_path), "ECGSTUDY_RESULTS": str(tmp_path / "results")}
    done = subprocess.run(
        [sys.executable, "-m", "ecgstudy", "run", "01_ingestion", "-p", "profile", "real"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 1
    assert f"No real cohort was found in {tmp_path}" in done.stderr
    assert "Traceback" not in done.stderr
    assert list((tmp_path / "results").rglob("metrics.json")) == []
