"""The report's front page: what the study asks, and the headline numbers of every finished stage.

It only reads the files that the stages left (``metrics.json``,
``report.json``, figures); it computes nothing.
"""

import json
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from ecgstudy.errors import StudyError
from ecgstudy.study.cache import write_text
from ecgstudy.study.config import QUESTION, STAGES, TEMPLATES, StageInfo, check_profile, results_dir
from ecgstudy.study.stage import STORY, read_metrics

PROFILE_NOTES = {
    "demo": "Every number on this page comes from the built-in SYNTHETIC cohort: it shows that the study runs, "
    "and says nothing about real people.",
    "real": "The numbers on this page come from real recordings of the cohorts named in each stage.",
}


def build_report(profile: str) -> Path:
    """Write ``index.html`` and ``summary.md`` of a profile; return the path of the page.

    Raises
    ------
    StudyError
        No stage of this profile has been run to its end.
    """
    folder = results_dir(check_profile(profile))
    sections = [_section(profile, info) for info in STAGES]
    if not any(section["finished"] for section in sections):
        raise StudyError(f"{folder} holds no finished stage; run `make study PROFILE={profile}` first.")
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    content = {"question": QUESTION, "profile": profile, "note": PROFILE_NOTES[profile], "sections": sections}
    for template, target in (("index.html.j2", "index.html"), ("summary.md.j2", "summary.md")):
        write_text(folder / target, environment.get_template(template).render(content))
    return folder / "index.html"


def _section(profile: str, info: StageInfo) -> dict:
    """Gather what the page shows of one stage; a stage without results says so."""
    section = {"info": info, "finished": False, "headlines": [], "findings": [], "figures": [], "made": ""}
    try:
        content = read_metrics(profile, info.name)
        story = json.loads((results_dir(profile) / info.name / STORY).read_text(encoding="utf-8"))
    except (StudyError, OSError, json.JSONDecodeError):
        return section
    headlines = [
        {"label": entry["label"]}
        | content["metrics"][entry["metric"]]
        | {"text": estimate_text(content["metrics"][entry["metric"]])}
        for entry in story["headlines"]
    ]
    about = content["provenance"]
    made = f"commit {about['commit'][:10]}, seed {about['seed']}, {about['device']}, {about['seconds']:.0f} s"
    return section | {
        "finished": True,
        "headlines": headlines,
        "findings": story["findings"],
        "figures": story["figures"],
        "made": made,
    }


def estimate_text(metric: dict) -> str:
    """Put one metric into words: value, unit and 95 % interval, or the sentence that says why it is undefined.

    Shares are written as percentages.
    """
    if metric["value"] is None:
        return metric["note"]
    factor, unit = (100, "%") if metric["unit"] == "share" else (1, metric["unit"])
    text = f"{number_text(factor * metric['value'])} {unit}".strip()
    if metric["low"] is None or metric["high"] is None:
        return text
    return f"{text} (95 % interval {number_text(factor * metric['low'])} to {number_text(factor * metric['high'])})"


def number_text(value: float) -> str:
    """Write a number for readers: whole numbers with thousands, others to three significant digits."""
    if float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
