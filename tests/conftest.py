"""Fixtures that several test files share."""

from collections.abc import Callable, Iterator
from pathlib import Path

import joblib
import pytest

from ecgstudy.data.base import Cohort


@pytest.fixture(scope="session", autouse=True)
def _one_process() -> Iterator[None]:
    """Work in the test's own process: workers take seconds to start, and what is patched here is patched there.

    A test about workers asks for them: ``joblib.parallel_config(backend="loky")``.
    """
    with joblib.parallel_config(backend="sequential"):
        yield


@pytest.fixture
def realdata() -> Callable[[str], Cohort]:
    """Open a real cohort by name, or skip the test where its files are not there."""
    from ecgstudy.data.cohorts import open_cohort
    from ecgstudy.errors import DataNotFoundError

    def _open(name: str) -> Cohort:
        try:
            return open_cohort(name)
        except DataNotFoundError as absent:
            pytest.skip(str(absent))

    return _open


@pytest.fixture
def project_root() -> Path:
    """Root of the checkout."""
    return Path(__file__).resolve().parent.parent
