"""The audits on people: every method on the networks that recognise people in another recording, and on others.

Sanity (Adebayo et al., "Sanity Checks for Saliency Maps", NeurIPS 2018): an explanation that hardly changes when the
network's weights are replaced by random ones shows the window and not the network. Explanations are compared by
Spearman's rank correlation of their magnitudes, window by window.
"""

import copy
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pandas as pd
from torch import nn

from ecgstudy.attribution import shares
from ecgstudy.attribution.cases import NETWORKS, Case, Part, case_windows, network_jobs
from ecgstudy.attribution.causal import effect_ranks, effect_table, share_agreement, wave_effects
from ecgstudy.attribution.explain import Windows, answers, applicable, attribute, not_applicable, relevance
from ecgstudy.attribution.faithfulness import faithfulness, robustness_table
from ecgstudy.attribution.methods import Method, Question
from ecgstudy.errors import StudyError
from ecgstudy.evaluate.bootstrap import Resamples
from ecgstudy.evaluate.results import interval
from ecgstudy.evaluate.splits import SUBJECT
from ecgstudy.experiment.attackers import FeaturesAttacker
from ecgstudy.experiment.jobs import Context, Job, Outcome, run
from ecgstudy.experiment.networks import targets, trainable_classes
from ecgstudy.learn.base import PERSON, SignalModel
from ecgstudy.learn.models import create_model

PROTOCOL = "cross_record"
"""Everybody on trial, and no recording learnt from."""
WINDOWS = {"real": 90, "demo": 8}
"""Windows that are audited at most, one a person where there are as many people."""
ROBUST_WINDOWS = {"real": 24, "demo": 4}
"""Windows for infidelity and sensitivity, which ask every method many times."""
COMPARED = (
    ("resnet1d", "gradients_from_mean_beat"),
    ("resnet1d", "integrated_gradients"),
    ("transecg", "gradients_from_mean_beat"),
    ("transecg", "attention_rollout"),
)
"""Networks and methods that are compared with each other and with the feature model, by shares of waves."""
N_PARTS = 4
"""Parts in which a network is randomised from the head down; every one is an explanation of all windows to pay."""
CASCADING, INDEPENDENT, UNTRAINED = "cascading", "independent", "untrained"
Tables = dict[str, pd.DataFrame]
UNDEFINED = "the method gives every sample the same relevance, or none, in one of the two networks"


def layers_from_head(model: SignalModel) -> list[str]:
    """Prefixes of the names of a network's weights, one a layer, the head first.

    Layers are the network's own modules in the order they are registered; a list of composite modules
    (stages, blocks) counts as several. Weights that belong to no module are part of the first layer.
    """
    layers: list[str] = []
    for name, child in model.named_children():
        several = isinstance(child, nn.Sequential | nn.ModuleList) and all(len(list(m.children())) for m in child)
        layers += [f"{name}.{at}." for at in range(len(child))] if several else [f"{name}."]
    return layers[::-1]


def parts_from_head(model: SignalModel) -> list[list[str]]:
    """Names of the weights and buffers of :data:`N_PARTS` parts of a network, about equally many layers each."""
    names = list(model.state_dict())
    layers = layers_from_head(model)
    owned = [[name for name in names if name.startswith(layer)] for layer in layers]
    owned[-1] += [name for name in names if not name.startswith(tuple(layers))]
    cut = np.array_split(np.arange(len(layers)), min(N_PARTS, len(layers)))
    return [[name for at in part for name in owned[at]] for part in cut]


def randomised(model: SignalModel, names: Iterable[str], seed: int) -> SignalModel:
    """Copy a network with the weights called `names` drawn anew, as its constructor draws them."""
    fresh = create_model(model.name, seed, **model.hparams).state_dict()
    changed = copy.deepcopy(model).eval()
    changed.load_state_dict({**changed.state_dict(), **{name: fresh[name] for name in names}})
    return changed


def randomisation_table(
    question: Question, methods: Iterable[Method], persons: np.ndarray, resamples: Resamples
) -> pd.DataFrame:
    """Rank correlation of every method's explanation with that of networks that know less.

    One row a method, kind and part: method, model, control, kind ("cascading": this part and all above it random;
    "independent": this part alone; "untrained": a network with other fresh weights, the level that the cascade should
    fall to), part (0 is the head; the last of the cascade is the whole network; NaN where the kind has none),
    correlation with ``_low`` and ``_high``, persons, reason (why it is NaN, else None). A method that does not apply
    has one row with the reason.
    """
    asked = {key: replace(question, model=model) for key, model in _networks(question).items()}
    rows = []
    for method in methods:
        about = {"method": method.name, "model": question.model.name, "control": method.control}
        reason = not_applicable(method, question.model)
        if reason is not None:
            rows.append(about | {"reason": reason})
            continue
        trained = relevance(method, attribute(method, question))
        # a control does not read the network
        values = {
            key: shares.rank_correlation(
                trained, trained if method.control else relevance(method, attribute(method, other))
            )
            for key, other in asked.items()
        }
        found = shares.mean_rows(values, ("kind", "part"), "correlation", persons, resamples, UNDEFINED)
        rows += [about | row for row in found]
    numbers = ("kind", "part", "correlation", "correlation_low", "correlation_high", "persons", "reason")
    return pd.DataFrame(rows, columns=["method", "model", "control", *numbers])


def _networks(question: Question) -> dict[tuple[str, float], SignalModel]:
    """Networks that know less, by kind and part."""
    model, parts = question.model, parts_from_head(question.model)
    everything = [name for part in parts for name in part]
    random, other = (int(s) for s in np.random.SeedSequence((question.seed, 2)).generate_state(2))
    networks = {}
    for at, part in enumerate(parts):
        above = [name for upper in parts[: at + 1] for name in upper]
        networks[CASCADING, float(at)] = randomised(model, above, random)
        networks[INDEPENDENT, float(at)] = randomised(model, part, random)
    networks[UNTRAINED, np.nan] = randomised(model, everything, other)
    return networks


def sanity_table(parts: pd.DataFrame, permuted: pd.DataFrame) -> pd.DataFrame:
    """Sum each method up: how much of the explanation is left when nothing of the network is.

    One row a method and model of :func:`randomisation_table`: randomised_correlation with ``_low`` and ``_high`` (end
    of the cascade), untrained (level of another fresh network), reason, and permuted (correlation with a network of
    permuted labels, from :func:`ecgstudy.attribution.planted.audit_planted`).
    """
    rows = []
    for (model, method), group in parts.groupby(["model", "method"], sort=False):
        kinds = {kind: part.sort_values("part").iloc[-1] for kind, part in group.groupby("kind")}
        end = kinds.get(CASCADING, group.iloc[-1])
        row = {"model": model, "method": method}
        row |= {f"randomised_{name}": end[name] for name in ("correlation", "correlation_low", "correlation_high")}
        row["untrained"] = kinds[UNTRAINED]["correlation"] if UNTRAINED in kinds else np.nan
        rows.append(row | {"reason": end["reason"]})
    known = permuted[["model", "method", "permuted"]]
    return pd.DataFrame(rows).merge(known, on=["model", "method"], how="left")


def audited_jobs(context: Context, seed: int) -> list[tuple[Job, ...]]:
    """Jobs of the first cohort that allows :data:`PROTOCOL`: one tuple a network, one job a seed."""
    jobs = [job for job in network_jobs(context, seed) if job.protocol.name == PROTOCOL]
    first = [job for job in jobs if job.cohort == jobs[0].cohort]
    return [tuple(job for job in first if job.attacker == name) for name in NETWORKS] if jobs else []


def audit_people(context: Context, seed: int) -> tuple[Tables, Outcome]:
    """Audit all methods on the networks that recognise people across recordings, on all processor cores.

    Tables of all networks joined, and the outcome with their commits: sanity_parts (:func:`randomisation_table`),
    faithfulness, curves and stability (:class:`~ecgstudy.attribution.faithfulness.Faithfulness`), robustness, effects,
    causal (one row a method and effect: correlation of its shares with the effect), method_agreement and
    seed_agreement. ``StudyError`` where no cohort has several records a person, or nobody is recognised.
    """
    networks = audited_jobs(context, seed)
    if not networks:
        raise StudyError("No cohort has several records a person, so no explanation of recognition can be audited.")
    asked = [Part(jobs, name) for jobs in networks for name in AUDITS]
    outcome = run(audit, asked, context, "audits on people")
    if len(outcome.refusals):
        raise StudyError(outcome.refusals["reason"].iloc[0])
    joined: dict[str, list[pd.DataFrame]] = {}
    for job in asked:
        for name, table in outcome.values[job.name].items():
            joined.setdefault(name, []).append(table if "model" in table else table.assign(model=job.attacker))
    return {name: pd.concat(tables, ignore_index=True) for name, tables in joined.items()}, outcome


def audit(context: Context, job: Part) -> Tables:
    """One audit of one network, its tables by name."""
    first = job.jobs[0]
    case = recognised(case_windows(context, first, PERSON, 1), first, WINDOWS[context.profile])
    split = context.splits(first)[0]
    everyone = np.concatenate([split.enrolment[SUBJECT], split.probe[SUBJECT]]).astype(str)
    return AUDITS[job.part](context, job.jobs, case, Resamples.draw(everyone, first.seed))


def recognised(case: Case, job: Job, most: int) -> Windows:
    """Keep windows whose person the network names, at most so many, evenly spread over them."""
    if np.unique(case.windows.persons[case.recognised]).size < 2:
        raise StudyError(f"{job.name} names the person of too few windows for its explanations to be audited.")
    rows = np.flatnonzero(case.recognised)
    return case.windows.subset(rows[np.linspace(0, rows.size - 1, min(most, rows.size)).round().astype(int)])


def _sanity(context: Context, jobs: tuple[Job, ...], windows: Windows, resamples: Resamples) -> dict[str, pd.DataFrame]:
    """Randomised networks, and small changes of the windows."""
    model = context.fitted(jobs[0]).model
    methods = applicable(model)
    few = windows.subset(np.arange(len(windows)) < ROBUST_WINDOWS[context.profile])
    asked = windows.question(model, PERSON)
    return {
        "sanity_parts": randomisation_table(asked, methods, windows.persons, resamples),
        "robustness": robustness_table(few.question(model, PERSON), methods, few.persons, resamples),
    }


def _faithful(context: Context, jobs: tuple[Job, ...], windows: Windows, resamples: Resamples) -> Tables:
    """Relevances against what the network loses, what recognition loses, each other and other seeds."""
    fitted, split = context.fitted(jobs[0]), context.splits(jobs[0])[0]
    question = windows.question(fitted.model, PERSON)
    relevances, _ = answers(question)
    persons = windows.persons
    found = faithfulness(question, relevances, windows.infills, persons, resamples)
    # without ages it computes no probabilities of sex and age, which nobody asks for here
    effects = wave_effects([(replace(fitted, ages=None), split)], context.dataset, resamples)
    ranks = effect_ranks(effects, resamples)
    causal = [
        {"method": name, "effect": effect, "persons": estimate.n, "reason": estimate.reason}
        | interval("correlation", estimate)
        for name, own in relevances.items()
        for effect, estimate in share_agreement(
            shares.wave_shares(own, windows.codes), persons, ranks, resamples
        ).items()
    ]
    others = seed_relevances(context, jobs, question)
    seeds = shares.seed_agreement([relevances, *others], persons, resamples) if others else pd.DataFrame()
    return {
        "faithfulness": found.table,
        "curves": found.curves,
        "stability": found.stability,
        "effects": effect_table(effects, resamples),
        "causal": pd.DataFrame(causal),
        "method_agreement": shares.method_agreement(relevances, persons, resamples),
        "seed_agreement": seeds,
    }


def seed_relevances(context: Context, jobs: tuple[Job, ...], question: Question) -> list[dict[str, np.ndarray]]:
    """Relevances of the same windows to the networks of the other seeds."""
    return [answers(replace(question, model=context.fitted(job).model))[0] for job in jobs[1:]]


AUDITS = {"sanity": _sanity, "faithful": _faithful}
"""Audits of a network that can be done beside each other."""


def feature_model_shares(context: Context, seed: int) -> pd.DataFrame:
    """Shares of the waves in what the feature model uses to recognise the people of :func:`audited_jobs`.

    One row a wave: wave, share with ``_low`` and ``_high``, persons, windows; empty where nobody is on trial.
    """
    jobs = audited_jobs(context, seed)
    if not jobs:
        return pd.DataFrame()
    job = replace(jobs[0][0], seed=seed)
    split = context.splits(job)[0]
    booster = FeaturesAttacker().fit(context, job, split).boosters[PERSON]
    features, owners = context.dataset.features(split.probe)
    persons = split.probe[SUBJECT].to_numpy(dtype=str)[owners]
    classes = trainable_classes(split.train[SUBJECT].to_numpy(dtype=str), context.people)
    labels = targets(persons, context.people, classes)[PERSON]
    rows = np.flatnonzero(np.isin(labels, booster.classes))
    rows = rows[np.linspace(0, rows.size - 1, min(WINDOWS[context.profile], rows.size)).round().astype(int)]
    values = shares.feature_shares(booster, features.iloc[rows], labels[rows])
    asked, resamples = {(wave,): values[wave] for wave in values}, Resamples.draw(persons[rows], seed)
    found = shares.mean_rows(asked, ("wave",), "share", persons[rows], resamples, "no window has a feature")
    return pd.DataFrame(found).drop(columns="reason").assign(windows=rows.size)


def model_agreement_table(context: Context, seed: int, table: pd.DataFrame, of_features: pd.DataFrame) -> pd.DataFrame:
    """Agreement of networks (by some methods) and of the feature model on the waves by which people are recognised.

    `table` is that of :func:`ecgstudy.attribution.tables.all_shares`.
    """
    cohort = audited_jobs(context, seed)[0][0].cohort
    own = table[(table["cohort"] == cohort) & (table["protocol"] == PROTOCOL) & (table["task"] == PERSON)]
    by_wave = own[own["kind"] == "wave"].set_index(["model", "method", "wave"])["share"]
    compared = [pair for pair in COMPARED if pair in by_wave.index.droplevel("wave")]
    found = {f"{model}, {method.replace('_', ' ')}": by_wave[model, method] for model, method in compared}
    return shares.model_agreement(found | {"features, SHAP": of_features.set_index("wave")["share"]})
