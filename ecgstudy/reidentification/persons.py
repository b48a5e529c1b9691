"""Who is recognised and who is not: everybody's exposure, and those whom the best attackers miss."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ecgstudy.evaluate.biometric import per_person_risk
from ecgstudy.evaluate.splits import RECORD, SUBJECT
from ecgstudy.experiment.attackers import TEMPLATE
from ecgstudy.experiment.dataset import Dataset
from ecgstudy.experiment.evaluation import Attacks
from ecgstudy.experiment.jobs import Context, Job
from ecgstudy.experiment.selection import BEST
from ecgstudy.reidentification.spans import days_apart
from ecgstudy.reidentification.tables import CELL, HEADLINES, LEAKIER, LEAKY

MISSED = (*CELL, "person", "probes", "missed", "days later", "bpm enrolled", "bpm missed", "bpm change %")


def risk_table(attacks: Attacks) -> pd.DataFrame:
    """Every person's exposure, who is worst off first; of too many persons to hold, those drawn.

    Of two attacks, the chosen one and that which needs no training, the one that exposes a person more counts. Without
    the leaky protocol, under which a recording is recognised rather than a person.

    Columns cohort, protocol, person, rank1 (share of own probes that rank first), risk (1 - EER of own probes).
    """
    tables = [pd.DataFrame(columns=[*CELL, "person", "rank1", "risk"])]
    for (cohort, protocol, attacker), attack in attacks.items():
        if attacker in (BEST, TEMPLATE) and protocol not in (LEAKY, LEAKIER):
            risk = per_person_risk(attack).assign(cohort=cohort, protocol=protocol)
            tables.append(risk.assign(risk=1 - risk["eer"])[tables[0].columns])
    found = pd.concat(tables[1:] or tables).groupby([*CELL, "person"], as_index=False).max()
    return found.sort_values([*CELL, "risk", "rank1"], ascending=[True, True, False, False], ignore_index=True)


def missed_table(context: Context, trialled: Sequence[Job], attacks: Attacks) -> pd.DataFrame:
    """Persons whom the best attacker misses under the headline protocols, most often missed first.

    Columns :data:`MISSED`: the median day of the missed probes after the nearest enrolment (NaN where undated), and the
    heart rate of what enrols the person and of the missed probes (medians, beats/min). Of trials that are too many to
    hold, nobody is listed.
    """
    rows = []
    for job in trialled:
        attack = attacks.get((job.cohort, job.protocol.name, BEST), ())
        days = context.records(job.cohort).set_index(RECORD)["session_day"]
        for split, matrix in zip(context.splits(job), attack, strict=False):
            if job.protocol.name not in HEADLINES or matrix.probe.size < len(split.probe):
                continue
            missed = split.probe[matrix.searches.enrolled & (matrix.searches.ahead > 0)]
            for person, lost in missed.groupby(SUBJECT):
                known = split.enrolment[split.enrolment[SUBJECT] == person]
                rates = [heart_rate(context.dataset, part) for part in (known, lost)]
                counts = int((split.probe[SUBJECT] == person).sum()), len(lost)
                gap = float(np.median(days_apart(known, lost, days)))
                change = 100 * (rates[1] / rates[0] - 1)
                rows.append((job.cohort, job.protocol.name, person, *counts, gap, *rates, change))
    found = pd.DataFrame(rows, columns=list(MISSED))
    return found.sort_values([*CELL, "missed"], ascending=[True, True, False], kind="stable", ignore_index=True)


def heart_rate(dataset: Dataset, segments: pd.DataFrame) -> float:
    """Median heart rate of segments in beats a minute, each by its median beat-to-beat interval; NaN without beats."""
    spans = segments[[RECORD, "start", "stop"]].itertuples(index=False)
    intervals = [np.diff(dataset.peaks(*span)) for span in spans]
    rates = [60 * dataset.fs / np.median(own) for own in intervals if own.size]
    return float(np.median(rates)) if rates else np.nan


def missed_finding(missed: pd.DataFrame, rows: pd.DataFrame) -> str:
    """Say how many persons are ever missed, and who most, by what gap and change of the heart rate."""
    best = rows[(rows["attacker"] == BEST) & (rows["metric"] == "persons")].set_index(CELL)["value"]
    parts = []
    for (cohort, protocol), own in missed.groupby(CELL, sort=False):
        worst = own.iloc[0]
        gap = "" if np.isnan(worst["days later"]) else f"{worst['days later']:g} days later, "
        parts.append(
            f"{cohort} {protocol.replace('_', ' ')} {own['person'].nunique()} of {best[cohort, protocol]:.0f} persons, "
            f"{worst['person']} in {worst['missed']} of {worst['probes']} probes ({gap}heart rate "
            f"{worst['bpm change %']:+.0f} %)"
        )
    return f"Missed at least once by the best attacker: {'; '.join(parts) or 'nobody'}."
