"""The trials as files, with our scores: another system can be run on the same ones (README.md beside them says how)."""

import gzip
from collections.abc import Sequence
from pathlib import Path
from string import Template

import numpy as np
import pandas as pd

from ecgstudy.evaluate.splits import PARTS, RECORD, SUBJECT, Split
from ecgstudy.evaluate.trials import MOST_HELD_TRIALS
from ecgstudy.experiment.dataset import IDENTITY_LEAD
from ecgstudy.experiment.evaluation import Attacks
from ecgstudy.experiment.jobs import Context, Job
from ecgstudy.study.cache import new_file, write_text
from ecgstudy.study.config import TEMPLATES

KEYS = ["fold", RECORD, "start", "enrolled"]
"""What names a trial of a protocol: a probe, by its record and first sample, and an enrolled person of its fold."""
SCORES = "scores.csv.gz"


def save_trials(context: Context, trialled: Sequence[Job], folder: Path) -> None:
    """Write who is learnt from, chosen on, enrolled and sought under each protocol as compressed CSV, and a README.md.

    ``<cohort>.<protocol>.<part>.csv.gz`` lists the segments of a part; ``pairs`` every probe with every enrolled person
    of its fold, genuine 1 or 0; of more than :data:`MOST_HELD_TRIALS` pairs ``probes`` lists the probes alone.
    """
    for job in trialled:
        splits = context.splits(job)
        parts = {part: [_located(context, getattr(split, part)) for split in splits] for part in PARTS[:3]}
        if _too_many(splits):
            parts["probes"] = [_located(context, split.probe) for split in splits]
        else:
            parts["pairs"] = [_pairs(context, split) for split in splits]
        for part, tables in parts.items():
            _write(folder / f"{job.cohort}.{job.protocol.name}.{part}.csv.gz", tables)
    left_out = [
        f"- {name}: {len(store.records):,} records take part, {len(store.exclusions):,} were left out"
        for name, store in context.stores.items()
    ]
    words = {"fs": f"{context.dataset.fs:g}", "lead": IDENTITY_LEAD, "left_out": "\n".join(left_out)}
    told = Template((TEMPLATES / "trials.md").read_text(encoding="utf-8")).substitute(words)
    write_text(folder / "README.md", told)


def save_scores(context: Context, trialled: Sequence[Job], attacks: Attacks, folder: Path) -> None:
    """Write the scores of every attacker, the mean of its seeds, beside the trials that can be held."""
    for job in trialled:
        splits, cell = context.splits(job), (job.cohort, job.protocol.name)
        ours = {attacker: folds for (*of, attacker), folds in attacks.items() if tuple(of) == cell}
        if ours and not _too_many(splits):
            tables = [_pairs(context, split)[[*KEYS[1:], "genuine"]] for split in splits]
            for attacker, folds in ours.items():
                tables = [
                    table.assign(**{attacker: np.ravel(fold.scores)}) for table, fold in zip(tables, folds, strict=True)
                ]
            _write(folder / f"{'.'.join(cell)}.{SCORES}", tables)


def _too_many(splits: Sequence[Split]) -> bool:
    """Whether there are more pairs than a file can list."""
    return sum(len(split.probe) * split.enrolment[SUBJECT].nunique() for split in splits) > MOST_HELD_TRIALS


def _located(context: Context, segments: pd.DataFrame) -> pd.DataFrame:
    """Where segments are: person, record, start and stop in samples of the store and in seconds, and the lead."""
    seconds = {f"{end}_s": segments[end] / context.dataset.fs for end in ("start", "stop")}
    leads = [context.dataset.lead_of(name) for name in segments[RECORD]]
    return segments[[SUBJECT, RECORD, "start", "stop"]].assign(**seconds, lead=leads)


def _pairs(context: Context, split: Split) -> pd.DataFrame:
    """Every probe of a split with every enrolled person, in the order of a score matrix."""
    persons = split.enrolment[SUBJECT].unique()
    probe = _located(context, split.probe).loc[split.probe.index.repeat(len(persons))]
    enrolled = np.tile(persons, len(split.probe))
    genuine = (probe[SUBJECT].to_numpy() == enrolled).astype(int)
    return probe.reset_index(drop=True).assign(enrolled=enrolled, genuine=genuine).drop(columns=SUBJECT)


def _write(file: Path, folds: Sequence[pd.DataFrame]) -> None:
    """Write tables below each other with the number of their fold; equal tables give equal bytes."""
    table = pd.concat(folds, keys=range(len(folds)), names=["fold", None]).reset_index(level="fold")
    with new_file(file) as partial:
        # neither the time nor a name in the header
        partial.write_bytes(gzip.compress(table.to_csv(index=False, float_format="%.7g").encode(), mtime=1))
