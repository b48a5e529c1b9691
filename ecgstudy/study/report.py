"""The report's front page: what the study asks, and the headline numbers of every finished stage.

It only reads the files that the stages left (``metrics.json``, ``report.json``, figures); it computes nothing.
"""

import json
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from ecgstudy.errors import StudyError
from ecgstudy.study.cache import write_text
from ecgstudy.study.config import PROFILES, QUESTION, STAGES, TEMPLATES, StageInfo, check_profile, results_dir
from ecgstudy.study.stage import STORY, read_metrics


def build_report(profile: str) -> Path:
    """Write ``index.html`` and ``summary.md`` of a profile that has a finished stage; return the page's path."""
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
    content = {"question": QUESTION, "profile": profile, "note": PROFILES[profile], "sections": sections}
    for template, target in (("index.html.j2", "index.html"), ("summary.md.j2", "summary.md")):
        write_text(folder / target, environment.get_template(template).render(content))
    return folder / "index.html"


def _section(profile: str, info: StageInfo) -> dict:
    """Gather what the page shows of one stage; a stage without results says so."""
    try:
        content = read_metrics(profile, info.name)
        story = json.loads((results_dir(profile) / info.name / STORY).read_text(encoding="utf-8"))
    except (StudyError, OSError, json.JSONDecodeError):
        return {"info": info, "finished": False}
    metrics, about = content["metrics"], content["provenance"]
    headlines = [
        line | metrics[line["metric"]] | {"text": estimate_text(metrics[line["metric"]])} for line in story["headlines"]
    ]
    made = f"commit {about['commit'][:10]}, seed {about['seed']}, {about['device']}, {about['seconds']:.0f} s"
    if "artefact_commits" in about:
        made += f"; rests on artefacts of commits {', '.join(made_by[:10] for made_by in about['artefact_commits'])}"
    return story | {"info": info, "finished": True, "headlines": headlines, "made": made}


def estimate_text(metric: dict) -> str:
    """Put one metric into words: value, unit (shares in per cent) and 95 % interval, or why it is undefined."""
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
