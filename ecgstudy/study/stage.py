"""What a notebook hands on: metrics, tables, figures and findings, whole or not at all.

Files are the interface between stages and towards the report (``results/<profile>/<stage>/``); what a cell displays is
for its reader only. A run's files gather in a draft and take the place of an older run's when the stage is finished.
"""

import json
import math
import os
import tempfile
import time
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from IPython import get_ipython
from IPython.display import HTML, Image, Markdown, display
from joblib import cpu_count
from matplotlib.figure import Figure
from PIL import Image as Picture

from ecgstudy.errors import NotApplicableError, StudyError
from ecgstudy.evaluate.results import COLUMNS, result, results_table
from ecgstudy.study.cache import LIBRARIES, METRICS, alone, commit, library_versions, new_file, publish, write_text
from ecgstudy.study.config import check_profile, is_own, results_dir
from ecgstudy.study.notebooks import DRAFT, check_parameters, declared_parameters, injected_parameters, notebook_path
from ecgstudy.study.parallel import in_batch, peak_memory, resolve_device
from ecgstudy.study.plots import use_house_style
from ecgstudy.study.words import table_html

STORY = "report.json"
RESULTS = "results.csv"
_NAMED_BY = ("cohort", "task", "protocol", "attacker", "view", "metric")


@dataclass
class Stage:
    """One notebook's run: collects its results and publishes them.

    Open it with :meth:`open` in the cell after the parameters and close it with :meth:`finish` in the last cell. A cell
    that is run again replaces what it recorded.

    Attributes
    ----------
    name : str
        The notebook's name without suffix, as "01_ingestion".
    profile : str
        "demo", "real", "mine" or "mine-quick".
    seed : int
        Seed of everything random in the stage.
    folder : Path
        The draft: whatever is written here is published with the stage.
    draws_traces : bool
        Whether a single person's signal may be drawn: one's own records are not, unless the parameter `draw_own_traces`
        asks for it, because a trace identifies its owner.
    """

    name: str
    profile: str
    seed: int
    folder: Path
    draws_traces: bool = True
    _device: str = "auto"
    _draft: tempfile.TemporaryDirectory | None = None
    _recorded: dict[str, dict] = field(default_factory=lambda: defaultdict(dict))
    _inputs: dict[str, str] = field(default_factory=dict)
    _commits: set[str] = field(default_factory=set)
    _started: float = field(default_factory=time.monotonic)

    @classmethod
    def open(cls, name: str, variables: Mapping[str, object]) -> "Stage":
        """Open the notebook `name` after a check of its parameters; nothing of an older run is touched.

        Parameters
        ----------
        name : str
            The notebook's name, as "01_ingestion".
        variables : mapping
            The notebook's ``globals()``; must hold `profile`, `seed` and `device`.
        """
        declared = declared_parameters(notebook_path(name))
        shell = get_ipython()
        injected = injected_parameters(shell.user_ns.get("In", [])) if shell else {}
        given = {key: variables[key] for key in declared if key in variables}
        values = check_parameters(declared, injected | given)
        profile = check_profile(values["profile"])
        use_house_style()
        draft = None if DRAFT in os.environ else tempfile.TemporaryDirectory(prefix="ecgstudy-")
        folder = Path(draft.name if draft else os.environ[DRAFT])
        traces = not is_own(profile) or bool(values.get("draw_own_traces"))
        stage = cls(name, profile, values["seed"], folder, traces, values["device"], draft)
        if shell:
            shell.set_custom_exc((NotApplicableError,), stage._end_early)
        return stage

    @cached_property
    def device(self) -> str:
        """Device to compute on: "cpu" or "cuda"."""
        return resolve_device(self._device)

    def input(self, name: str, sha256: str) -> None:
        """Record the digest of something that the stage's numbers are made from."""
        self._inputs[name] = sha256

    def commits(self, made_by: set[str]) -> None:
        """Record the commits that made the artefacts which the stage's numbers rest on."""
        self._commits |= made_by

    def metric(
        self,
        name: str,
        value: float,
        low: float = math.nan,
        high: float = math.nan,
        n: int | None = None,
        unit: str = "",
        note: str = "",
    ) -> float:
        """Record one number and return it.

        Parameters
        ----------
        name : str
            Dotted name, as "ecgid.records".
        value : float
            NaN where the number is undefined; `note` must then say why.
        low, high : float
            Bounds of the 95 % interval; NaN where the number is a count.
        n : int
            How many observations stand behind it.
        unit : str
            "records", "ms", "share"...
        note : str
            The sentence to show where the value is undefined.
        """
        if not math.isfinite(value) and not note:
            raise ValueError(f"metric {name!r} is undefined and no note says why")
        entry = {"value": _finite(value), "low": _finite(low), "high": _finite(high), "n": n, "unit": unit}
        self._record("metric", name, entry | ({"note": note} if note else {}))
        return value

    def results(self, rows: pd.DataFrame, made_by: Collection[str] = ()) -> None:
        """Record every row of a results table as a metric; all rows of the stage are published as ``results.csv``.

        The file has the metric's name as its last column: what else rows have (a tier, a seed) stands in it alone.

        Parameters
        ----------
        rows : pandas.DataFrame
            Columns cohort, protocol, attacker, view, task, metric, value, low, high, n, unit, note. A row's metric is
            named ``cohort[.task].protocol.attacker[.view].metric``, empty parts left out, or as its column `name` says.
        made_by : collection of str
            Commits that made what the rows rest on.
        """
        self.commits({*made_by})
        for row in rows.astype(object).where(rows.notna(), None).to_dict("records"):
            name = row.get("name") or ".".join(filter(None, map(row.get, _NAMED_BY)))
            value, low, high = (math.nan if row.get(key) is None else row[key] for key in ("value", "low", "high"))
            n = None if row.get("n") is None else int(row["n"])
            self.metric(name, value, low, high, n, row.get("unit") or "", row.get("note") or "")
            self._record("result", name, {column: row.get(column) for column in COLUMNS} | {"name": name})

    def headline(self, metric: str, label: str) -> None:
        """Show a recorded metric on the report's front page under a plain-words label."""
        if metric not in self._recorded["metric"]:
            raise ValueError(f"headline {metric!r} is not a recorded metric")
        self._record("headline", metric, {"metric": metric, "label": label})

    def finding(self, sentence: str) -> None:
        """Show one finding and hand it to the report."""
        cell, run = _cell_and_run() or (sentence, None)
        before, sentences = self._recorded["finding"].get(cell, (None, []))
        self._recorded["finding"][cell] = run, [*(sentences if run and run == before else ()), sentence]
        display(Markdown(f"> **Finding.** {sentence}"))

    def table(self, name: str, frame: pd.DataFrame, caption: str, show: bool = True) -> None:
        """Write a table to ``tables/<name>.csv`` and show it; a long one is only named, with `show` off."""
        self._record("table", name, {"name": name, "caption": caption})
        _write_csv(self.folder / "tables" / f"{name}.csv", frame, "%.6g")
        if show:
            display(HTML(table_html(frame, caption)))
        else:
            display(Markdown(f"*{caption}* ({len(frame):,} rows, in `tables/{name}.csv`)"))

    def figure(self, name: str, figure: Figure, caption: str, alt: str) -> None:
        """Write a figure to ``figures/<name>.png`` and ``.svg``, and show it with caption and alt text."""
        self._record("figure", name, {"name": name, "caption": caption, "alt": alt})
        stem = self.folder / "figures" / name
        with new_file(stem.with_suffix(".svg")) as partial:
            figure.savefig(partial, metadata={"Date": None})
        drawn = BytesIO()
        figure.savefig(drawn, metadata={"Software": None})
        plt.close(figure)
        with new_file(stem.with_suffix(".png")) as partial:
            # a palette makes it a third as large, and a notebook holds it once more
            Picture.open(drawn).convert("RGB").quantize().save(partial, "png", optimize=True)
        display(Image(str(stem.with_suffix(".png"))), metadata={"image/png": {"alt": alt}})
        display(Markdown(f"*{caption}*"))

    def not_applicable(self, reason: str) -> None:
        """Finish the stage with nothing but the reason why its question cannot be asked of these records.

        A notebook need not call it: a :class:`~ecgstudy.errors.NotApplicableError` in any cell does.
        """
        note = f"Not applicable, because {reason[:1].lower()}{reason[1:].removesuffix('.')}."
        self.results(results_table([result("applicable", math.nan, note=note)]))
        self.headline("applicable", "this stage")
        self.finding(note)
        self.finish()

    def _end_early(self, shell: Any, _kind: type, why: NotApplicableError, *_: object, **__: object) -> None:  # noqa: ANN401
        """Handle an error that says that the question cannot be asked; later cells are not run."""
        self.not_applicable(str(why))
        shell._showtraceback(SystemExit, SystemExit(0), [])  # what papermill takes for an orderly end

    def finish(self) -> None:
        """Publish what the stage recorded: its files take the place of an older run's, ``metrics.json`` last."""
        if self._recorded["result"]:
            _write_csv(self.folder / RESULTS, pd.DataFrame(self._recorded["result"].values()), "%.9g")
        about = {
            "commit": commit(),
            "seed": self.seed,
            "inputs": self._inputs,
            "versions": library_versions((*LIBRARIES, "pandas", "pytorch-lightning")),
            "device": self.__dict__.get("device", "cpu"),
            "seconds": round(time.monotonic() - self._started, 1),
            "memory_gb": round(peak_memory() / 1e9, 1),
            "cores": cpu_count(),
        }
        if self._commits - {about["commit"]}:
            about["artefact_commits"] = sorted(self._commits)
        story = {f"{kind}s": [*self._recorded[kind].values()] for kind in ("headline", "figure", "table")}
        story["findings"] = [text for _, sentences in self._recorded["finding"].values() for text in sentences]
        metrics = self._recorded["metric"]
        whole = {"profile": self.profile, "complete": True, "metrics": metrics, "provenance": about}
        for name, content in ((STORY, story), (METRICS, whole)):
            named = {"stage": self.name} | content
            text = json.dumps(named, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
            write_text(self.folder / name, text + "\n")
        if self._draft:  # else papermill's caller publishes, and holds the lock
            folder = results_dir(self.profile) / self.name
            with alone(folder, f"{self.name} of the profile {self.profile}"):
                publish(self.folder, folder)
        shown = f"{len(metrics)} metrics, {len(story['tables'])} tables, {len(story['figures'])} figures"
        display(Markdown(f"Stage `{self.name}` is complete: {shown}, in {about['seconds']:.0f} s."))

    def _record(self, kind: str, name: str, entry: dict) -> None:
        """Keep one result; where no cell is run again, a name that is taken is refused."""
        if name in self._recorded[kind] and in_batch():
            raise ValueError(f"{kind} {name!r} is recorded twice")
        self._recorded[kind][name] = entry


def _cell_and_run() -> tuple[str, str] | None:
    """Name the notebook's cell that is running, and which of its runs this is; None outside a notebook."""
    message = getattr(get_ipython(), "get_parent", dict)()
    if not message:
        return None
    cell = message.get("metadata", {}).get("cellId") or message["content"].get("code", "")
    return cell, message["header"]["msg_id"]


def _write_csv(path: Path, frame: pd.DataFrame, float_format: str) -> None:
    """Write a table whole or not at all."""
    with new_file(path) as partial:
        frame.to_csv(partial, index=False, float_format=float_format)


def read_metrics(profile: str, stage: str) -> dict:
    """Content of a finished stage's ``metrics.json``; StudyError where the stage was not run to its end."""
    path = results_dir(profile) / stage / METRICS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as absent:
        raise StudyError(f"{path} is not there or not whole; run `python -m ecgstudy run {stage}` first.") from absent
    if content.get("complete") is not True:
        raise StudyError(f"{path} is of a run that did not end; run `python -m ecgstudy run {stage}` again.")
    return content


def _finite(value: float) -> float | int | None:
    """`value` as a plain number, None where it is undefined."""
    if not math.isfinite(value):
        return None
    return int(value) if float(value).is_integer() and not isinstance(value, float) else float(value)
