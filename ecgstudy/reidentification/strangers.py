"""Sex and age of people never seen, read from twelve leads and from lead I alone by a network of beats.

Cohorts whose records have the twelve leads are read together: people are drawn into folds, and those of each fold are
read by networks that learnt from the people of all others, of every such cohort.
"""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from ecgstudy.data.base import STANDARD_LEADS
from ecgstudy.deidentification.cycles import CycleSet, cycle_set
from ecgstudy.deidentification.readers import ABSENCE, attribute_table, probabilities, train_reader
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.bootstrap import Resamples
from ecgstudy.evaluate.classification import classification_report, mae_report
from ecgstudy.evaluate.results import INTERVAL, estimate_results, pivot, results_table
from ecgstudy.evaluate.splits import RECORD, SUBJECT, assert_disjoint, with_cohort
from ecgstudy.experiment.jobs import SEXES, Context, run
from ecgstudy.study.config import effort

FOLDS = 5
EPOCHS = {"demo": 3, "real": 30}
VIEWS = {"12_leads": STANDARD_LEADS, "lead_I": ("I",)}
AGES = (0, 30, 40, 50, 60, 70, 80, 200)
DECADES = tuple(map(str, range(len(AGES) - 1)))
"""Groups of ages that are learnt; the expected age is the mean of their ages by their probabilities."""
TASKS = {"sex": SEXES, "over_60": ABSENCE, "decade": DECADES}
SHOWN = {"auroc": "AUROC", "accuracy": "accuracy", "majority": "most frequent class"}
SHOWN |= {"mae_years": "age error, years", "mae_years_median": "age error of the median age, years"}


@dataclass(frozen=True)
class StrangerJob:
    """A network that reads the people of one fold of some cohorts in the leads of a view."""

    cohorts: tuple[str, ...]
    view: str
    fold: int
    seed: int

    @property
    def name(self) -> str:
        """Name for files and logs."""
        return ".".join([*self.cohorts, self.view, str(self.fold), str(self.seed)])

    def about(self) -> dict[str, object]:
        """First columns of a row about this job."""
        named = {"cohort": ", ".join(self.cohorts), "protocol": "strangers", "attacker": "beats", "view": self.view}
        return named | {"seed": self.seed}

    def made_from(self, context: Context) -> dict[str, object]:
        """JSON values of everything that the reading depends on, besides code."""
        return {"job": asdict(self), "effort": effort(context.profile)}


def stranger_jobs(context: Context, seed: int) -> list[StrangerJob]:
    """Jobs of every view and fold; none where no cohort with twelve leads states anybody's sex or age."""
    cohorts = tuple(
        name
        for name, store in context.stores.items()
        if store.records["usable_leads"].map(set(STANDARD_LEADS).issubset).mean() >= 0.5
        and store.records[["sex", "age"]].notna().any(axis=None)
    )
    folds = range(FOLDS) if cohorts else ()
    return [StrangerJob(cohorts, view, fold, seed) for view in VIEWS for fold in folds]


def read_strangers(context: Context, job: StrangerJob) -> pd.DataFrame:
    """Train a network on the people of the other folds and let it read those of its own.

    One row a record and task: cohort, person, record, task, truth, age, ``p_<class>``, expected_age and median_age (of
    those learnt from).
    """
    cycles = context.shared((job.cohorts, job.view), lambda: _cycles(context, job))
    fold = folds_of(cycles.records)
    known, asked = cycles.rows(fold != job.fold), cycles.rows(fold == job.fold)
    assert_disjoint({"train": known.records, "probe": asked.records})
    labels = {name: own.records.pipe(_labels) for name, own in (("known", known), ("asked", asked))}
    tasks = {task: classes for task, classes in TASKS.items() if len(labels["known"][task].dropna().unique()) > 1}
    if not tasks or not len(asked):
        raise StudyError("too few people whose sex or age is known can be read")
    epochs = EPOCHS[effort(context.profile)]
    model = train_reader(known, labels["known"], tasks, job.seed, context.runs, epochs, context.device)
    about = {"cohort": asked.records["cohort"], "person": asked.records[SUBJECT], "record": asked.records[RECORD]}
    about |= {"age": asked.records["age"], "median_age": known.records["age"].median()}
    tables = []
    for task, chances in probabilities(model, asked).items():
        table = pd.DataFrame({**about, "task": task, "truth": labels["asked"][task]})
        table[[f"p_{name}" for name in TASKS[task]]] = chances
        if task == "decade":
            ages = known.records["age"].groupby(labels["known"][task]).mean().reindex(DECADES)
            table["expected_age"] = chances @ ages.interpolate(limit_direction="both")
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _cycles(context: Context, job: StrangerJob) -> CycleSet:
    """Median cycles of all cohorts, persons and records named after their cohort."""
    parts = [cycle_set(context.stores[name], VIEWS[job.view]) for name in job.cohorts]
    records = [with_cohort(name, one.records) for name, one in zip(job.cohorts, parts, strict=True)]
    both = (np.concatenate([getattr(one, part) for one in parts]) for part in ("cycles", "rhythm"))
    return CycleSet(*both, pd.concat(records, ignore_index=True))


def folds_of(records: pd.DataFrame) -> np.ndarray:
    """Fold of the person of each record, shape (n,): as many persons of each cohort in each."""
    owners = records[["cohort", SUBJECT]].drop_duplicates().sort_values(SUBJECT)
    drawn = owners.sample(frac=1, random_state=0)
    number = drawn.groupby("cohort").cumcount() % FOLDS
    return records[SUBJECT].map(dict(zip(drawn[SUBJECT], number, strict=True))).to_numpy()


def _labels(records: pd.DataFrame) -> pd.DataFrame:
    """Class of every task of each record's owner, None where it is unknown."""
    decade = pd.cut(records["age"], AGES, right=False, labels=DECADES).astype(object)
    return attribute_table(records).assign(decade=decade.where(decade.notna(), None))


def stranger_results(context: Context, seed: int) -> tuple[pd.DataFrame, set[str]]:
    """Rows of sex, of being over sixty and of the age in years, by cohort and view.

    Beside the age error stands ``mae_years_median``, that of naming everybody the median age of those learnt from, and
    beside the rows the commits that made what was read.
    """
    jobs = stranger_jobs(context, seed)
    done = run(read_strangers, jobs, context, "strangers")
    found = [done.values[job.name].assign(view=job.view) for job in jobs if job.name in done.values]
    if not found:
        return results_table([]), set()
    everything, rows = pd.concat(found), []
    for (cohort, view, task), own in everything.groupby(["cohort", "view", "task"], sort=False):
        resamples, persons = Resamples.draw(own["person"], seed), own["person"].to_numpy(dtype=str)
        if task == "decade":
            rules = {"mae_years": own["expected_age"], "mae_years_median": own["median_age"]}
            report = {m: mae_report(own["age"], age, persons, resamples)["mae_years"] for m, age in rules.items()}
        else:
            shares = own[[f"p_{name}" for name in TASKS[task]]]
            report = classification_report(own["truth"].tolist(), shares, TASKS[task], persons, resamples)
        about = {"cohort": cohort, "protocol": "strangers", "attacker": "beats", "view": view}
        rows += estimate_results(report, **about, task="age" if task == "decade" else task)
    return results_table(rows), done.commits


def stranger_table(rows: pd.DataFrame) -> pd.DataFrame:
    """One row a task, cohort and view."""
    return pivot(rows, ["task", "cohort", "view", "n"], shown=SHOWN, ends=INTERVAL).rename(columns={"n": "persons"})


def stranger_finding(rows: pd.DataFrame) -> str:
    """Set what is read of people never seen beside what needs no reading."""
    told = rows.assign(value=rows["value"].astype(float).map("{:.3g}".format)).set_index(["task", "metric"])["value"]
    words = {("sex", "auroc"): "sex AUROC {}", ("over_60", "auroc"): "over 60 AUROC {}"}
    words |= {("age", "mae_years"): "age error {} years", ("age", "mae_years_median"): "naming the median age {} years"}
    parts = []
    for (cohort, view), places in rows.reset_index(drop=True).groupby(["cohort", "view"], sort=False).groups.items():
        own = told.iloc[places]
        read = [said.format(own[key]) for key, said in words.items() if key in own.index]
        parts.append(f"{cohort}, {view.replace('_', ' ')}: {', '.join(read)}")
    return f"Of people never seen: {'; '.join(parts) or 'no cohort has twelve leads of people of known sex or age'}."
