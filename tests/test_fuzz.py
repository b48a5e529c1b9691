"""Whatever is in a folder: one bad record or table costs itself, in little time and memory, and names nobody."""

import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
from folder_mutations import N_MUTATIONS, TOKEN, good_folder, spoil

from ecgstudy.data.own import OwnCohort
from ecgstudy.errors import RecordError, StudyError

MOST_SECONDS, MOST_BYTES = 10, 400_000_000
ALL = os.environ.get("ECGSTUDY_FUZZ") == "all"
CHOSEN = range(N_MUTATIONS) if ALL else np.random.default_rng(0).choice(N_MUTATIONS, 90, replace=False).tolist()


@pytest.fixture(autouse=True)
def hurry() -> None:
    """Stop what hangs."""
    signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"took more than {MOST_SECONDS} s"))
    signal.alarm(MOST_SECONDS)
    yield
    signal.alarm(0)


@pytest.mark.parametrize("number", CHOSEN)
def test_a_spoilt_folder_costs_its_own_record_only(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ECGSTUDY_DATA", str(tmp_path))
    folder = good_folder(tmp_path / "wfdb-folder" / "clinic")
    done, before = spoil(folder, number), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    cohort = OwnCohort("own-1", folder)
    damaged = ""
    try:
        records, failures = cohort.records(), cohort.failures()
    except StudyError as whole:
        damaged = str(whole)
    if damaged:
        assert "table" in done, f"{done}: {damaged}"
        assert "\n" not in damaged
        assert TOKEN not in damaged
        return
    told = [*records.drop(columns=["leads"]).astype(str).to_numpy().ravel(), *failures.to_numpy().ravel()]
    good = {cohort.pseudonym("record", name) for name in "ab"}
    if "table" not in done and "multi-segment" not in done and "called b'A'" not in done:
        assert good <= set(records["record_id"]), done
    for record_id in records["record_id"]:
        try:
            values = cohort.signal(record_id)
            told += [*values.leads, values.unit]
        except RecordError as error:
            told.append(str(error))
            assert record_id not in good, done
    assert cohort.digest()
    assert not [text for text in told if TOKEN in str(text)], done
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < MOST_BYTES, done
