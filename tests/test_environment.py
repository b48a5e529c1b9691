"""`pyproject.toml`, `environment.yml` and the lock name the same stack and cannot drift."""

import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CONDA_NAMES = {"matplotlib-base": "matplotlib", "pytorch": "torch", "seaborn-base": "seaborn"}


def _project(root: Path) -> dict[str, Requirement]:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    lines = project["dependencies"] + project["optional-dependencies"]["dev"]
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


def _conda(root: Path) -> dict[str, Requirement]:
    entries = yaml.safe_load((root / "environment.yml").read_text())["dependencies"]
    from_pip = next(entry["pip"] for entry in entries if isinstance(entry, dict))
    lines = [entry for entry in entries if isinstance(entry, str)] + [x for x in from_pip if not x.startswith("--")]
    found = map(Requirement, lines)
    return {CONDA_NAMES.get(r.name, canonicalize_name(r.name)): r for r in found if r.name not in ("python", "pip")}


def _lock(root: Path) -> dict[str, str]:
    lines = [line for line in (root / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    pairs = [line.split("==") for line in lines]
    assert all(len(pair) == 2 for pair in pairs), "every line of the lock is name==version"
    return {canonicalize_name(name): pinned for name, pinned in pairs}


def test_conda_route_names_the_same_packages_and_ranges(project_root: Path) -> None:
    project, conda = _project(project_root), _conda(project_root)
    assert {name: str(r.specifier) for name, r in conda.items()} == {n: str(r.specifier) for n, r in project.items()}


def test_conda_route_has_no_build_strings_and_the_projects_python(project_root: Path) -> None:
    content = yaml.safe_load((project_root / "environment.yml").read_text())
    python = next(x for x in content["dependencies"] if isinstance(x, str) and x.startswith("python "))
    needed = tomllib.loads((project_root / "pyproject.toml").read_text())["project"]["requires-python"]
    assert needed in python
    # a build string is a third field after name and version
    assert all(len(x.split()) <= 2 for x in content["dependencies"] if isinstance(x, str))


def test_lock_pins_every_dependency_inside_its_range(project_root: Path) -> None:
    project, lock = _project(project_root), _lock(project_root)
    assert sorted(set(project) - set(lock)) == []
    assert [n for n, r in project.items() if not r.specifier.contains(lock[n], prereleases=True)] == []


def test_lock_has_no_local_versions(project_root: Path) -> None:
    # "2.13.0+cpu" exists on one machine's shelf only
    assert [f"{n}=={v}" for n, v in _lock(project_root).items() if "+" in v] == []


@pytest.mark.parametrize("package", ["torch", "pytorch-lightning", "wfdb", "neurokit2", "papermill"])
def test_running_environment_is_the_locked_one(project_root: Path, package: str) -> None:
    assert version(package).split("+")[0] == _lock(project_root)[canonicalize_name(package)]
