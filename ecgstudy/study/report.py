"""The report's front page: what the study asks, and the headline numbers of every finished stage.

It only reads the files that the stages left (``metrics.json``, ``report.json``, figures); it computes nothing.
"""

import json
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from ecgstudy.data.own import OWN_PREFIX
from ecgstudy.errors import StudyError
from ecgstudy.study.cache import write_text
from ecgstudy.study.config import PROFILES, QUESTION, STAGES, TEMPLATES, StageInfo, check_profile, is_own, results_dir
from ecgstudy.study.stage import STORY, read_metrics

LINKING = {
    "cross_day": "of a later day",
    "cross_record": "another recording, of whatever day",
    "cross_activity": "in motion",
    "time_separated": "minutes later in the same recording",
}
"""Protocols that say whether a person can be linked, the strongest claim first, and what their probes are."""
UNKNOWN = "Whether patients can be linked is not known"


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
    content["answers"] = steward_answers(profile) if is_own(profile) else []
    content["linked"] = any(answer["headline"] != UNKNOWN for answer in content["answers"])
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


def steward_answers(profile: str) -> list[dict[str, str]]:
    """Answer what a steward of records asks first: a headline and sentences a cohort, from stage 02."""
    try:
        metrics = read_metrics(profile, "02_reidentification")["metrics"]
    except StudyError:
        return []
    if "applicable" in metrics:
        return [{"cohort": "", "headline": UNKNOWN, "text": metrics["applicable"]["note"]}]
    cohorts = dict.fromkeys(name.split(".")[0] for name in metrics if name.startswith(OWN_PREFIX))
    return [_steward_answer(cohort, metrics) for cohort in cohorts]


def _steward_answer(cohort: str, metrics: dict[str, dict]) -> dict[str, str]:
    """How many persons of a cohort can be linked, by whom, from how many seconds, and who is worst off."""

    def said(protocol: str, name: str, attacker: str = "best") -> dict:
        return metrics.get(f"{cohort}.{protocol}.{attacker}.{name}", {"value": None})

    protocol = next((name for name in LINKING if said(name, "rank1")["value"] is not None), None)
    if protocol is None:
        undefined = [said(name, "rank1") for name in LINKING]
        undefined += [metric for name, metric in metrics.items() if name.startswith(f"{cohort}.")]
        reason = next(metric["note"] for metric in undefined if metric["value"] is None and "note" in metric)
        return {"cohort": cohort, "headline": UNKNOWN, "text": reason}
    # the safe side: what needs no training is chosen on nothing, and may do better than what was chosen
    best, template = said(protocol, "rank1"), said(protocol, "rank1", "template")
    stronger = "template" if (template["value"] or 0) > best["value"] else "best"
    names = ("rank1", "persons", "enrolled", "always_first", "risk_p90")
    rank1, persons, enrolled, always, worst = (said(protocol, name, stronger) for name in names)
    seconds = metrics.get(f"{cohort}.{protocol}.probe_seconds", {})
    sentences = [
        f"Somebody who holds one earlier ECG of each of {number_text(enrolled['value'])} patients and gets another ECG "
        f"of one of {number_text(persons['value'])} of them ({LINKING[protocol]}"
        + (f", {number_text(seconds['value'])} s long" if seconds else "")
        + f") names the right patient in {estimate_text(rank1)} of the cases; guessing would in "
        f"{number_text(100 / enrolled['value'])} %."
    ]
    if stronger == "template":
        sentences.append(
            "That takes no training, only a comparison of average beats; the attacker that was chosen on other "
            f"people does so in {estimate_text(best)}."
        )
    elif template["value"] is not None:
        sentences.append(
            f"Comparing average beats, without any training, already does so in {estimate_text(template)}."
        )
    if always["value"] is not None and worst["value"] is not None:
        told = "all" if worst["value"] == 1 else f"{number_text(100 * worst['value'])} % or more"
        sentences.append(
            f"{number_text(100 * always['value'])} % of the patients are recognised every time; the worst-off tenth "
            f"are told from others in {told} of the comparisons."
        )
    share = number_text(100 * rank1["value"])
    return {"cohort": cohort, "headline": f"{share} % of later ECGs can be linked", "text": " ".join(sentences)}


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
