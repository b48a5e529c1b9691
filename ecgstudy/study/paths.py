"""Where the study reads and writes, independent of the working folder.

JupyterLab starts a notebook in its own folder and papermill in the caller's,
so no code of the study uses a relative path: it asks here.
"""

import os
from pathlib import Path

PACKAGE_ROOT = Path(__file__).resolve().parent.parent
PROJECT_ROOT = PACKAGE_ROOT.parent


def _from_environment(variable: str, default: Path) -> Path:
    """Path named by an environment variable; a relative one starts at the project's root."""
    value = os.environ.get(variable)
    return (PROJECT_ROOT / Path(value).expanduser()).resolve() if value else default


def notebooks_dir() -> Path:
    """Folder of the numbered notebooks: ``ECGSTUDY_NOTEBOOKS`` (your own stages), else ``notebooks/``."""
    return _from_environment("ECGSTUDY_NOTEBOOKS", PROJECT_ROOT / "notebooks")


def data_root() -> Path:
    """Folder that holds the cohorts: ``ECGSTUDY_DATA``, else ``data/``."""
    return _from_environment("ECGSTUDY_DATA", PROJECT_ROOT / "data")


def cache_dir(profile: str) -> Path:
    """Folder of a profile's heavy intermediates: below ``ECGSTUDY_CACHE``, else ``data/cache/``."""
    return _from_environment("ECGSTUDY_CACHE", PROJECT_ROOT / "data" / "cache") / profile


def results_dir(profile: str) -> Path:
    """Folder of a profile's results: below ``ECGSTUDY_RESULTS``, else ``results/``."""
    return _from_environment("ECGSTUDY_RESULTS", PROJECT_ROOT / "results") / profile
