"""Protections that are learnt: released cycles carry what diagnoses need, and as little else as possible.

* :class:`Bottleneck`: a decoder from a few diagnosis logits to cycles. Whatever the logits do not hold cannot pass; as
  :attr:`~Bottleneck.prototypes` they are rounded to a fixed codebook, so that a shape holds a few bits at most.
* :class:`Microaggregation`: groups of k records alike in those logits get their mean cycle.
* :class:`PPVAE`: Shishir et al., "AI-Enabled Privacy-Preserving Cardiac Diagnostics via Electrocardiograms", medRxiv
  2026.01.28.26345049: a variational autoencoder with an adversarial branch against demographics (here against the
  person too) and a branch that keeps the diagnoses. Sizes and weights are OURS, the paper publishes none; an adversary
  is fooled when it says of everybody what is true of the many (Tzeng et al., ICCV 2015), so that there is nothing more
  to be won by noise.
* :class:`ConditionalVAE`: cycles drawn anew given the record's own diagnoses.

The diagnoses are kept by several frozen readers, each trained on part of the protector's people, so that the release
convinces classifiers in general and not one.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytorch_lightning as pl
import torch
from numpy.typing import ArrayLike
from pytorch_lightning.utilities.seed import isolate_rng
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.nn import functional

from ecgstudy.deidentification.cycles import POINTS, RHYTHM, CycleSet
from ecgstudy.deidentification.protections import Protection, Retiming, group_means, microaggregate
from ecgstudy.deidentification.readers import (
    THOROUGH,
    Readers,
    Thoroughness,
    as_read,
    attribute_table,
    diagnosis_table,
    head_of,
)
from ecgstudy.evaluate.splits import SUBJECT
from ecgstudy.learn.base import UNKNOWN, SignalModel
from ecgstudy.learn.batches import encode
from ecgstudy.learn.train import make_trainer

BATCH, RATE = 64, 3e-3
CODE_NOISE, SHAPE_NOISE = 0.05, 0.1
"""Standard deviations of noise on codes and on shapes while a decoder learns, so that it does not lean on details."""
OPPOSED = -0.5
"""Correlation with the sum of the other diagnoses below which one is their absence."""


def _code(chances: np.ndarray) -> np.ndarray:
    """Codes in (-1, 1) of probabilities: sure ones lie together however sure they are."""
    return (2 * chances - 1).astype(np.float32)


@dataclass(frozen=True)
class CoderWeights:
    """What a :class:`CycleCoder` minimises, beside the squared error of shapes."""

    utility: float = 5.0
    divergence: float = 0.0
    adversary: float = 0.0


class CycleCoder(pl.LightningModule):
    """Decoder from codes to cycles, with an encoder of `n_latent` numbers before it where that is not 0.

    Batches hold shapes (n, n_leads, POINTS), log amplitudes (n, n_leads), codes (n, n_codes), rhythm leads
    (n, 4, POINTS), probabilities of the diagnoses and classes of each task that adversaries guess (`adversaries`: how
    large a share of the people each class has).
    """

    def __init__(
        self,
        n_leads: int,
        n_codes: int,
        n_latent: int,
        adversaries: Mapping[str, ArrayLike],
        readers: Sequence[SignalModel],
        diagnoses: Sequence[str],
        weights: CoderWeights,
    ) -> None:
        super().__init__()
        self.n_leads, self.n_latent, self.weights, self.diagnoses = n_leads, n_latent, weights, tuple(diagnoses)
        wide = n_leads * POINTS
        if n_latent:
            self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(wide, 256), nn.SiLU(), nn.Linear(256, 2 * n_latent))
        self.decoder = nn.Sequential(
            *(nn.Linear(n_codes + n_latent, 128), nn.SiLU(), nn.Linear(128, 256), nn.SiLU()),
            nn.Linear(256, wide + n_leads),
        )
        self.adversaries = nn.ModuleDict(
            {
                task: nn.Sequential(nn.Linear(wide, 128), nn.SiLU(), nn.Linear(128, len(shares)))
                for task, shares in adversaries.items()
            }
        )
        self._shares = {task: torch.tensor(np.asarray(shares, np.float32)) for task, shares in adversaries.items()}
        self._readers = [reader.eval().requires_grad_(False) for reader in readers]  # hidden: they are not trained

    def decode(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Shapes of mean 0 and standard deviation 1 a lead, and log amplitudes, of codes and latents."""
        rows = self.decoder(codes)
        shapes = rows[:, : self.n_leads * POINTS].view(-1, self.n_leads, POINTS)
        shapes = shapes - shapes.mean(dim=-1, keepdim=True)
        return shapes / (shapes.std(dim=-1, keepdim=True) + 1e-3), rows[:, self.n_leads * POINTS :]

    def encode(self, shapes: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the latent."""
        return self.encoder(shapes).chunk(2, dim=1)

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        """Reconstruct, keep the diagnoses, say little, and fool the adversaries."""
        shapes, amplitudes, codes, rhythm, chances, classes = batch
        inner, loss = codes + CODE_NOISE * torch.randn_like(codes), 0.0
        if self.n_latent:
            mean, spread = self.encode(shapes)
            latent = mean + torch.randn_like(mean) * torch.exp(spread / 2)
            inner = torch.cat([inner, latent], dim=1)
            loss = self.weights.divergence * -0.5 * (1 + spread - mean.square() - spread.exp()).sum(dim=1).mean()
        decoded, sizes = self.decode(inner)
        loss = loss + functional.mse_loss(decoded, shapes) + functional.mse_loss(sizes, amplitudes)
        if self.weights.utility:
            noisy = decoded + SHAPE_NOISE * torch.randn_like(decoded)
            reader = self._readers[int(torch.randint(len(self._readers), ()))]
            logits = reader(torch.cat([noisy, rhythm], dim=1))
            pairs = torch.stack([logits[head_of(name)] for name in self.diagnoses], dim=1)
            margin = pairs[..., 1] - pairs[..., 0]
            loss = loss + self.weights.utility * functional.binary_cross_entropy_with_logits(margin, chances)
        for at, (task, head) in enumerate(self.adversaries.items()):
            guessed = head(decoded.detach().flatten(1))
            loss = loss + functional.cross_entropy(guessed, classes[:, at], ignore_index=UNKNOWN)
            frozen = {name: weight.detach() for name, weight in head.named_parameters()}
            fooled = torch.func.functional_call(head, frozen, decoded.flatten(1))
            loss = loss + self.weights.adversary * functional.cross_entropy(
                fooled, self._shares[task].expand_as(fooled)
            )
        return loss

    def configure_optimizers(self) -> dict[str, Any]:
        """AdamW under a one-cycle schedule."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=RATE, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, RATE, total_steps=int(self.trainer.estimated_stepping_batches)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class _Draws:
    """Batches of rows drawn with replacement: one epoch of so many steps."""

    def __init__(self, columns: Sequence[np.ndarray], seed: int, steps: int) -> None:
        self._steps = steps
        self._columns, self._seed = [torch.from_numpy(np.ascontiguousarray(column)) for column in columns], seed

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        generator = torch.Generator().manual_seed(self._seed)
        for _ in range(self._steps):
            rows = torch.randint(len(self._columns[0]), (BATCH,), generator=generator)
            yield tuple(column[rows] for column in self._columns)


def _log_amplitudes(cycles: CycleSet) -> np.ndarray:
    """Log amplitudes of leads against the median of the set: units do not matter."""
    logs = np.log(np.maximum(cycles.amplitudes, 1e-6))
    return (logs - np.median(logs, axis=0)).astype(np.float32)


def _fit_coder(
    people: CycleSet,
    codes: np.ndarray,
    readers: Readers,
    weights: CoderWeights,
    seed: int,
    steps: int,
    n_latent: int = 0,
    adversaries: Sequence[str] = (),
) -> CycleCoder:
    """Train a coder on the protector's people; the same seed gives the same bits."""
    attributes = attribute_table(people.records).assign(person=people.records[SUBJECT])
    shares = {task: attributes[task].value_counts(normalize=True).sort_index() for task in adversaries}
    shares = {task: share for task, share in shares.items() if len(share) > 1}
    classes = [encode(attributes[task], share.index) for task, share in shares.items()]
    rhythm = as_read(people.shapes, people.rhythm)[:, -len(RHYTHM) :]
    columns = [people.shapes, _log_amplitudes(people), codes.astype(np.float32), rhythm]
    columns += [readers.held_out.astype(np.float32), np.stack([*classes, np.zeros(len(people), np.int64)], axis=1)]
    sizes = people.cycles.shape[1], codes.shape[1], n_latent
    with isolate_rng():
        torch.manual_seed(seed)
        coder = CycleCoder(*sizes, shares, readers.models, readers.diagnoses, weights)
        make_trainer(1, "cpu").fit(coder.train(), _Draws(columns, seed, steps))
    return coder.eval()


@torch.inference_mode()
def _cycles(coder: CycleCoder, codes: np.ndarray, release: CycleSet) -> np.ndarray:
    """Decode codes to cycles in the unit of a release, of its median amplitudes but for what the decoder adds."""
    shapes, logs = coder.decode(torch.from_numpy(codes.astype(np.float32)))
    typical = np.median(release.amplitudes, axis=0)
    return (shapes * torch.exp(logs)[..., None]).numpy() * typical[None, :, None].astype(np.float32)


@dataclass(frozen=True)
class _Told(Protection):
    """What protections have in common that keep diagnoses: readers of them and, mostly, a coder of cycles.

    `told` are the diagnoses that are kept (the most general kind and fibrillation where empty); `thorough` says how
    long is learnt; `retiming` draws R peaks anew. A fitted one has the ``repr`` that it had before.
    """

    told: tuple[str, ...] = ()
    thorough: Thoroughness = THOROUGH
    retiming: Retiming | None = None
    readers: Readers | None = field(default=None, repr=False)
    coder: CycleCoder | None = field(default=None, repr=False)

    def fit(self, people: CycleSet, seed: int, runs: Path) -> "_Told":
        """Train the readers, and whatever else learns from the people."""
        readers = Readers.trained(people, self.told, seed, runs, self.thorough)
        return replace(self, readers=readers, **self._learnt(people, readers, seed))

    def _learnt(self, people: CycleSet, readers: Readers, seed: int) -> dict[str, Any]:
        """Fields that are learnt from what readers say of the people."""
        return {}


@dataclass(frozen=True)
class Microaggregation(_Told):
    """Groups of `k` records of the release with like diagnoses, each of which gets the group's mean cycle.

    No released shape stands for fewer than k records, so that of the released shapes at most 1/k can be linked to the
    record they were made from. Two records of one person may share a group.
    """

    k: int = 5

    def prepare(self, release: CycleSet, seed: int) -> np.ndarray:
        """Group by what the readers say."""
        group = microaggregate(_code(self.readers.read(release)), self.k)
        return group_means(release.cycles, group)


@dataclass(frozen=True)
class Bottleneck(_Told):
    """Cycles decoded from what readers say of the diagnoses, rounded to `prototypes` codes unless that is 0.

    With `findings`, a diagnosis speaks for that share of the protector's people who are likeliest to have it: all
    others have one code, "nothing found", so that the healthy, whose codes say little of health, are all alike. What is
    the absence of the others (as NORM) is left out of the code then. Codebook and bounds are made from the protector's
    people and do not depend on the release.
    """

    prototypes: int = 0
    findings: float = 1.0
    utility: float = 5.0
    codebook: KMeans | None = field(default=None, repr=False)
    bounds: np.ndarray | float = field(default=np.nan, repr=False)

    def _learnt(self, people: CycleSet, readers: Readers, seed: int) -> dict[str, Any]:
        """Train the decoder, and place the prototypes."""
        codes = _code(readers.held_out)
        bounds = _bounds(codes, self.findings)
        codes = np.fmax(codes, bounds)
        coder = _fit_coder(people, codes, readers, CoderWeights(self.utility), seed, self.thorough.steps)
        n = min(self.prototypes, len(np.unique(codes, axis=0)))
        book = KMeans(n, n_init=4, random_state=seed).fit(codes) if n else None
        return {"coder": coder, "codebook": book, "bounds": bounds}

    def prepare(self, release: CycleSet, seed: int) -> np.ndarray:
        """Decode."""
        codes = np.fmax(_code(self.readers.read(release)), self.bounds)
        if self.codebook is not None:
            codes = self.codebook.cluster_centers_[self.codebook.predict(codes)]
        return _cycles(self.coder, codes, release)


def _bounds(codes: np.ndarray, share: float) -> np.ndarray | float:
    """Codes below which a diagnosis does not speak, (n_diagnoses,), or NaN; 1 for their absence."""
    if share >= 1:
        return np.nan
    bounds = np.quantile(codes, 1 - share, axis=0).astype(codes.dtype)
    if codes.shape[1] > 1:
        others = codes.sum(axis=1, keepdims=True) - codes
        with_others = [np.corrcoef(own, rest)[0, 1] for own, rest in zip(codes.T, others.T, strict=True)]
        if min(with_others) < OPPOSED:
            bounds[int(np.argmin(with_others))] = 1.0
    return bounds


@dataclass(frozen=True)
class PPVAE(_Told):
    """Variational autoencoder against adversaries on person, sex and age, and for the diagnoses."""

    adversary: float = 1.0
    utility: float = 5.0
    divergence: float = 0.02
    n_latent: int = 32
    ADVERSARIES: ClassVar = ("person", "sex", "age_group")

    def _learnt(self, people: CycleSet, readers: Readers, seed: int) -> dict[str, Any]:
        """Train encoder, decoder and adversaries at once."""
        weights, steps = CoderWeights(self.utility, self.divergence, self.adversary), self.thorough.steps
        nothing = np.zeros((len(people), 0))
        coder = _fit_coder(people, nothing, readers, weights, seed, steps, self.n_latent, self.ADVERSARIES)
        return {"coder": coder}

    def prepare(self, release: CycleSet, seed: int) -> np.ndarray:
        """Encode and decode the mean of the latent."""
        with torch.inference_mode():
            latents = self.coder.encode(torch.from_numpy(release.shapes))[0].numpy()
        return _cycles(self.coder, latents, release)


@dataclass(frozen=True)
class ConditionalVAE(_Told):
    """Cycles drawn from a variational autoencoder given the diagnoses that are stated of the record."""

    utility: float = 5.0
    divergence: float = 0.02
    n_latent: int = 16
    needs_labels: ClassVar[bool] = True

    def _learnt(self, people: CycleSet, readers: Readers, seed: int) -> dict[str, Any]:
        """Train encoder and decoder, the decoder being told the diagnoses."""
        weights, stated = CoderWeights(self.utility, self.divergence), _stated(people, readers)
        return {"coder": _fit_coder(people, stated, readers, weights, seed, self.thorough.steps, self.n_latent)}

    def prepare(self, release: CycleSet, seed: int) -> np.ndarray:
        """Draw a latent for every record."""
        drawn = np.random.default_rng(seed).standard_normal((len(release), self.n_latent))
        codes = np.hstack([_stated(release, self.readers), drawn])
        return _cycles(self.coder, codes, release)


def _stated(cycles: CycleSet, readers: Readers) -> np.ndarray:
    """Codes of the diagnoses that are stated of records: 1, -1, and 0 for what is not said."""
    table = diagnosis_table(cycles.records).reindex(columns=list(readers.diagnoses))
    return _code(table.fillna(0.5).to_numpy(dtype=float))
