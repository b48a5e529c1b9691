"""Flaws planted in a cohort of every type arrive in the store, and the cutter gives nothing that touches one."""

from pathlib import Path

import numpy as np
import pytest
from fake_cohort import FakeCohort
from planted_flaws import COHORTS, GAPS, STRETCHES

from ecgstudy.data.base import Signal
from ecgstudy.data.cohorts import REGISTRY
from ecgstudy.evaluate.splits import segments, with_cohort
from ecgstudy.experiment.dataset import Dataset
from ecgstudy.signals.ingest import build_store
from ecgstudy.signals.store import RecordStore


@pytest.fixture(scope="module", params=COHORTS)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> RecordStore:
    """Store of a cohort of one type."""
    cohort = COHORTS[request.param](tmp_path_factory.mktemp("data"))
    return build_store(cohort, tmp_path_factory.mktemp("cache"), delineate=False, workers=1)


def test_every_type_of_cohort_is_planted() -> None:
    assert set(COHORTS) == set(REGISTRY)


def test_planted_flaws_arrive_in_the_store(store: RecordStore) -> None:
    assert store.exclusions.empty
    flaws = store.flaws.set_index(["record_id", "lead"]).sort_index()
    for record in store.records.itertuples():
        gap = GAPS.get(record.record_id)
        for lead in record.leads:
            rows = flaws.loc[[(record.record_id, lead)]] if (record.record_id, lead) in flaws.index else flaws.head(0)
            found = {row.reason: (row.start / store.fs, row.stop / store.fs) for row in rows.itertuples()}
            assert len(found) == len(rows)
            if gap:
                start, stop = found.pop("gap in time")
                assert (start <= gap < stop, stop - start) == (True, pytest.approx(0.01))
            expected = STRETCHES if lead == record.leads[0] else {}
            assert found.keys() == expected.keys()
            for reason, (start, stop) in expected.items():
                # the motion records' true rates differ a little from the rate that the stretches were drawn at
                assert found[reason] == pytest.approx((start, stop), abs=0.03), (record.record_id, reason)
    assert (flaws["stop"] <= store.records["store_samples"].max()).all()


def test_the_cutter_reads_nothing_that_touches_a_flaw(store: RecordStore) -> None:
    lead = store.records["leads"].iloc[0][0]
    dataset = Dataset({"planted": store}, lead=lead)
    whole = segments(with_cohort("planted", store.records))
    windows, owners = dataset.windows(whole, length=100)
    assert np.isfinite(windows).all()
    assert set(owners) == set(range(len(whole)))
    index = dataset.grid_index(whole, 1.0)
    for record_id, rows in index.groupby("record_id"):
        spoilt = rows[rows["problem"].notna() & (rows["problem"] != "no beats")]
        # the seconds that share a sample with a stretch, and the first one where the clock jumps in it
        jump = record_id.split("/", 1)[1] in GAPS
        assert (spoilt["start"] / store.fs).tolist() == [0.0] * jump + [2.0, 4.0, 5.0, 8.0]
    assert np.isfinite(dataset.gather(index[index["problem"].isna()])).all()


class SlowHeart(FakeCohort):
    """Beats at 0.6, 3.4, 6.2 and 9 s, in noise so that what lies between them is not flat."""

    def signal(self, record_id: str) -> Signal:
        """Stretch the record's clock, and cut it to its ten seconds."""
        t = np.arange(2500) / 250
        beats = [np.exp(-0.5 * ((t - beat) / 0.011) ** 2) for beat in (0.6, 3.4, 6.2, 9.0)]
        noise = np.random.default_rng(0).normal(0, 0.02, (2, 2500))
        return Signal((sum(beats) + noise).astype(np.float32), 250.0, ("I", "II"), "mV")


def test_a_window_needs_twenty_beats_a_minute(tmp_path: Path) -> None:
    store = build_store(SlowHeart(tmp_path, ("good_2",)), tmp_path, delineate=False, workers=1)
    whole = segments(with_cohort("fake", store.records))
    dataset = Dataset({"fake": store})

    beats = store.beats["r_peak"].to_numpy()
    for seconds in (2.0, 3.0, 4.0):
        index = dataset.grid_index(whole, seconds)
        starts = index["start"].to_numpy()[:, None] / store.fs
        counts = ((beats >= starts) & (beats < starts + seconds)).sum(axis=1)
        # one beat in three seconds is twenty a minute, one in four is fewer
        assert (counts == 1).any()
        assert (index["problem"] == "no beats").tolist() == (counts * 60 < 20 * seconds).tolist()
        assert set(index["problem"].dropna()) <= {"no beats"}
