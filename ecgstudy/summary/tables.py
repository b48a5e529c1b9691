"""The tables of the summary: lists that stand beside this file, filled with the numbers of the stages."""

import json
from pathlib import Path

import pandas as pd

from ecgstudy.data.cohorts import REGISTRY
from ecgstudy.evaluate.results import result, results_table
from ecgstudy.study.config import STAGES, SUMMARY, is_own
from ecgstudy.study.words import commit_text, estimate_text, interval_text
from ecgstudy.summary.evidence import FILLED, Evidence, bound

MISSING, LEAKY, NOT, BARE = "missing", "holds only under a leaky split", "not reproduced", "shown without an interval"
UNJUDGED = "cannot be judged here"
VERDICTS = ("reproduced", "exceeded", LEAKY, NOT, BARE, UNJUDGED)
VERDICTS += ("not testable on public data", "not tested here", MISSING)
SYNTHETIC = "no verdict: synthetic"
MEANING = {"reproduced": "reproduced (ours agrees within its interval)"}
CLAIM_COLUMNS = ["claim", "verdict", "published", "honest", "leaky", "chance", "what differs", "paper"]
HONEST = ("cross_day", "cross_record", "time_separated", "cross_activity", "cross_electrode")
"""Protocols of the risk card, the strongest claim first."""
RISK_CARD = {
    "persons": "{v:02:*.best.persons}",
    "gallery": "{v:02:*.best.enrolled}",
    "named right": "{02:*.best.rank1}",
    "chance": "{v:1/02:*.best.enrolled}",
    "without training": "{02:*.template.rank1}",
    "named every time": "{v:02:*.best.always_first}",
    "EER": "{02:*.best.eer}",
}


def listed(name: str) -> pd.DataFrame:
    """One of the lists beside this file, texts only."""
    return pd.read_csv(Path(__file__).with_name(f"{name}.csv"), dtype=str, keep_default_na=False)


def claims_table(evidence: Evidence) -> pd.DataFrame:
    """Every claim of the papers: their number, ours under a leaky and under an honest split, chance and verdict.

    Records of one's own judge no paper: the table is empty.
    """
    rows: list[dict[str, str]] = []
    for claim in [] if is_own(evidence.profile) else listed("claims").to_dict("records"):
        published, unit = float(claim["published"]), "share" if claim["unit"] == "%" else ""
        found = [evidence.find(claim[side]) for side in ("leaky", "honest", "chance")]
        said = claim["answer"] or verdict(published, claim["better"] == "high", *found)
        if evidence.profile == "demo" and not claim["answer"] and said != MISSING:
            said = SYNTHETIC
        rows.append(
            {
                "claim": claim["claim"],
                "verdict": said,
                "published": estimate_text({"value": published, "low": None, "unit": unit}),
                "honest": evidence.told(claim["honest"]),
                "leaky": evidence.told(claim["leaky"]),
                "chance": evidence.value(claim["chance"]),
                "what differs": evidence.fill(claim["differs"]),
                "paper": claim["paper"],
            }
        )
    judged = [row for row in rows if row["verdict"] in VERDICTS[:4]]
    return pd.DataFrame(judged + [row for row in rows if row not in judged], columns=CLAIM_COLUMNS)


def verdict(published: float, high_is_good: bool, leaky: dict, honest: dict, chance: dict) -> str:
    """Judge a claim by the interval of the honest number, and by the leaky one where that alone reaches it.

    A number that is not beyond chance reproduces nothing, whatever was published; one without an interval judges none,
    nor does one that was asked for and is undefined.
    """
    if honest["value"] is None:
        return UNJUDGED if honest["note"] and not honest["note"].startswith(MISSING) else MISSING
    if honest["low"] is None:
        return BARE
    sign = 1 if high_is_good else -1

    def reach(number: dict) -> tuple[float, float]:
        """Both ends of a number's interval, the worse first, where more is better."""
        worst, best = sorted(sign * bound(number, end) for end in ("low", "high"))
        return worst, best

    def lucky(worst: float) -> bool:
        """Whether guessing is not beaten."""
        return high_is_good and chance["value"] is not None and worst <= bound(chance, "high")

    worst, best = reach(honest)
    if best >= sign * published:
        return NOT if lucky(worst) else "exceeded" if worst > sign * published else "reproduced"
    if leaky["value"] is None or best >= sign * leaky["value"]:
        return NOT
    leaky_worst, leaky_best = reach(leaky)
    return LEAKY if leaky_best >= sign * published and not lucky(leaky_worst) else NOT


def verdict_results(claims: pd.DataFrame) -> pd.DataFrame:
    """How many claims have which verdict, as rows of the results table."""
    counts = claims["verdict"].value_counts()
    rows = [
        result(said.replace(" ", "_"), int(counts.get(said, 0)), "comparisons", n=len(claims), task="claims")
        for said in VERDICTS
    ]
    return results_table(rows)


def verdict_finding(claims: pd.DataFrame) -> str:
    """One sentence: how many comparisons with how many published numbers have which verdict."""
    counts = claims["verdict"].value_counts()
    said = [
        f"{counts[verdict]} {MEANING.get(verdict, verdict)}" for verdict in (*VERDICTS, SYNTHETIC) if verdict in counts
    ]
    if not said:
        return "No paper is judged by own records."
    return f"Of {len(claims)} comparisons with {published_numbers()} published numbers: {', '.join(said)}."


def published_numbers() -> int:
    """How many numbers the papers state: some stand beside several of ours, under the name in the column number."""
    rows = listed("claims")
    return len(
        rows.assign(number=rows["number"].where(rows["number"] != "", rows["claim"])).groupby(["paper", "number"])
    )


def findings_table(evidence: Evidence) -> pd.DataFrame:
    """One row a stage: a headline that its rule chooses, the number it rests on, chance, and how sure it is.

    A finding whose numbers are missing is left out; `rows` holds what its figure draws, as JSON.
    """
    rows = []
    for card in listed("cards").to_dict("records"):
        holds = evidence.holds(card["rule"])
        if holds is None or evidence.find(card["metric"])["value"] is None:
            continue
        drawn = [
            {"label": evidence.fill(label)} | evidence.find(names)
            for label, _, names in (row.partition("=") for row in card["rows"].split("|"))
        ]
        drawn = [row for row in drawn if row["value"] is not None]
        rows.append(
            {
                "stage": card["stage"],
                "headline": card["headline"] if holds else card["otherwise"],
                "number": evidence.value(card["metric"]),
                "interval": interval_text(evidence.find(card["metric"])),
                "phrase": evidence.fill(card["phrase"]),
                "chance": evidence.value(card["chance"]),
                "sure": evidence.fill(card["sure"]),
                "rows": json.dumps({"rows": drawn, "chance": evidence.find(card["chance"])["value"]}),
            }
        )
    return pd.DataFrame(rows, columns=["stage", "headline", "number", "interval", "phrase", "chance", "sure", "rows"])


def nulls_table(evidence: Evidence) -> pd.DataFrame:
    """List what was looked for and not found: whatever its rule does not show beyond its interval."""
    rows = listed("nulls")
    held = [evidence.holds(rule) is False for rule in rows.pop("rule")]
    return rows[held].map(evidence.fill)


def risks_table(evidence: Evidence) -> pd.DataFrame:
    """Release situation by attacker: the measured risk, what guessing gives, and what was not tested."""
    rows = listed("risks")
    measured = [evidence.find(FILLED.match(risk)[2])["value"] is not None for risk in rows["risk"]]
    return rows[measured].map(evidence.fill)


def risk_cards(evidence: Evidence) -> pd.DataFrame:
    """One row a cohort and protocol that holds: who is named, among how many, and how unequal that is."""
    metrics = evidence.stages.get("02", {"metrics": {}})["metrics"]
    rows = []
    for cohort in dict.fromkeys(name.split(".")[0] for name in metrics):
        for protocol in HONEST:
            if evidence.find(f"02:{cohort}.{protocol}.best.rank1")["value"] is not None:
                told = {of: evidence.fill(text.replace("*", f"{cohort}.{protocol}")) for of, text in RISK_CARD.items()}
                rows.append({"cohort": cohort, "protocol": protocol} | told)
    return pd.DataFrame(rows, columns=["cohort", "protocol", *RISK_CARD])


def data_cards(evidence: Evidence) -> pd.DataFrame:
    """One row a cohort of stage 01: people, records, version, licence and DOI."""
    metrics = evidence.stages.get("01", {"metrics": {}})["metrics"]
    rows = []
    for cohort in [name.split(".")[0] for name in metrics if name.endswith(".persons")]:
        kind = REGISTRY.get(cohort)
        counts = {what: evidence.value(f"01:{cohort}.{what}") for what in ("persons", "records", "minutes")}
        about = {"version": kind.version, "licence": kind.licence, "DOI": kind.doi} if kind else {}
        rows.append({"cohort": cohort, **counts, **about})
    return pd.DataFrame(rows, columns=["cohort", "persons", "records", "minutes", "version", "licence", "DOI"])


def model_cards(evidence: Evidence) -> pd.DataFrame:
    """One row a model: what it reads and learns, what it is for and not for, and one number of it."""
    return listed("models").map(evidence.fill)


def checklist(evidence: Evidence, kind: str) -> pd.DataFrame:
    """One of the checklists, "REFORMS" or "biometric", its answers filled from the stages' manifests."""
    about = [content["provenance"] for content in evidence.stages.values()]
    versions = {name: text for made in about for name, text in made["versions"].items()}
    manifest = {
        "{commits}": ", ".join(sorted({made["commit"][:10] for made in about})),
        "{versions}": ", ".join(f"{name} {text}" for name, text in sorted(versions.items())),
        "{seed}": ", ".join(sorted({str(made["seed"]) for made in about})),
    }
    rows = listed("checklists").rename(columns={"list": "point"})
    for name, text in manifest.items():
        rows["answer"] = rows["answer"].str.replace(name, text or MISSING, regex=False)
    return rows[rows["point"].str.startswith(kind)].map(evidence.fill)


def costs_table(evidence: Evidence) -> pd.DataFrame:
    """One row a stage: time, memory of all its processes, machine and commit of the run, or that it is missing.

    "made by" names the commits whose work the run found in the cache; a run says nothing of what its own commit made.
    """
    infos = [info for info in STAGES if info.name != SUMMARY]
    about = [evidence.stages.get(info.name[:2], {}).get("provenance", {}) for info in infos]
    times = [made.get("seconds") for made in about]
    memory = [made.get("memory_gb") for made in about]
    return pd.DataFrame(
        {
            "stage": [info.title for info in infos],
            "time": ["" if s is None else f"{s:.0f} s" if s < 120 else f"{s / 60:.0f} min" for s in times],
            "memory": ["" if gb is None else f"{gb:g} GB" for gb in memory],
            "cores": [made.get("cores") for made in about],
            "device": [made.get("device", "") for made in about],
            "commit": [commit_text(made.get("commit", MISSING)) for made in about],
            "made by": [_made_by(made) for made in about],
        }
    )


def _made_by(made: dict) -> str:
    """Say whose cache a run found, from its provenance; "" where the stage is missing."""
    if "artefact_commits" in made:
        return f"cache of {', '.join(map(commit_text, made['artefact_commits']))}"
    return "cold, or cache of this commit" if made else ""
