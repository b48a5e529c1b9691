"""Random changes of training windows that leave the person, the sex and the age what they are."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_WANDER_HZ = (0.05, 0.5)  # the band of breathing and slow electrode drift


@dataclass(frozen=True)
class Augmentation:
    """How strongly windows are changed; amplitudes are relative to the standard deviation of each window's lead.

    Attributes
    ----------
    gain : float
        Standard deviation of the natural logarithm of a factor on the whole window.
    noise : float
        Standard deviation of added white Gaussian noise.
    wander : float
        Standard deviation of the amplitude of one added sine of 0.05-0.5 Hz, random phase, per lead.
    """

    gain: float = 0.1
    noise: float = 0.05
    wander: float = 0.1


def augment(x: Tensor, fs: float, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Change each window by its own random gain, baseline wander and noise.

    Parameters
    ----------
    x : Tensor
        Windows, shape (n, n_leads, n_samples); not changed in place.
    fs : float
        Sampling rate in Hz.
    settings : Augmentation
        How strongly.
    generator : torch.Generator
        Source of all randomness.

    Returns
    -------
    Tensor
        Shape and type of `x`.
    """
    n, n_leads, n_samples = x.shape

    spread = x.std(dim=-1, keepdim=True)
    gain = torch.exp(settings.gain * torch.randn(n, 1, 1, generator=generator))
    low, high = _WANDER_HZ
    frequency, phase = torch.rand(2, n, n_leads, 1, generator=generator)
    frequency = low + (high - low) * frequency
    amplitude = settings.wander * torch.randn(n, n_leads, 1, generator=generator)
    wander = amplitude * torch.sin(2 * math.pi * (frequency * torch.arange(n_samples) / fs + phase))
    noise = settings.noise * torch.randn(x.shape, generator=generator)
    return gain * (x + spread * (wander + noise))


def random_crops(x: Tensor, n_samples: int, generator: torch.Generator) -> Tensor:
    """Cut one window of `n_samples` at a random place from each row of `x` (n, n_leads, n_samples or more)."""
    starts = torch.randint(x.shape[-1] - n_samples + 1, (len(x),), generator=generator)
    return x.unfold(-1, n_samples, 1)[torch.arange(len(x)), :, starts]
