"""Which attribution methods can be believed: the verdict on planted truth, and all audits side by side."""

from collections.abc import Iterable, Mapping

import numpy as np
import pandas as pd

from ecgstudy.attribution.methods import METHODS
from ecgstudy.attribution.planted import PLANTED_WAVES

LEAST_MASS = 0.80
"""Share of its mass that a method has to put in the planted wave."""
LEAST_HIGHEST = 0.95
"""Or else the share of windows in which the planted wave has to have the highest enrichment."""
MAIN_NETWORKS = ("resnet1d", "transecg")
"""A method's figures are those of the first network that it applies to."""
COLUMNS = (
    "method",
    "model",
    "planted",
    "planted_wave",
    "highest",
    "pointing",
    "randomised_correlation",
    "permuted",
    "deletion_gap",
    "insertion_gap",
    "causal",
    "trusted",
    "reason",
    "elsewhere",
)
CONTROL = "a control: it cannot know the network"


def verdicts(planted: pd.DataFrame) -> pd.DataFrame:
    """Judge every method on every network it was audited on.

    A method is trusted where, for every planted wave, it puts :data:`LEAST_MASS` of its mass in that wave or that
    wave has the highest enrichment in :data:`LEAST_HIGHEST` of the windows. Controls are never trusted.

    Parameters
    ----------
    planted : pandas.DataFrame
        From :func:`ecgstudy.attribution.localisation.audit_planted`.

    Returns
    -------
    pandas.DataFrame
        One row a method and network: method, model, applies, planted (lowest mass over the waves), planted_wave
        (where), highest and pointing (lowest over the waves), passes (both hold for controls too, which shows
        whether the test can be passed without knowing), trusted, reason (why not, else None).
    """
    rows = []
    for (model, method), group in planted.groupby(["model", "method"], sort=False):
        by_wave = group.set_index("wave").reindex(PLANTED_WAVES)
        applies = bool(group["applies"].all())
        failures = [why for wave, row in by_wave.iterrows() if (why := _failure(str(wave), row))]
        if not applies:
            failures = [str(group["reason"].iloc[0])]
        control = bool(group["control"].iloc[0])
        mass = by_wave["mass_in_wave"]
        known = bool(mass.notna().all())
        row = {
            "method": method,
            "model": model,
            "applies": applies,
            "planted": mass.min() if known else np.nan,
            "planted_wave": mass.idxmin() if known else None,
            "highest": by_wave["highest"].min() if known else np.nan,
            "pointing": by_wave["pointing"].min() if known else np.nan,
            "passes": not failures,
            "trusted": not failures and not control,
            "reason": CONTROL if control else "; ".join(failures) or None,
        }
        rows.append(row)
    return pd.DataFrame(rows)


def _failure(wave: str, row: pd.Series) -> str | None:
    """Why a method fails on one planted wave; None where it passes."""
    if pd.isna(row["mass_in_wave"]):
        return f"{wave}: {row['reason'] if isinstance(row['reason'], str) else 'not audited'}"
    if row["mass_in_wave"] >= LEAST_MASS or row["highest"] >= LEAST_HIGHEST:
        return None
    return f"{wave}: mass {row['mass_in_wave']:.2f}, highest enrichment in {row['highest']:.0%} of windows"


def scoreboard(
    planted: pd.DataFrame,
    sanity: pd.DataFrame,
    faithfulness: pd.DataFrame,
    causal: Mapping[str, float],
    methods: Iterable[str] = tuple(METHODS),
) -> pd.DataFrame:
    """Lay all audits of every method side by side.

    Parameters
    ----------
    planted : pandas.DataFrame
        From :func:`ecgstudy.attribution.localisation.audit_planted`.
    sanity : pandas.DataFrame
        From :func:`ecgstudy.attribution.sanity.randomised_correlation`.
    faithfulness : pandas.DataFrame
        ``Faithfulness.table``, of one network or several.
    causal : mapping of str to float
        Rank correlation of each method's shares with the causal effects.
    methods : iterable of str
        Rows, in this order.

    Returns
    -------
    pandas.DataFrame
        One row a method: method, model (the first of :data:`MAIN_NETWORKS` it applies to), planted, planted_wave,
        highest and pointing (see :func:`verdicts`), randomised_correlation, permuted, deletion_gap and insertion_gap
        (lowest over the infills), causal, trusted, reason (why not), elsewhere (what the other network says: trusted,
        or why not). What was not measured is NaN.
    """
    verdict = verdicts(planted)
    columns = ["planted", "planted_wave", "highest", "pointing", "trusted", "reason"]
    rows = []
    for method in methods:
        of_method = verdict[verdict["method"] == method].set_index("model")
        model = next((m for m in MAIN_NETWORKS if m in of_method.index and of_method.loc[m, "applies"]), None)
        row: dict[str, object] = {"method": method, "model": model}
        if model is None:
            reasons = of_method["reason"].dropna().unique()
            rows.append(row | {"trusted": False, "reason": "; ".join(reasons) or "not audited"})
            continue
        row |= of_method.loc[model, columns].to_dict()
        row |= _lowest(sanity, method, model, ("randomised_correlation", "permuted"))
        row |= _lowest(faithfulness, method, model, ("deletion_gap", "insertion_gap"))
        row["causal"] = causal.get(method, np.nan)
        others = of_method.drop(index=model)
        row["elsewhere"] = "; ".join(_elsewhere(str(name), other) for name, other in others.iterrows()) or None
        rows.append(row)
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _lowest(table: pd.DataFrame, method: str, model: str, names: tuple[str, ...]) -> dict[str, float]:
    """Lowest value of columns over the rows of a method and network; NaN where there is none."""
    mine = table[(table["method"] == method) & (table["model"] == model)]
    return {name: float(mine[name].min()) for name in names}


def _elsewhere(model: str, row: pd.Series) -> str:
    """Say in a clause what the verdict on another network is."""
    return f"{model}: {'trusted' if row['trusted'] else row['reason']}"


def trusted_methods(board: pd.DataFrame) -> list[str]:
    """Names of the methods that the study's conclusions may rest on."""
    return board.loc[board["trusted"].astype(bool), "method"].tolist()
