"""The shown tables are pivots of the long one."""

import numpy as np
import pandas as pd

from ecgstudy.evaluate.bootstrap import Estimate
from ecgstudy.evaluate.results import INTERVAL, estimate_results, pivot, results_table


def test_a_pivot_sets_metrics_or_attackers_side_by_side() -> None:
    rows = []
    for attacker, rank1 in (("transecg", 0.9), ("template", 0.7)):
        estimates = {"eer": Estimate(0.1, 0.05, 0.2, 9), "rank1": Estimate(rank1, rank1 - 0.1, 1.0, 9)}
        rows += estimate_results(estimates, cohort="b", protocol="cross_day", attacker=attacker)
    rows += estimate_results({"rank1": Estimate(0.5, np.nan, np.nan, 3)}, cohort="a", attacker="best")
    long = results_table(rows)
    by_metric = pivot(long, ["cohort", "attacker"], shown={"rank1": "first", "eer": "eer"}, ends=INTERVAL)
    assert list(by_metric) == [
        "cohort",
        "attacker",
        *(name + end for name in ("first", "eer") for end in INTERVAL.values()),
    ]
    assert by_metric.iloc[1].tolist() == ["b", "template", 0.7, 0.7 - 0.1, 1.0, 0.1, 0.05, 0.2]
    assert by_metric.iloc[2, :3].tolist() == ["a", "best", 0.5]
    assert by_metric.iloc[2, 3:].isna().all()
    by_attacker = pivot(long[long["metric"] == "rank1"], ["cohort", "protocol"], "attacker")
    expected = pd.DataFrame(
        [["b", "cross_day", 0.9, 0.7, np.nan], ["a", "", np.nan, np.nan, 0.5]],
        columns=["cohort", "protocol", "transecg", "template", "best"],
    )
    pd.testing.assert_frame_equal(by_attacker, expected)
    assert list(pivot(long[:0], ["cohort"], shown={"eer": "eer"})) == ["cohort", "eer"]
