"""Controls: attributions that cannot know what the network has learned. A method worth believing beats them all."""

from dataclasses import replace

import numpy as np

from ecgstudy.attribution.gradients import integrated_gradients
from ecgstudy.attribution.question import Question
from ecgstudy.learn.models import create_model


def random(question: Question) -> np.ndarray:
    """Independent uniform numbers in [0, 1)."""
    shape = (len(question.windows), question.windows.shape[-1])
    return np.random.default_rng(question.seed).random(shape, dtype=np.float32)


def magnitude(question: Question) -> np.ndarray:
    """Absolute value of the window, summed over leads: looks like knowledge of the QRS, and is none."""
    return np.abs(question.windows).sum(axis=1, dtype=np.float32)


def deviation(question: Question) -> np.ndarray:
    """Distance from the mean beat, summed over leads: what is unusual about the window, whether it matters or not."""
    return np.abs(question.windows - question.mean_beats).sum(axis=1, dtype=np.float32)


def untrained(question: Question) -> np.ndarray:
    """Integrated gradients of the same architecture with fresh weights (Adebayo et al., NeurIPS 2018)."""
    # a stream of its own: the seed alone could be that of the trained network's initial weights
    seed = int(np.random.SeedSequence((question.seed, 1)).generate_state(1)[0])
    fresh = create_model(question.model.name, seed, **question.model.hparams)
    return integrated_gradients(replace(question, model=fresh.to(question.model.device)))


def uniform(question: Question) -> np.ndarray:
    """Uniform attention: every sample weighs the same."""
    n_samples = question.windows.shape[-1]
    return np.full((len(question.windows), n_samples), 1 / n_samples, dtype=np.float32)
