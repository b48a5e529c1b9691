"""The audits on people: every method on the networks that recognise people in another recording.

Sanity (Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018): an explanation that hardly changes when the
network's weights are replaced by random ones shows the window and not the network. Explanations are compared by
Spearman's rank correlation of their magnitudes, window by window.

Faithfulness: does the network lose the class when what is said to matter is taken away? Deletion and insertion follow
Petsiuk et al., "RISE", BMVC 2018. Single samples cannot be taken away without leaving the jagged signals that no
network has seen, so windows are taken apart in chunks of :data:`CHUNK_S`, and a chunk is filled from a whole, plausible
ECG: the cohort's mean beat or another person's, stretched to the window's own beats. Such curves still depend on the
infill, so that of a random order stands beside each, and the methods' order is compared between infills.

Infidelity and sensitivity are Captum's (Yeh et al., "On the (In)fidelity and Sensitivity of Explanations", NeurIPS
2019). Both depend on how windows are perturbed, so they stand beside the controls and at several scales, and no
verdict of the study rests on them.

To add an audit, register a function in :data:`AUDITS`.
"""

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import torch
from captum.metrics import infidelity, sensitivity_max
from pytorch_lightning.utilities.seed import isolate_rng
from torch import Tensor, nn

from ecgstudy.attribution import shares
from ecgstudy.attribution.cases import AUDITED_WINDOWS, Case, Part, audited_jobs, case_windows, evenly
from ecgstudy.attribution.causal import agreement_table, effect_table, wave_effects
from ecgstudy.attribution.methods import Method, Question, applicable, attribute, relevance, relevances
from ecgstudy.attribution.waves import MEAN_BEAT, Windows
from ecgstudy.errors import NotApplicableError, StudyError
from ecgstudy.evaluate.bootstrap import Resamples, clustered_means, ratio
from ecgstudy.evaluate.protocols import some_on_trial
from ecgstudy.evaluate.results import intervals
from ecgstudy.evaluate.splits import SUBJECT
from ecgstudy.experiment.jobs import Context, Job, Outcome, run
from ecgstudy.learn.base import PERSON, SignalModel, class_probabilities
from ecgstudy.learn.models import create_model
from ecgstudy.study.config import effort

ROBUST_WINDOWS = {"real": 24, "demo": 4}
"""Windows for infidelity and sensitivity, which ask every method many times."""
N_PARTS = 4
"""Parts in which a network is randomised from the head down; every one is an explanation of all windows to pay."""
CASCADING, INDEPENDENT, UNTRAINED = "cascading", "independent", "untrained"
CONSTANT = "the method gives every sample the same relevance, or none, in one of the two networks"
CHUNK_S = 0.05
"""Seconds that are taken away at once: half a P wave or QRS complex."""
FRACTIONS = np.linspace(0.0, 1.0, 11)
"""Shares of the window taken away (or put in), at which the probability is computed."""
RANDOM_ORDERS = 4
"""Random orders whose mean curve the methods are compared with."""
KINDS = ("deletion", "insertion")
RANDOM_ORDER = "random order"
NOISE_SD = (0.05, 0.2, 0.5)
"""Noise, in standard deviations of a window, that takes the place of what is removed."""
REMOVED = 0.2
N_PERTURBATIONS = 16
RADIUS = 0.02
"""Largest change of a sample, in standard deviations of a window, under which an explanation should stay the same."""
N_NEIGHBOURS = 4
Tables = dict[str, pd.DataFrame]
Measure = Callable[[Method, np.ndarray], shares.Values]
"""From a method and its attribution of windows to numbers of each window."""


def audit_people(context: Context, seed: int) -> tuple[Tables, Outcome]:
    """Audit all methods on the networks that recognise people across recordings, on all processor cores.

    Tables of :data:`AUDITS`, those of all networks joined, and the outcome with their commits. ``StudyError`` where no
    cohort has several records a person, or nobody is recognised.
    """
    parts = [Part(jobs, name) for jobs in audited_jobs(context, seed) for name in AUDITS]
    outcome = run(audit, parts, context, "audits on people")
    if len(outcome.refusals):
        raise NotApplicableError(outcome.refusals["reason"].iloc[0])
    joined: dict[str, list[pd.DataFrame]] = {}
    for part in parts:
        for name, table in outcome.values[part.name].items():
            known = "model" in table
            joined.setdefault(name, []).append(table if known else table.assign(model=part.jobs[0].attacker))
    return {name: pd.concat(tables, ignore_index=True) for name, tables in joined.items()}, outcome


def audit(context: Context, part: Part) -> Tables:
    """One audit of one network, its tables by name."""
    first = part.jobs[0]
    windows = recognised(case_windows(context, first, PERSON, 1), first, AUDITED_WINDOWS[effort(context.profile)])
    split = some_on_trial(context.splits(first)[0])
    everyone = np.concatenate([split.enrolment[SUBJECT], split.probe[SUBJECT]])
    return AUDITS[part.part](context, part.jobs, windows, Resamples.draw(everyone, first.seed))


def recognised(case: Case, job: Job, most: int) -> Windows:
    """Keep windows whose person the network names, at most so many, evenly spread over them."""
    rows = np.flatnonzero(case.recognised)
    if np.unique(case.windows.persons[rows]).size < 2:
        raise StudyError(f"{job.name} names the person of too few windows for its explanations to be audited.")
    return case.windows.subset(rows[evenly(rows.size, most)])


def each_method(
    question: Question, measure: Measure, names: Sequence[str], resamples: Resamples, if_undefined: str
) -> pd.DataFrame:
    """Mean of what `measure` tells about every method's attribution of the windows, by the parts of its keys.

    One row a method and key: method, model, control, parts of the key and mean as `names` call them, the mean with
    ``_low`` and ``_high``, persons, reason (why it is NaN, else None).
    """
    tables = []
    for method in applicable(question.model):
        about = (method.name, question.model.name, method.control)
        values = {(*about, *key): told for key, told in measure(method, attribute(method, question)).items()}
        columns = ("method", "model", "control", *names)
        tables.append(shares.mean_rows(values, columns, question.windows.persons, resamples, if_undefined))
    return pd.concat(tables, ignore_index=True)


def randomisation_table(question: Question, resamples: Resamples) -> pd.DataFrame:
    """Rank correlation of every method's explanation with that of networks that know less (:func:`each_method`).

    By kind ("cascading": this part and all above it random; "independent": this part alone; "untrained": a network with
    other fresh weights, the level that the cascade should fall to) and part (0 is the head; the last of the cascade is
    the whole network; NaN where the kind has none).
    """
    others = {key: replace(question, model=model) for key, model in less_knowing(question).items()}

    def correlations(method: Method, attribution: np.ndarray) -> dict[tuple[str, float], np.ndarray]:
        own = relevance(method, attribution)
        if method.control:  # does not read the network
            return dict.fromkeys(others, shares.rank_correlation(own, own))
        return {
            key: shares.rank_correlation(own, relevance(method, attribute(method, other)))
            for key, other in others.items()
        }

    return each_method(question, correlations, ("kind", "part", "correlation"), resamples, CONSTANT)


def less_knowing(question: Question) -> dict[tuple[str, float], SignalModel]:
    """Networks that know less than the question's, by kind and part of :func:`randomisation_table`."""
    model, parts = question.model, parts_from_head(question.model)
    random, other = (int(s) for s in np.random.SeedSequence((question.windows.seed, 2)).generate_state(2))
    networks, above = {}, []
    for at, part in enumerate(parts):
        above = above + part
        networks[CASCADING, float(at)] = randomised(model, above, random)
        networks[INDEPENDENT, float(at)] = randomised(model, part, random)
    networks[UNTRAINED, np.nan] = randomised(model, model.state_dict(), other)
    return networks


def parts_from_head(model: SignalModel) -> list[list[str]]:
    """Names of the weights and buffers of :data:`N_PARTS` parts of a network, about equally many layers each.

    Layers are the network's own modules, those registered last first; a list of composite modules (stages, blocks)
    counts as several. Weights that belong to no module are part of the first layer.
    """
    layers: list[str] = []
    for name, child in model.named_children():
        several = isinstance(child, nn.Sequential | nn.ModuleList) and all(len(list(m.children())) for m in child)
        layers += [f"{name}.{at}." for at in range(len(child))] if several else [f"{name}."]
    owned = {layer: [] for layer in reversed(layers)}
    for name in model.state_dict():
        owned[next((layer for layer in layers if name.startswith(layer)), layers[0])].append(name)
    cut = np.array_split(list(owned), min(N_PARTS, len(owned)))
    return [[name for layer in part for name in owned[layer]] for part in cut]


def randomised(model: SignalModel, names: Iterable[str], seed: int) -> SignalModel:
    """Copy a network with the weights called `names` drawn anew, as its constructor draws them."""
    fresh = create_model(model.name, seed, **model.hparams).state_dict()
    changed = copy.deepcopy(model).eval()
    changed.load_state_dict({**changed.state_dict(), **{name: fresh[name] for name in names}})
    return changed


def robustness_table(question: Question, resamples: Resamples) -> pd.DataFrame:
    """Infidelity at every scale, and the greatest change of the explanation under a small change of the window.

    By measure and scale (noise or radius); lower is better (:func:`each_method`).
    """

    def measures(method: Method, attribution: np.ndarray) -> dict[tuple[str, float], np.ndarray]:
        values = {("infidelity", scale): infidelities(attribution, question, scale) for scale in NOISE_SD}
        return values | {("sensitivity", RADIUS): sensitivities(method, question, attribution)}

    table = each_method(question, measures, ("measure", "scale", "value"), resamples, shares.NO_RELEVANCE)
    return table.drop(columns="persons")


def infidelities(attribution: np.ndarray, question: Question, noise: float) -> np.ndarray:
    """Squared error of an attribution's promise of what the logit loses with a part of the window, shape (n,).

    Chunks of :data:`CHUNK_S` that make up :data:`REMOVED` of the window on average are replaced by noise; the
    attribution of the removed samples is compared with the logit's loss, after the best common factor per window
    (Captum's ``normalize``), as attributions come in units of their own. NaN where the attribution is undefined.
    """
    promised = torch.from_numpy(attribution)[:, None]
    length = chunk_length(question)

    def perturb(x: Tensor) -> tuple[Tensor, Tensor]:
        n_chunks = -(-x.shape[-1] // length)
        removed = (torch.rand(len(x), 1, n_chunks) < REMOVED).repeat_interleave(length, dim=2)[..., : x.shape[-1]]
        removed = removed.to(x.device)
        return removed.float(), torch.where(removed, noise * torch.randn_like(x), x)

    answer = np.empty(len(question.windows))
    with isolate_rng(), torch.no_grad():
        torch.manual_seed(question.windows.seed)
        for rows, x, target, _ in question.chunks():
            batches = {"n_perturb_samples": N_PERTURBATIONS, "max_examples_per_batch": 4 * len(x)}
            own = promised[rows].to(x.device)
            found = infidelity(question.logits, perturb, x, own, target=target, normalize=True, **batches)
            answer[rows] = found.cpu()
    return np.where(np.isfinite(attribution).all(axis=1), answer, np.nan)


def sensitivities(method: Method, question: Question, attribution: np.ndarray) -> np.ndarray:
    """Greatest relative change of an explanation under changes of the window of at most :data:`RADIUS`, shape (n,)."""
    windows, mean_beats = question.windows, question.mean_beats

    def explain(x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        samples = x[0].detach().cpu().numpy()
        if np.array_equal(samples, windows.samples):
            return (torch.from_numpy(attribution)[:, None],)
        rows = np.repeat(np.arange(len(windows)), len(samples) // len(windows))
        changed = replace(windows.subset(rows), samples=samples)
        mean = None if mean_beats is None else mean_beats[rows]
        return (torch.from_numpy(attribute(method, Question(question.model, question.task, changed, mean)))[:, None],)

    perturbed = {"perturb_radius": RADIUS, "n_perturb_samples": N_NEIGHBOURS}
    with isolate_rng():
        torch.manual_seed(windows.seed)
        change = sensitivity_max(explain, torch.from_numpy(windows.samples), **perturbed)
    return change.double().numpy()


def chunk_length(question: Question) -> int:
    """Give the samples that are taken away at once."""
    return max(1, round(CHUNK_S * question.windows.fs))


def chunk_ranks(relevances: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """Rank of each sample's chunk (of `length` samples; the last may be shorter) in its window, as a share.

    1/m for the first, by mean relevance, of m chunks, 1 for the last; a share f of the window is what has f or less
    (rounded to whole chunks). `rng` orders chunks of the same relevance.
    """
    starts = np.arange(0, relevances.shape[1], length)
    lengths = np.diff(np.r_[starts, relevances.shape[1]])
    means = np.add.reduceat(relevances.astype(np.float64), starts, axis=1) / lengths
    order = np.lexsort((rng.random(means.shape), -means), axis=1)
    ranks = (np.argsort(order, axis=1) + 1) / len(starts)
    return np.repeat(ranks, lengths, axis=1)


def removal_curves(question: Question, infill: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Probability of the class as chunks are exchanged, the most relevant first, shape (2, n, n_fractions).

    Deletion goes from the window to `infill`, insertion back; `ranks` are those of :func:`chunk_ranks`.
    """
    model, task, windows = question.model, question.task, question.windows
    taken = (ranks <= FRACTIONS[:, None, None] + 1e-9)[:, :, None]  # (n_fractions, n, 1, n_samples)
    changed = np.where(taken, infill, windows.samples), np.where(taken, windows.samples, infill)
    # one fraction at a time would start a batch of few windows each
    flat = np.concatenate(changed).reshape(-1, *windows.samples.shape[1:])
    heights = class_probabilities(model, flat, task, model.classes[task]).reshape(2, len(FRACTIONS), len(windows), -1)
    return heights[:, :, np.arange(len(windows)), windows.targets].transpose(0, 2, 1)


def faithfulness_tables(question: Question, found: Mapping[str, np.ndarray], resamples: Resamples) -> Tables:
    """Compare the removal curves of methods with those of random orders.

    Give windows whose class the network names, or there is nothing to lose; and relevances of shape (n, n_samples),
    whose rows with NaN are left out of means.

    faithfulness: one row a method and infill: method, model, infill, deletion and insertion (areas under the curves),
    deletion_gap (area of the random order less the method's: higher is better) and insertion_gap (the method's less the
    random order's), each with ``_low`` and ``_high``, persons, windows, reason. curves: means by method ("random order"
    for the comparison), infill, kind, fraction. stability: :func:`infill_stability`.
    """
    windows, rng, length = question.windows, np.random.default_rng(question.windows.seed), chunk_length(question)
    rows, drawn = [], {}
    for infill, filled in windows.infills.items():
        orders = [chunk_ranks(np.zeros_like(windows.samples[:, 0]), length, rng) for _ in range(RANDOM_ORDERS)]
        chance = np.mean([removal_curves(question, filled, ranks) for ranks in orders], axis=0)
        by_chance = np.trapezoid(chance, FRACTIONS, axis=2)
        drawn |= {(RANDOM_ORDER, infill, kind): curve.mean(axis=0) for kind, curve in zip(KINDS, chance, strict=True)}
        for method, own in found.items():
            defined = np.isfinite(own).all(axis=1)
            curves = removal_curves(question, filled, chunk_ranks(np.where(defined[:, None], own, 0.0), length, rng))
            means = ratio(curves[:, defined].sum(axis=1), defined.sum())
            drawn |= {(method, infill, kind): mean for kind, mean in zip(KINDS, means, strict=True)}
            areas = np.where(defined, np.trapezoid(curves, FRACTIONS, axis=2), np.nan)
            gaps = (by_chance - areas) * [[1], [-1]]
            values = dict(zip((*KINDS, *(f"{kind}_gap" for kind in KINDS)), (*areas, *gaps), strict=True))
            estimates = clustered_means(values, windows.persons, resamples, shares.NO_RELEVANCE)
            counts = {"persons": len(np.unique(windows.persons[defined])), "windows": int(defined.sum())}
            about = {"method": method, "model": question.model.name, "infill": infill}
            rows.append(about | intervals(estimates) | counts | {"reason": estimates["deletion_gap"].reason})
    curves = (
        pd.DataFrame(drawn, index=FRACTIONS).rename_axis("fraction").rename_axis(columns=["method", "infill", "kind"])
    )
    curves, table = curves.melt(value_name="probability", ignore_index=False).reset_index(), pd.DataFrame(rows)
    return {"faithfulness": table, "curves": curves, "stability": infill_stability(table)}


def infill_stability(table: pd.DataFrame) -> pd.DataFrame:
    """Whether two infills bring the methods into the same order: correlations of their gaps, by kind."""
    rows = []
    for kind in KINDS:
        gaps = table.pivot_table(index="method", columns="infill", values=f"{kind}_gap").dropna()
        enough = len(gaps) > 2 and gaps.shape[1] == 2
        found = {name: gaps.corr(name).iloc[0, 1] if enough else np.nan for name in ("kendall", "spearman")}
        reason = None if enough else "fewer than three methods or two infills"
        rows.append({"kind": kind, "methods": len(gaps)} | found | {"reason": reason})
    return pd.DataFrame(rows)


def _sanity(context: Context, jobs: tuple[Job, ...], windows: Windows, resamples: Resamples) -> Tables:
    """Randomised networks, and small changes of the windows."""
    model = context.fitted(jobs[0]).model
    few = windows.subset(np.arange(len(windows)) < ROBUST_WINDOWS[effort(context.profile)])
    return {
        "sanity_parts": randomisation_table(Question(model, PERSON, windows, windows.infills[MEAN_BEAT]), resamples),
        "robustness": robustness_table(Question(model, PERSON, few, few.infills[MEAN_BEAT]), resamples),
    }


def _faithful(context: Context, jobs: tuple[Job, ...], windows: Windows, resamples: Resamples) -> Tables:
    """Relevances against what the network loses, what recognition loses, each other and other seeds."""
    fitted, split = context.fitted(jobs[0]), some_on_trial(context.splits(jobs[0])[0])
    question = Question(fitted.model, PERSON, windows, windows.infills[MEAN_BEAT])
    found, persons = relevances(question)[0], windows.persons
    effects = wave_effects(fitted, split, context.dataset, resamples)
    return faithfulness_tables(question, found, resamples) | {
        "effects": effect_table(effects, resamples),
        "causal": agreement_table(found, windows, effects, resamples),
        "method_agreement": shares.method_agreement(found, persons, resamples),
        "seed_agreement": shares.seed_agreement([found, *seed_relevances(context, jobs, question)], persons, resamples),
    }


def seed_relevances(context: Context, jobs: tuple[Job, ...], question: Question) -> list[dict[str, np.ndarray]]:
    """Relevances of the same windows to the networks of the other seeds."""
    return [relevances(replace(question, model=context.fitted(job).model))[0] for job in jobs[1:]]


AUDITS = {"sanity": _sanity, "faithful": _faithful}
"""Audits of a network that can be done beside each other."""
