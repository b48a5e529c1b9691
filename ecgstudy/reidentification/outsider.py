"""Scores that somebody else's system gave our trials: checked, evaluated, and paired with ours."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from ecgstudy.data.tables import first_problem, numbers, read_csv
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.bootstrap import Estimate
from ecgstudy.evaluate.results import estimate_note
from ecgstudy.evaluate.splits import RECORD
from ecgstudy.evaluate.trials import ScoreMatrix, rank1_and_eer
from ecgstudy.experiment.evaluation import cohort_resamples, contrasts, evaluate, scored_folds
from ecgstudy.experiment.scores import FoldScores, ScoreSet
from ecgstudy.reidentification.trialfiles import KEYS, SCORES
from ecgstudy.study.config import check_profile, results_dir

SHOWN = ("rank1", "rank1_per_person", "eer", "tar_at_far_1e-2")
MINE = "score"


def judge(file: Path, profile: str) -> list[str]:
    """Evaluate a table of scores on every protocol that has exactly its trials; lines to print.

    Parameters
    ----------
    file : Path
        CSV with the columns fold, record_id, start and enrolled of a pairs file, and score (higher = more alike).
    profile : str
        Whose trials they are: those in the results of that profile.

    Raises
    ------
    StudyError
        A column is missing, a row is no trial of ours, is there twice or has no score, or a trial is missing.
    """
    mine = read_scores(file)
    folder = results_dir(check_profile(profile)) / "02_reidentification" / "trials"
    ours = {path.name.removesuffix(f".{SCORES}"): pd.read_csv(path) for path in sorted(folder.glob(f"*.{SCORES}"))}
    if not ours:
        raise StudyError(f"{folder} holds no scores of ours; run `python -m ecgstudy study {profile}` first.")
    both = {name: table.merge(mine, on=KEYS) for name, table in ours.items()}
    nearest = max(both, key=lambda name: (len(both[name]), -len(ours[name])))
    lacking, strange = len(ours[nearest]) - len(both[nearest]), len(mine) - len(both[nearest])
    if lacking or strange:
        raise StudyError(
            f"{file} has {len(both[nearest]):,} trials of {nearest}, the nearest list; {lacking:,} of that list are "
            f"missing and {strange:,} rows are none of it: score every row of one pairs file in {folder}."
        )
    lines = []
    for name, table in both.items():
        if len(table) == len(ours[name]) == len(mine):
            lines += [*_compared(name, table), ""]
    return lines[:-1]


def read_scores(file: Path) -> pd.DataFrame:
    """Read somebody's scores: columns :data:`KEYS` and score; the first row that cannot be used is named."""
    if not file.is_file():
        raise StudyError(f"There is no file {file}; give a table of scores, a row a trial.")
    table = read_csv(file, [*KEYS, MINE])[[*KEYS, MINE]]
    checks = {}
    for column in ("fold", "start", MINE):
        table[column], wrong = numbers(text := table[column])
        checks |= {f"has no {column}": text == "", f"has a {column} that is no number": wrong | table[column].isna()}
    checks["scores a trial again"] = table.duplicated(KEYS)
    problems = first_problem(checks)
    if (problems != "").any():
        row = int(np.argmax(problems != ""))
        trial = ", ".join(map(str, table.loc[row, KEYS]))
        raise StudyError(
            f"Line {row + 2} of {file} {problems[row]} ({trial}); give every trial one finite score, and what could "
            "not be compared your lowest."
        )
    return table


def _compared(name: str, table: pd.DataFrame) -> list[str]:
    """Lines about one protocol: the scores alone, and their paired differences to each of ours."""
    cohort, protocol = name.split(".", 1)
    attackers = [column for column in table if column not in (*KEYS, "genuine", MINE)]
    sets = {attacker: _score_set(cohort, protocol, attacker, table) for attacker in (MINE, *attackers)}
    resamples = cohort_resamples([sets[MINE]], 0)[cohort]
    rows, matrices = evaluate([sets[MINE]], resamples)
    found = {row["metric"]: row for row in rows}
    searched = f"{found['probes']['value']} probes of {found['persons']['value']} persons"
    lines = [f"{name}: {searched}, gallery of {found['enrolled']['value']}"]
    lines += [f"  {metric:<18}{_told(found[metric])}" for metric in SHOWN]
    mine = scored_folds(matrices, resamples)
    for attacker in attackers:
        theirs = [fold.trials for fold in sets[attacker].folds]
        values = dict(zip(("rank1", "eer"), rank1_and_eer(theirs), strict=True))
        differences = contrasts(mine, scored_folds(theirs, resamples), resamples)
        told = [f"{metric} {values[metric]:.3f}, yours {_difference(one)}" for metric, one in differences.items()]
        lines.append(f"  {attacker:<18}{'; '.join(told)}")
    return lines


def _score_set(cohort: str, protocol: str, attacker: str, table: pd.DataFrame) -> ScoreSet:
    """Scores of one column as the study evaluates them; the trials come probe by probe, as our files list them."""
    folds = []
    for _, fold in table.groupby("fold"):
        persons = fold["enrolled"].unique()
        probes = fold.iloc[:: len(persons)]
        probed = pd.MultiIndex.from_frame(probes[[RECORD, "start"]])
        owners = fold[fold["genuine"] == 1].set_index([RECORD, "start"])["enrolled"]
        whose = owners.reindex(probed).fillna("somebody not enrolled")
        matrix = ScoreMatrix(fold[attacker].to_numpy().reshape(-1, len(persons)), whose, persons)
        folds.append(FoldScores(matrix, ScoreMatrix(np.zeros((0, 0)), [], []), probes[RECORD].to_numpy()))
    return ScoreSet(cohort, protocol, attacker, 0, tuple(folds))


def _told(row: Mapping[str, object]) -> str:
    """Value and interval of a row of results, or why there is none."""
    if np.isnan(row["value"]):
        return str(row["note"])
    return f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def _difference(found: Estimate) -> str:
    """Difference with its interval, or why there is none."""
    interval = f"{found.value:+.3f} ({found.low:+.3f} to {found.high:+.3f})"
    return estimate_note(found) if np.isnan(found.value) else interval
