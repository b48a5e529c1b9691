"""Claims beside their controls: names drawn by lot before training and enrolment, and a network never trained."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from ecgstudy.evaluate.bootstrap import Resamples
from ecgstudy.evaluate.results import INTERVAL, results_table
from ecgstudy.experiment.attackers import UNTRAINED
from ecgstudy.experiment.evaluation import Attacks, evaluate
from ecgstudy.experiment.jobs import Context, Job, run
from ecgstudy.experiment.scores import score
from ecgstudy.experiment.selection import BEST
from ecgstudy.reidentification.tables import CELL

PERMUTED = {"permuted_training_and_enrolment": "names by lot", "permuted_training": "names by lot in training alone"}
"""What is permuted, and what tables call it."""


def control_results(
    context: Context, jobs: Sequence[Job], resamples: Mapping[str, Resamples]
) -> tuple[pd.DataFrame, set[str]]:
    """Rows ``control.<what is permuted>.<protocol>.rank1`` and ``.eer``, and the commits that made the scores."""
    done = run(score, jobs, context, "controls")
    rows = [row for s in done.values.values() for row in evaluate([s], resamples[s.cohort])[0]]
    named = [row | {"name": f"control.{row['protocol']}.{row['metric']}"} for row in rows]
    return results_table(row for row in named if row["metric"] in ("rank1", "eer")), done.commits


def control_table(rows: pd.DataFrame, controls: pd.DataFrame, attacks: Attacks) -> pd.DataFrame:
    """Best attackers beside :func:`control_results` of their protocol, one in N, and an untrained network."""
    both = pd.concat([rows, controls]).drop_duplicates([*CELL, "attacker", "metric"])
    attacker = both["attacker"].where(~both["protocol"].str.startswith("permuted"), "")
    found, table = both.assign(attacker=attacker).set_index([*CELL, "attacker", "metric"]), []
    for cohort, protocol in (cell[:2] for cell in attacks if cell[2] == BEST):
        one_in = [1 / matrix.searches.n_enrolled for matrix in attacks[cohort, protocol, BEST]]
        row: dict[str, object] = {"cohort": cohort, "protocol": protocol, "one in N": float(np.mean(one_in))}
        for metric in ("rank1", "eer"):
            row[metric] = found["value"].get((cohort, protocol, BEST, metric), math.nan)
            for permuted, words in PERMUTED.items():
                key = (cohort, f"{permuted}.{protocol}", "", metric)
                row |= {f"{metric}, {words}{end}": found[part].get(key, math.nan) for part, end in INTERVAL.items()}
            row[f"{metric}, untrained network"] = found["value"].get((cohort, protocol, UNTRAINED, metric), math.nan)
        table.append(row)
    return pd.DataFrame(table)


def chance_finding(controls: pd.DataFrame) -> str:
    """Say whether every claim stands above its control."""
    if controls.empty:
        return "No attacker was chosen, so there is no claim to set beside its control."
    by_lot = f"rank1, {PERMUTED['permuted_training_and_enrolment']}"
    asked = controls.dropna(subset=by_lot)
    above, untrained = asked["rank1"] > asked[f"{by_lot}_high"], 100 * controls["rank1, untrained network"].max()
    return (
        f"{int(above.sum())} of {len(asked)} claims lie above the interval of a network that was taught and shown "
        f"names drawn by lot. A network with random weights recognises up to {untrained:.0f} % of probes."
    )
