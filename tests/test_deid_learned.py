"""Learnt protections: what their readers are told and by whom, what passes through a bottleneck, and who is fooled."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hearts import hearts
from sklearn.cluster import KMeans
from torch.nn import functional

from ecgstudy.deidentification import learned
from ecgstudy.deidentification.cycles import POINTS, CycleSet, shaped
from ecgstudy.deidentification.learned import PPVAE, Bottleneck, CoderWeights, ConditionalVAE, CycleCoder, Readers
from ecgstudy.deidentification.readers import (
    attribute_table,
    diagnosis_table,
    probabilities,
    tasks_of,
    told_diagnoses,
    train_reader,
)
from ecgstudy.errors import StudyError

RUNS = Path("unused")


def test_diagnoses_by_hand() -> None:
    records = pd.DataFrame(
        {
            "superclasses": [("NORM",), ("MI", "HYP"), (), ("MI",)],
            "rhythm": [("SR",), None, ("AFIB",), ("AFIB",)],
            "subclasses": [("NORM", "X"), (), ("X",), None],  # NORM counts once, as the superclass
            "statements": [("Y",)] * 4,  # no column of diagnoses
        }
    )
    expected = {"HYP": [0, 1, None, 0], "MI": [0, 1, None, 1], "NORM": [1, 0, None, 0]}
    expected |= {"AFIB": [0, None, 1, 1], "SR": [1, None, 0, 0], "X": [1, None, 1, None]}
    pd.testing.assert_frame_equal(diagnosis_table(records), pd.DataFrame(expected, dtype=float))
    assert told_diagnoses(records) == ["HYP", "MI", "NORM", "AFIB"]
    one_each = pd.DataFrame({"diagnosis": ["STTC", None, "", np.nan, "LVH", "sex"], "rhythm": "SR"})
    found = diagnosis_table(one_each)
    assert found["LVH"].tolist()[4:] == [1, 0]
    assert found["LVH"].isna().tolist() == [False, True, True, True, False, False]
    assert told_diagnoses(one_each) == ["LVH", "STTC", "sex"]
    nothing = pd.DataFrame({"age": [1.0]})
    assert (diagnosis_table(nothing).shape, told_diagnoses(nothing)) == ((1, 0), [])


def test_a_diagnosis_is_learnt_from_eight_records_with_it_and_eight_without() -> None:
    counts = {"enough": [1] * 8 + [0] * 8, "seldom": [1] * 7 + [0] * 9, "often": [1] * 9 + [0] * 7}
    counts["unsaid"] = [1] * 8 + [0] * 7 + [None]
    assert tasks_of(pd.DataFrame(counts, dtype=float)) == {"enough": ("no", "yes")}


def test_attributes_by_hand() -> None:
    records = pd.DataFrame({"age": [29.9, 30, 59.9, 60, np.nan, 91], "sex": ["F", "M", None, "F", "M", "M"]})
    found = attribute_table(records).astype(object)
    found = found.where(found.notna(), None)
    assert found["over_60"].tolist() == ["no", "no", "no", "yes", None, "yes"]
    assert found["age_group"].tolist() == ["under 30", "30-44", "45-59", "60 and over", None, "60 and over"]
    assert found["sex"].tolist() == records["sex"].tolist()
    unknown = attribute_table(pd.DataFrame({"age": [np.nan, np.nan], "sex": [None, None]}))
    assert unknown.isna().all(axis=None)


def _stub_training(monkeypatch: pytest.MonkeyPatch) -> list[SimpleNamespace]:
    """Readers that say 1 of persons they were trained on, and 0 of others."""
    bags: list[SimpleNamespace] = []

    def train(
        cycles: CycleSet, labels: pd.DataFrame, tasks: dict, seed: int, runs: Path, epochs: int
    ) -> SimpleNamespace:
        bags.append(SimpleNamespace(records=cycles.records, labels=labels, tasks=list(tasks), seed=seed))
        return bags[-1]

    def say(model: SimpleNamespace, cycles: CycleSet) -> dict[str, np.ndarray]:
        known = cycles.records["subject_id"].isin(model.records["subject_id"]).to_numpy(dtype=float)
        return {task: np.stack([1 - known, known], axis=1) for task in model.tasks}

    monkeypatch.setattr(learned, "train_reader", train)
    monkeypatch.setattr(learned, "probabilities", say)
    return bags


def test_what_is_said_of_a_person_comes_from_readers_that_do_not_know_them(monkeypatch: pytest.MonkeyPatch) -> None:
    bags, people = _stub_training(monkeypatch), hearts(40, records_each=3)
    readers = Readers.trained(people, (), 7, RUNS)
    assert readers.diagnoses == ("NORM", "STTC")
    assert len(bags) == len({bag.seed for bag in bags}) == learned.THOROUGH.readers
    for bag in bags:
        assert bag.records["subject_id"].nunique() == 28
        assert (bag.records["subject_id"].value_counts() == 3).all()  # persons go whole
        assert (bag.labels["STTC"] == (bag.records["diagnosis"] == "STTC")).all()
    shares = np.mean([people.records["subject_id"].isin(bag.records["subject_id"]) for bag in bags], axis=0)
    assert len(set(shares)) > 2  # bags differ
    assert (shares == 1).any()
    np.testing.assert_array_equal(readers.held_out, np.repeat((shares == 1)[:, None], 2, axis=1))
    np.testing.assert_allclose(readers.read(people), np.repeat(shares[:, None], 2, axis=1))


def test_readers_of_one_person_alone_are_their_own_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    _stub_training(monkeypatch)
    alone = hearts(40)
    alone = replace(alone, records=alone.records.assign(subject_id="p"))
    assert (Readers.trained(alone, ("STTC",), 0, RUNS).held_out == 1).all()


@pytest.mark.parametrize("why", ["all_alike", "nobody", "of_one_person", "not_asked"])
def test_where_no_diagnosis_can_be_learnt_there_is_one_sentence(why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _stub_training(monkeypatch)
    people = hearts(10, records_each=8)
    owner, told = people.records["subject_id"], ("absent",) if why == "not_asked" else ()
    of_one = pd.Series(np.where(owner == "p3", "STTC", "NORM"))
    diagnosis = {"all_alike": "NORM", "nobody": None, "of_one_person": of_one}.get(why, people.records["diagnosis"])
    people = replace(people, records=people.records.assign(diagnosis=diagnosis, rhythm=None))
    with pytest.raises(StudyError, match="No diagnosis is stated often enough"):
        Readers.trained(people, told, 0, RUNS)


def test_a_reader_learns_diagnoses_whatever_they_are_called(tmp_path: Path) -> None:
    people = hearts(128)
    planted = diagnosis_table(people.records)["STTC"]
    names = ("I48.9", "sex", "type", "")
    labels = pd.DataFrame(dict.fromkeys(names, planted)).assign(sex=1 - planted)
    labels.loc[:9, "sex"] = np.nan
    model = train_reader(people, labels, dict.fromkeys(names, ("no", "yes")), 0, tmp_path, epochs=20)
    said = probabilities(model, hearts(30, seed=1))
    assert set(said) == set(names)
    true = diagnosis_table(hearts(30, seed=1).records)["STTC"] == 1
    for name, expected in dict.fromkeys(names, true).items():
        assert ((said[name][:, 1] > 0.5) == (expected if name != "sex" else ~expected)).mean() > 0.9


def _coder(n_codes: int = 2, n_latent: int = 0, adversaries: dict | None = None, **weights: float) -> CycleCoder:
    torch.manual_seed(0)
    weights = CoderWeights(**{"utility": 0.0} | weights)
    return CycleCoder(2, n_codes, n_latent, adversaries or {}, (), ("NORM", "STTC"), weights).eval()


def _batch(n_codes: int = 2) -> tuple[torch.Tensor, ...]:
    rng = torch.Generator().manual_seed(1)
    shapes, codes = torch.randn(8, 2, POINTS, generator=rng), torch.randn(8, n_codes, generator=rng)
    chances = torch.rand(8, 2, generator=rng)
    return shapes, torch.zeros(8, 2), codes, torch.zeros(8, 4, POINTS), chances, torch.tensor([[0, 1], [1, -1]] * 4)


def _loss(coder: CycleCoder, batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
    torch.manual_seed(3)
    return coder.training_step(batch, 0)  # the same noise every time


def test_gradients_are_turned_round() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    turned = learned._Reversed.apply(x, 3.0)
    torch.testing.assert_close(turned, x)
    (turned * torch.tensor([4.0, 5.0])).sum().backward()
    assert x.grad.tolist() == [-12.0, -15.0]


def test_adversaries_learn_to_guess_and_the_decoder_learns_to_fool_them() -> None:
    batch, gradients = _batch(), {}
    for weight in (0.0, 1.0, 10.0):
        coder = _coder(adversaries={"sex": 2, "age_group": 3}, adversary=weight)
        _loss(coder, batch).backward()
        gradients[weight] = [part.weight.grad for part in (coder.decoder[-1], coder.adversaries["age_group"][0])]
    # what the adversaries alone would have of the decoder, told the known classes
    coder = _coder(adversaries={"sex": 2, "age_group": 3})
    torch.manual_seed(3)
    decoded, _ = coder.decode(batch[2] + learned.CODE_NOISE * torch.randn_like(batch[2]))
    guesses = [head(decoded.flatten(1)) for head in coder.adversaries.values()]
    alone = functional.cross_entropy(guesses[0], batch[5][:, 0])
    alone = alone + functional.cross_entropy(guesses[1][::2], batch[5][::2, 1])
    alone.backward()
    helped, own = coder.decoder[-1].weight.grad, coder.adversaries["age_group"][0].weight.grad
    for weight in (1.0, 10.0):
        torch.testing.assert_close(gradients[weight][0], gradients[0.0][0] - weight * helped, rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(gradients[weight][1], own, rtol=1e-3, atol=1e-6)


def test_a_latent_costs_its_divergence_from_a_standard_normal() -> None:
    losses = []
    for divergence in (0.0, 0.5):
        coder = _coder(n_codes=0, n_latent=3, divergence=divergence)
        with torch.no_grad():
            coder.encoder[-1].weight.zero_()
            coder.encoder[-1].bias.copy_(torch.tensor([1.0, 2.0, 0.0, 0.0, 0.0, np.log(4.0)]))
        losses.append(_loss(coder, _batch(0)).item())
    assert losses[1] - losses[0] == pytest.approx(0.5 * (0.5 + 2 + (4 - 1 - np.log(4)) / 2), rel=1e-4)


def test_the_diagnoses_are_kept_as_frozen_readers_see_them() -> None:
    seen = []

    class Reader(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            seen.append(x)
            score = x[:, 0, 5]
            heads = [learned.head_of(name) for name in ("STTC", "NORM")]
            return {heads[0]: torch.stack([0 * score, score], 1), heads[1]: torch.stack([score, 0 * score], 1)}

    batch, coder = _batch(), _coder(utility=2.0)
    coder._readers = [Reader()]
    with_utility, without = _loss(coder, batch).item(), _loss(_coder(), batch).item()
    score = seen[0][:, 0, 5]
    assert seen[0].shape == (8, 2 + 4, POINTS)
    expected = functional.binary_cross_entropy_with_logits(torch.stack([-score, score], 1), batch[4])
    assert with_utility - without == pytest.approx(2 * expected.item(), rel=1e-4)


def _said(rows: list[list[float]]) -> Readers:
    """Readers whose words about a release are given."""
    return SimpleNamespace(read=lambda _: np.array(rows), diagnoses=("NORM", "STTC"))


def test_nothing_but_what_readers_say_passes_a_bottleneck() -> None:
    people = hearts(6)
    readers = _said([[0.1, 0.8], [0.1, 0.8], [0.1, 0.8], [0.7, 0.8], [0.7, 0.8], [0.2, 0.3]])
    made = Bottleneck(readers=readers, coder=_coder()).prepare(people, 0).cycles
    assert made.shape == people.cycles.shape
    same = [[np.allclose(one, other, rtol=1e-4, atol=1e-6) for other in made] for one in made]
    assert np.array_equal(
        same, [[row // 3 == column // 3 and (row == 5) == (column == 5) for column in range(6)] for row in range(6)]
    )


@pytest.mark.parametrize("prototypes", [1, 4])
def test_prototypes_are_as_many_shapes_at_most(prototypes: int) -> None:
    rng = np.random.default_rng(0)
    codes = rng.uniform(-1, 1, (50, 2)).astype(np.float32)
    book = KMeans(prototypes, n_init=1, random_state=0).fit(codes)
    people = hearts(40)
    protection = Bottleneck(readers=_said(rng.random((40, 2))), coder=_coder(), codebook=book)
    shapes = protection.prepare(people, 0).cycles.reshape(40, -1)
    assert len(np.unique(shapes, axis=0)) == prototypes


def test_a_conditional_release_is_drawn_from_stated_diagnoses_alone() -> None:
    assert [kind.needs_labels for kind in (ConditionalVAE, Bottleneck, PPVAE)] == [True, False, False]
    people = hearts(4)
    people.records["diagnosis"] = ["STTC", "NORM", None, "STTC"]
    readers = SimpleNamespace(diagnoses=("STTC", "NORM", "AFIB"))
    np.testing.assert_array_equal(learned._stated(people, readers), [[1, -1, 0], [-1, 1, 0], [0, 0, 0], [1, -1, 0]])
    protection = ConditionalVAE(n_latent=5, readers=readers, coder=_coder(8, 5))
    protection.coder.decoder[0] = torch.nn.Linear(8, 128)
    made = protection.prepare(people, 0).cycles
    stranger = replace(people, cycles=people.cycles[::-1].copy())
    np.testing.assert_array_equal(protection.prepare(stranger, 0).cycles, made)
    assert np.abs(protection.prepare(people, 1).cycles - made).max() > 0.01
    assert np.abs(made[0] - made[3]).max() > 0.01  # drawn for each record


def test_a_decoder_learns_the_shape_that_belongs_to_a_code() -> None:
    people = hearts(40)
    tall = np.arange(40) % 2 == 0
    codes = np.where(tall, 0.9, -0.9)[:, None]
    readers = SimpleNamespace(models=(), diagnoses=("STTC",), held_out=np.zeros((40, 1)))
    coder, again = (learned._fit_coder(people, codes, readers, CoderWeights(0.0), 0, 40) for _ in range(2))
    made = learned._cycles(coder, codes, people)
    means = np.stack([people.cycles[group].mean(axis=0) for group in (tall, ~tall)])
    distance = ((shaped(made)[:, None] - shaped(means)) ** 2).mean(axis=(2, 3))
    assert distance[tall, 0].max() < 0.05 < 0.5 < distance[tall, 1].min()
    assert distance[~tall, 1].max() < 0.05 < 0.5 < distance[~tall, 0].min()
    np.testing.assert_allclose(
        made.std(axis=-1)[:2, 0], [np.median(people.amplitudes[each]) for each in (tall, ~tall)], rtol=0.1
    )
    np.testing.assert_array_equal(learned._cycles(again, codes, people), made)
