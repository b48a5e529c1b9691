"""The report: the front page of a profile, and a site of all its notebooks.

It only reads the files that the stages left (``metrics.json``, ``report.json``, tables, figures); it computes nothing.
"""

import json
import re
import tempfile
from importlib.metadata import version
from pathlib import Path

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ecgstudy.data.own import OWN_PREFIX
from ecgstudy.errors import StudyError
from ecgstudy.study.cache import alone, write_text
from ecgstudy.study.config import (
    PROFILES,
    QUESTION,
    STAGES,
    SUMMARY,
    TEMPLATES,
    StageInfo,
    check_profile,
    is_own,
    results_dir,
)
from ecgstudy.study.site import build_site, glossary_page, notebook_page, prose_in_words
from ecgstudy.study.stage import STORY, read_metrics
from ecgstudy.study.words import as_shown, commit_text, estimate_text, number_text, observations_text, table_html

SHOWN = ("claims", "risks", "data_cards", "risk_cards")
"""Tables of the summary that the front page shows as they are."""
LINKING = {
    "cross_day": "of a later day",
    "cross_record": "another recording, of whatever day",
    "cross_activity": "in motion",
    "time_separated": "minutes later in the same recording",
}
"""Protocols that say whether a person can be linked, the strongest claim first, and what their probes are."""
UNKNOWN = "Whether patients can be linked is not known"


def build_report(profile: str) -> Path:
    """Write the site (``index.html``) and ``summary.md`` of a profile with a finished stage; return the page's path.

    The site holds the notebooks of all finished stages, a glossary and the front page, and opens from disk.
    """
    folder = results_dir(check_profile(profile))
    sections = [_section(profile, info) for info in STAGES]
    if not any(section["finished"] for section in sections):
        raise StudyError(f"{folder} holds no finished stage; run `make study PROFILE={profile}` first.")
    content = _front(profile, sections)
    with alone(folder / "report", f"the report of the profile {profile}"), tempfile.TemporaryDirectory() as draft:
        source = Path(draft, "pages")
        source.mkdir()
        captions = _write_pages(source, folder, content)
        build_site(source, folder, f"ecgstudy ({profile})", captions)
    write_text(folder / "summary.md", _templates().get_template("summary.md.j2").render(content))
    return folder / "index.html"


def _write_pages(source: Path, folder: Path, content: dict) -> dict[str, dict[str, str]]:
    """Write the pages' sources: front page, notebooks, glossary; return each page's CSV files by their captions."""
    import nbformat
    from nbformat.v4 import new_markdown_cell, new_notebook

    templates, captions = _templates(), {}
    for section in content["sections"]:
        if not section["finished"]:
            continue
        info = section["info"]
        executed = folder / info.name / f"{info.name}.ipynb"
        if executed.is_file():
            notebook = nbformat.read(executed, as_version=4)
        else:  # the stage was run by hand, in JupyterLab
            notebook = new_notebook(cells=[new_markdown_cell(f"# {info.title}")])
        card = next((card for card in content["findings"] if card["stage"] == info.name), None)
        short = templates.get_template("short.md.j2").render(section | {"card": card})
        nbformat.write(notebook_page(notebook, info, folder / info.name, short), source / f"{info.name}.ipynb")
        files = pd.Series({t["name"]: t["caption"] for t in section["tables"]}, dtype=str).drop_duplicates(keep=False)
        captions[info.name] = {caption: f"{info.name}/tables/{name}.csv" for name, caption in files.items()}
    pages = {"index.md": templates.get_template("index.md.j2").render(content), "glossary.md": glossary_page()}
    for name, text in pages.items():
        (source / name).write_text(text, encoding="utf-8")
    return captions | {"index": captions.get(SUMMARY, {})}


def _templates() -> Environment:
    """Templates of Markdown: texts are escaped, so that nothing in them is taken for markup."""
    shared = {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    return Environment(loader=FileSystemLoader(TEMPLATES), finalize=_escaped, **shared)


def _escaped(value: object) -> object:
    """Keep Markdown from taking characters of a text for its own; what is marked up (``| e``, ``| safe``) stays."""
    return value if isinstance(value, Markup) else Markup(re.sub(r"([\\`*_{}\[\]<>|#$~&])", r"\\\1", str(value)))


def _front(profile: str, sections: list[dict]) -> dict:
    """Gather what the front page says: answers to a steward, and of the summary's tables what is there."""
    answers = steward_answers(profile) if is_own(profile) else []
    summary = next((section for section in sections if section["info"].name == SUMMARY), {"finished": False})
    captions = {table["name"]: table["caption"] for table in summary["tables"]} if summary["finished"] else {}
    folder = results_dir(profile) / SUMMARY / "tables"
    tables = {name: pd.read_csv(folder / f"{name}.csv", dtype=str, keep_default_na=False) for name in captions}
    findings = tables["findings"].to_dict("records") if "findings" in tables else []
    for card in findings:
        card["drawn"] = json.loads(card["rows"])
        for row in card["drawn"]["rows"]:
            row["text"] = estimate_text(row | {"low": None})
    lead = QUESTION
    if findings and profile == "real":
        best = findings[0]
        sure = f" (95 % interval {best['interval']})" if best["interval"] else ""
        lead = f"{best['headline']}: {best['number']}{sure} {best['phrase']}; guessing: {best['chance']}."
    counts = [metric["value"] for name, metric in sections[0].get("metrics", {}).items() if name.endswith(".persons")]
    counts = [count for count in counts if count]
    return {
        "question": QUESTION,
        "profile": profile,
        "note": PROFILES[profile],
        "version": version("ecgstudy"),
        "sections": sections,
        "lead": lead,
        "answers": answers,
        "linked": any(answer["headline"] != UNKNOWN for answer in answers),
        "findings": findings,
        "not_found": tables["not_found"].to_numpy().tolist() if "not_found" in tables else [],
        "verdicts": summary["findings"][0] if captions else "",
        "people": f"{sum(counts):,.0f} people in {len(counts)} cohort{'s' * (len(counts) > 1)}. " if counts else "",
        "pages": {
            name: Markup(table_html(tables[name], captions[name])) if len(tables.get(name, ())) else ""
            for name in SHOWN
        },
    }


def _section(profile: str, info: StageInfo) -> dict:
    """Gather what the page shows of one stage; a stage without results says so."""
    try:
        content = read_metrics(profile, info.name)
        story = json.loads((results_dir(profile) / info.name / STORY).read_text(encoding="utf-8"))
    except (StudyError, OSError, json.JSONDecodeError):
        return {"info": info, "finished": False}
    metrics, about = content["metrics"], content["provenance"]
    headlines = []
    for line in story["headlines"]:
        name = line["metric"]
        metric = as_shown(name, metrics[name])
        told = {"text": estimate_text(metric), "n": observations_text(name, metric)}
        headlines.append(line | metric | told | {"label": prose_in_words(line["label"])})
    made = f"commit {commit_text(about['commit'])}, seed {about['seed']}, {about['device']}, {about['seconds']:.0f} s"
    if "artefact_commits" in about:
        made += f"; rests on artefacts of commits {', '.join(map(commit_text, about['artefact_commits']))}"
    told = {"headlines": headlines, "findings": [prose_in_words(text) for text in story["findings"]]}
    return story | told | {"info": info, "finished": True, "made": made, "metrics": metrics}


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
        f"Somebody who holds one earlier ECG of each of {enrolled['value']:,.0f} patients and gets another ECG "
        f"of one of {persons['value']:,.0f} of them ({LINKING[protocol]}"
        + (f", {estimate_text(seconds)} long" if seconds else "")
        + f") names the right patient in {estimate_text(rank1)} of the cases; guessing would in "
        f"{number_text(1 / enrolled['value'], 'share')} %."
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
        told = "all" if worst["value"] == 1 else f"{number_text(worst['value'], 'share')} % or more"
        sentences.append(
            f"{number_text(always['value'], 'share')} % of the patients are recognised every time; the worst-off tenth "
            f"are told from others in {told} of the comparisons."
        )
    share = number_text(rank1["value"], "share")
    return {"cohort": cohort, "headline": f"{share} % of later ECGs can be linked", "text": " ".join(sentences)}
