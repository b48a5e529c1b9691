"""The numbers of the stages that are finished, by name, and sentences and rules that stand on them."""

import operator
import re
from dataclasses import dataclass
from functools import cached_property

from ecgstudy.errors import StudyError
from ecgstudy.study.config import STAGES, is_own
from ecgstudy.study.stage import read_metrics
from ecgstudy.study.words import estimate_text, exact, interval_text, number_text

PUBLIC = re.compile(r"\b(ecgid|ludb|mitdb|motion|ptbxl)\b")
"""Cohorts that the lists of this stage name; other profiles ask the same of their own."""
NAMED = re.compile(r"\{(n:)?(\d\d:[^}]+)\}")


@dataclass(frozen=True)
class Evidence:
    """Numbers of a profile's finished stages; a name is the stage's number and the metric's, "02:ecgid.persons"."""

    profile: str

    @cached_property
    def stages(self) -> dict[str, dict]:
        """Content of ``metrics.json`` by the number of the stage; one that is not whole is not there."""
        found = {}
        for info in STAGES:
            try:
                found[info.name[:2]] = read_metrics(self.profile, info.name)
            except StudyError:
                continue
        return found

    def find(self, names: str) -> dict:
        """Find the first defined number of several names, as a metric; its value is None, with a reason, where none is.

        A name may be a number ("0.5", "10%"), or "1/" before a name: the reciprocal.
        """
        reasons = [""]
        for name in names.split():
            found = self._one(name)
            if found["value"] is not None:
                return found
            reasons.append(found["note"])
        return {"value": None, "low": None, "high": None, "n": None, "unit": "", "note": reasons[-1]}

    def _one(self, name: str) -> dict:
        """One number by one name."""
        blank = {"value": None, "low": None, "high": None, "n": None, "unit": "share", "note": ""}
        if name.startswith("1/"):
            of = self._one(name[2:])
            return blank | {"value": of["value"] and 1 / of["value"], "note": of.get("note", "")}
        if ":" not in name:
            share = name.endswith("%")
            return blank | {"value": float(name.strip("%")) / (100 if share else 1), "unit": "share" if share else ""}
        stage, metric = name.split(":")
        stand_in = "own-1" if is_own(self.profile) else "synthetic" if self.profile == "demo" else r"\1"
        metric = PUBLIC.sub(stand_in, metric)
        if stage not in self.stages:
            return blank | {"note": f"missing: stage {stage} has not been run to its end"}
        found = self.stages[stage]["metrics"].get(metric, blank | {"note": "missing: not measured"})
        if "auroc" in metric.rpartition(".")[2]:
            found = found | {"unit": ""}
        elif ".share." in metric or "mass_in" in metric:
            found = found | {"unit": "share"}
        return exact(metric, found)

    def told(self, names: str) -> str:
        """Put a number with its interval into words, or the reason why there is none."""
        return estimate_text(self.find(names), interval="")

    def card(self, names: str) -> tuple[str, str]:
        """Value of a number, in words, and its interval ("" where it has none)."""
        found = self.find(names)
        return estimate_text(found | {"low": None}), interval_text(found)

    def fill(self, text: str) -> str:
        """Replace every ``{name}`` by its number in words, and ``{n:name}`` by how many observations it rests on."""

        def words(match: re.Match) -> str:
            found = self.find(match[2])
            return str(found["n"]) if match[1] else estimate_text(found, interval="")

        return NAMED.sub(words, text)

    def holds(self, rule: str) -> bool | None:
        """Whether "a > b" or "a < b" holds beyond both intervals; None where a number is missing."""
        left, sign, right = rule.split(" ")
        ends = {"<": ("high", "low", operator.lt), ">": ("low", "high", operator.gt)}
        end, other, beyond = ends[sign]
        one, two = self.find(left), self.find(right)
        if one["value"] is None or two["value"] is None:
            return None
        return beyond(bound(one, end), bound(two, other))


def bound(metric: dict, end: str) -> float:
    """Give a bound of a number's interval; the number itself where it has none."""
    return metric["value"] if metric[end] is None else metric[end]


def share_text(value: float, unit: str) -> str:
    """Write a published number as ours are written."""
    return f"{number_text(100 * value)} %" if unit == "%" else number_text(value)
