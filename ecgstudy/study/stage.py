"""What a notebook hands on: metrics, tables, figures and findings, written whole or not at all.

Files are the interface between stages and towards the report
(``results/<profile>/<stage>/``); what a cell displays is for its reader only.
"""

import json
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
from IPython import get_ipython
from IPython.display import HTML, Image, Markdown, display
from matplotlib.figure import Figure

from ecgstudy.errors import StudyError
from ecgstudy.study import parameters, provenance
from ecgstudy.study.cache import new_file, write_text
from ecgstudy.study.paths import results_dir
from ecgstudy.study.plots import use_house_style
from ecgstudy.study.profiles import check_profile

METRICS = "metrics.json"
STORY = "report.json"


@dataclass
class Stage:
    """One notebook's run: collects its results and writes them.

    Open it with :meth:`open` in the cell after the parameters and close it
    with :meth:`finish` in the last cell.

    Attributes
    ----------
    name : str
        The notebook's name without suffix, as "01_ingestion".
    profile : str
        "demo" or "real".
    seed : int
        Seed of everything random in the stage.
    """

    name: str
    profile: str
    seed: int
    _device: str = "auto"
    _metrics: dict[str, dict] = field(default_factory=dict)
    _inputs: dict[str, str] = field(default_factory=dict)
    _story: dict[str, list] = field(
        default_factory=lambda: {"headlines": [], "findings": [], "figures": [], "tables": []}
    )
    _started: float = field(default_factory=time.monotonic)

    @classmethod
    def open(cls, name: str, variables: Mapping[str, object]) -> "Stage":
        """Check the notebook's parameters and clear the stage's older results.

        Parameters
        ----------
        name : str
            The notebook's name, as "01_ingestion".
        variables : mapping
            The notebook's ``globals()``; must hold `profile`, `seed` and `device`.

        Raises
        ------
        StudyError
            A parameter is unknown or has the wrong type, or there is no such profile.
        """
        declared = parameters.declared_parameters(parameters.notebook_path(name))
        shell = get_ipython()
        injected = parameters.injected_names(shell.user_ns.get("In", [])) if shell else {}
        given = {key: variables[key] for key in declared if key in variables}
        values = parameters.check_parameters(declared, injected | given)
        stage = cls(name, check_profile(values["profile"]), values["seed"], values["device"])
        stage._clear()
        use_house_style()
        return stage

    @property
    def folder(self) -> Path:
        """Where the stage's results are written."""
        return results_dir(self.profile) / self.name

    @cached_property
    def device(self) -> str:
        """Device to compute on: "cpu" or "cuda"."""
        return provenance.resolve_device(self._device)

    def _clear(self) -> None:
        """Delete older results, so that a run that stops half-way cannot show them as its own."""
        for pattern in (METRICS, STORY, "tables/*.csv", "figures/*.png", "figures/*.svg", "*.html", "*.ipynb"):
            for old in self.folder.glob(pattern):
                old.unlink()

    def input(self, name: str, sha256: str) -> None:
        """Record the digest of something that the stage's numbers are made from."""
        self._inputs[name] = sha256

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
        if name in self._metrics:
            raise ValueError(f"metric {name!r} is recorded twice")
        if not math.isfinite(value) and not note:
            raise ValueError(f"metric {name!r} is undefined and no note says why")
        entry = {"value": _finite(value), "low": _finite(low), "high": _finite(high), "n": n, "unit": unit}
        self._metrics[name] = entry | ({"note": note} if note else {})
        return value

    def headline(self, metric: str, label: str) -> None:
        """Show a recorded metric on the report's front page under a plain-words label."""
        if metric not in self._metrics:
            raise ValueError(f"headline {metric!r} is not a recorded metric")
        self._story["headlines"].append({"metric": metric, "label": label})

    def finding(self, sentence: str) -> None:
        """Show one finding and hand it to the report."""
        self._story["findings"].append(sentence)
        display(Markdown(f"> **Finding.** {sentence}"))

    def table(self, name: str, frame: pd.DataFrame, caption: str, decimals: int = 3, show: bool = True) -> None:
        """Write a table to ``tables/<name>.csv`` and show it; a long one is only named, with `show` off."""
        with new_file(self.folder / "tables" / f"{name}.csv") as partial:
            frame.to_csv(partial, index=False, float_format="%.6g")
        self._story["tables"].append({"name": name, "caption": caption})
        if show:
            display(HTML(table_html(frame, caption, decimals)))
        else:
            display(Markdown(f"*{caption}* ({len(frame):,} rows, in `tables/{name}.csv`)"))

    def figure(self, name: str, figure: Figure, caption: str, alt: str) -> None:
        """Write a figure to ``figures/<name>.png`` and ``.svg``, and show it with caption and alt text."""
        stem = self.folder / "figures" / name
        for suffix, metadata in ((".png", {"Software": None}), (".svg", {"Date": None})):
            with new_file(stem.with_suffix(suffix)) as partial:
                figure.savefig(partial, metadata=metadata)
        plt.close(figure)
        self._story["figures"].append({"name": name, "caption": caption, "alt": alt})
        display(Image(str(stem.with_suffix(".png"))), metadata={"image/png": {"alt": alt}})
        display(Markdown(f"*{caption}*"))

    def finish(self) -> None:
        """Write ``report.json``, then ``metrics.json``: its presence says that the stage is complete."""
        about = {
            "commit": provenance.commit(),
            "seed": self.seed,
            "inputs": self._inputs,
            "versions": provenance.versions(),
            "device": self.__dict__.get("device", "cpu"),
            "seconds": round(time.monotonic() - self._started, 1),
        }
        whole = {"stage": self.name, "profile": self.profile, "complete": True}
        write_text(self.folder / STORY, _json({"stage": self.name, **self._story}))
        write_text(self.folder / METRICS, _json({**whole, "metrics": self._metrics, "provenance": about}))
        shown = (
            f"{len(self._metrics)} metrics, {len(self._story['tables'])} tables, {len(self._story['figures'])} figures"
        )
        display(Markdown(f"Stage `{self.name}` is complete: {shown}, in {about['seconds']:.0f} s."))


def read_metrics(profile: str, stage: str) -> dict:
    """Content of a finished stage's ``metrics.json``.

    Raises
    ------
    StudyError
        The stage has not been run to its end under this profile.
    """
    path = results_dir(profile) / stage / METRICS
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as absent:
        raise StudyError(f"{path} is not there or not whole; run `python -m ecgstudy run {stage}` first.") from absent
    if content.get("complete") is not True:
        raise StudyError(f"{path} is of a run that did not end; run `python -m ecgstudy run {stage}` again.")
    return content


def table_html(frame: pd.DataFrame, caption: str, decimals: int = 3) -> str:
    """Render an accessible table: caption above, undefined cells as "-", numbers to `decimals` places.

    A column ``x`` that has ``x_low`` and ``x_high`` beside it is shown as one, "x (low to high)".
    """
    style = shown_table(frame, decimals).style.hide(axis="index").set_caption(caption).set_uuid("t")
    style = style.format(precision=decimals, na_rep="-", thousands=",", escape="html")
    style = style.set_table_styles([{"selector": "caption", "props": "text-align: left; font-style: italic"}])
    return style.to_html()


def shown_table(frame: pd.DataFrame, decimals: int) -> pd.DataFrame:
    """Copy of a table for readers: intervals beside their values, spaces for underscores."""
    shown = frame.copy()
    for name in [column for column in frame if {f"{column}_low", f"{column}_high"} <= set(frame)]:
        triples = zip(frame[name], frame[f"{name}_low"], frame[f"{name}_high"], strict=True)
        shown[name] = [_with_interval(*triple, decimals) for triple in triples]
        shown = shown.drop(columns=[f"{name}_low", f"{name}_high"])
    return shown.rename(columns=lambda column: str(column).replace("_", " "))


def _with_interval(value: float, low: float, high: float, decimals: int) -> str:
    """Write "value (low to high)"; "-" where the value is undefined, the value alone where the interval is."""
    if not math.isfinite(value):
        return "-"
    if not (math.isfinite(low) and math.isfinite(high)):
        return f"{value:.{decimals}f}"
    return f"{value:.{decimals}f} ({low:.{decimals}f} to {high:.{decimals}f})"


def _finite(value: float) -> float | int | None:
    """`value` as a plain number, None where it is undefined."""
    if not math.isfinite(value):
        return None
    return int(value) if float(value).is_integer() and not isinstance(value, float) else float(value)


def _json(content: dict) -> str:
    """JSON text that two equal runs write identically."""
    return json.dumps(content, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
