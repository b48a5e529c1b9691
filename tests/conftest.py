"""Fixtures that several test files share."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ecgstudy.data.base import Cohort


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
