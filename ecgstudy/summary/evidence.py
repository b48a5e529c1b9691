"""The numbers of the stages that are finished, by name, and sentences and rules that stand on them."""

import operator
import re
from dataclasses import dataclass
from functools import cached_property

from ecgstudy.errors import StudyError
from ecgstudy.study.config import STAGES, is_own
from ecgstudy.study.stage import read_metrics
from ecgstudy.study.words import as_shown, estimate_text

PUBLIC = re.compile(r"\b(ecgid|ludb|mitdb|motion|ptbxl)\b")
"""Cohorts that the lists of this stage name; other profiles ask the same of their own."""
FILLED = re.compile(r"\{(v:)?([^{}]+)\}")
COUNTS_POSITIVES, FEWEST_POSITIVES = "n counts positives.", 5
"""Note of a diagnosis' AUROC, whose n is of positives; of fewer than so many it says nothing."""
_BLANK = {"value": None, "low": None, "high": None, "n": None, "unit": "", "note": ""}


@dataclass(frozen=True)
class Evidence:
    """Numbers of a profile's finished stages; a name is the stage's number and the metric's, "02:ecgid.persons".

    A name may also be a number ("0.5", "10%"), "n:" before a name (how many observations its number rests on), or "1/"
    before a name (the reciprocal); of several names, with spaces between, the first defined number counts.
    """

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
        """Find a number as a metric; its value is None, with a reason, where there is none."""
        found = [self._one(name) for name in names.split()] or [_BLANK]
        return next((metric for metric in found if metric["value"] is not None), found[-1])

    def _one(self, name: str) -> dict:
        """One number by one name."""
        if name.startswith("1/"):
            of = self._one(name[2:])
            return _BLANK | (
                {"value": 1 / of["value"], "unit": "share"} if of["value"] else {"note": of.get("note", "")}
            )
        if name.startswith("n:"):
            of = self._one(name[2:])
            return _BLANK | {"value": of["n"], "note": of.get("note", "")}
        if ":" not in name:
            return _BLANK | (
                {"value": float(name[:-1]) / 100, "unit": "share"} if "%" in name else {"value": float(name)}
            )
        stage, metric = name.split(":")
        stand_in = "own-1" if is_own(self.profile) else "synthetic" if self.profile == "demo" else r"\1"
        metric = PUBLIC.sub(stand_in, metric)
        if stage not in self.stages:
            return _BLANK | {"note": f"missing: stage {stage} has not been run to its end"}
        found = self.stages[stage]["metrics"].get(metric, _BLANK | {"note": "missing: not measured"})
        if found.get("note") == COUNTS_POSITIVES and found["n"] < FEWEST_POSITIVES:
            found = found | {"value": None, "note": f"undefined: {found['n']} positives are too few"}
        return as_shown(metric, found)

    def told(self, names: str) -> str:
        """Put a number with its interval into words, or the reason why there is none."""
        return estimate_text(self.find(names), interval="")

    def value(self, names: str) -> str:
        """Put a number into words without its interval."""
        return estimate_text(self.find(names) | {"low": None})

    def fill(self, text: str) -> str:
        """Replace every ``{name}`` by its number in words, and ``{v:name}`` by that without its interval."""
        return FILLED.sub(lambda found: self.value(found[2]) if found[1] else self.told(found[2]), text)

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
