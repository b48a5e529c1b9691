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
from torch import Tensor, nn
from torch.nn import functional

from ecgstudy.deidentification import learned, readers
from ecgstudy.deidentification.cycles import POINTS, CycleSet, shaped
from ecgstudy.deidentification.learned import PPVAE, Bottleneck, CoderWeights, ConditionalVAE, CycleCoder
from ecgstudy.deidentification.readers import Readers, attribute_table, diagnosis_table, tasks_of, told_diagnoses
from ecgstudy.errors import StudyError

Bags = list[SimpleNamespace]


def test_diagnoses_by_hand() -> None:
    columns = {"superclasses": [("NORM",), ("MI", "HYP"), (), ("MI",)], "rhythm": [("SR",), None, ("AFIB",), ("AFIB",)]}
    # NORM counts once, as the superclass; statements are no column of diagnoses
    columns |= {"subclasses": [("NORM", "X"), (), ("X",), None], "statements": [("Y",)] * 4}
    expected = {"HYP": [0, 1, None, 0], "MI": [0, 1, None, 1], "NORM": [1, 0, None, 0]}
    expected |= {"AFIB": [0, None, 1, 1], "SR": [1, None, 0, 0], "X": [1, None, 1, None]}
    several, none = pd.DataFrame(columns), pd.DataFrame({"age": [1.0]})
    pd.testing.assert_frame_equal(diagnosis_table(several), pd.DataFrame(expected, dtype=float))
    single = pd.DataFrame({"diagnosis": ["STTC", None, "", np.nan, "LVH"], "rhythm": "SR"})
    np.testing.assert_array_equal(diagnosis_table(single)["LVH"], [0, np.nan, np.nan, np.nan, 1])
    told = [told_diagnoses(records) for records in (several, single, none)]
    assert told == [["HYP", "MI", "NORM", "AFIB"], ["LVH", "STTC"], []]


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
    assert attribute_table(pd.DataFrame({"age": [np.nan] * 2, "sex": [None] * 2})).isna().all(axis=None)


@pytest.fixture
def bags(monkeypatch: pytest.MonkeyPatch) -> Bags:
    """Give what readers were trained on; they say 1 of a person they know and 0 of a stranger."""
    trained: Bags = []

    def train(cycles: CycleSet, labels: pd.DataFrame, tasks: dict, seed: int, *_: object) -> SimpleNamespace:
        trained.append(SimpleNamespace(records=cycles.records, labels=labels, tasks=list(tasks), seed=seed))
        return trained[-1]

    def say(model: SimpleNamespace, cycles: CycleSet) -> dict[str, np.ndarray]:
        assert len(cycles)  # a network cannot read nothing
        known = cycles.records["subject_id"].isin(model.records["subject_id"]).to_numpy(dtype=float)
        return {task: np.stack([1 - known, known], axis=1) for task in model.tasks}

    monkeypatch.setattr(readers, "train_reader", train)
    monkeypatch.setattr(readers, "probabilities", say)
    return trained


def test_what_is_said_of_a_person_comes_from_readers_that_do_not_know_them(bags: Bags) -> None:
    people = hearts(40, records_each=3)
    found = Readers.trained(people, (), 7, Path())
    assert found.diagnoses == ("NORM", "STTC")
    assert len(bags) == len({bag.seed for bag in bags}) == readers.THOROUGH.readers
    for bag in bags:
        assert bag.records["subject_id"].value_counts().tolist() == [3] * 28  # persons go whole
        assert (bag.labels["STTC"] == (bag.records["diagnosis"] == "STTC")).all()
    shares = np.mean([people.records["subject_id"].isin(bag.records["subject_id"]) for bag in bags], axis=0)
    assert len(set(shares)) > 2
    assert (shares == 1).any()  # known to all readers, who then have to do
    np.testing.assert_array_equal(found.held_out, np.repeat((shares == 1)[:, None], 2, axis=1))
    np.testing.assert_allclose(found.read(people), np.repeat(shares[:, None], 2, axis=1))
    alone = replace(people, records=people.records.assign(subject_id="p"))
    assert (Readers.trained(alone, ("STTC",), 0, Path()).held_out == 1).all()


@pytest.mark.parametrize("why", ["all_alike", "nobody", "of_one_person", "not_asked"])
def test_where_no_diagnosis_can_be_learnt_there_is_one_sentence(why: str, bags: Bags) -> None:
    people = hearts(10, records_each=8)
    of_one = np.where(people.records["subject_id"] == "p3", "STTC", "NORM")
    diagnosis = {"all_alike": "NORM", "nobody": None, "of_one_person": of_one}.get(why, people.records["diagnosis"])
    people = replace(people, records=people.records.assign(diagnosis=diagnosis, rhythm=None))
    with pytest.raises(StudyError, match="No diagnosis is stated often enough"):
        Readers.trained(people, ("absent",) if why == "not_asked" else (), 0, Path())


def test_a_reader_learns_diagnoses_whatever_they_are_called(tmp_path: Path) -> None:
    people, others, names = hearts(128), hearts(30, seed=1), ("I48.9", "sex", "type", "")
    labels = pd.DataFrame(dict.fromkeys(names, diagnosis_table(people.records)["STTC"]))
    labels["sex"] = (1 - labels["sex"]).where(people.records.index > 9)
    model = readers.train_reader(people, labels, dict.fromkeys(names, ("no", "yes")), 0, tmp_path, epochs=20)
    said = readers.probabilities(model, others)
    true = others.records["diagnosis"] == "STTC"
    right = {name: ((said[name][:, 1] > 0.5) == (true ^ (name == "sex"))).mean() for name in names}
    assert said.keys() == right.keys()
    assert min(right.values()) > 0.9, right


def _coder(n_codes: int = 2, n_latent: int = 0, adversaries: dict | None = None, **weights: float) -> CycleCoder:
    torch.manual_seed(0)
    weights = CoderWeights(**{"utility": 0.0} | weights)
    return CycleCoder(2, n_codes, n_latent, adversaries or {}, (), ("NORM", "STTC"), weights).eval()


def _batch(n_codes: int = 2) -> tuple[Tensor, ...]:
    rng = torch.Generator().manual_seed(1)
    shapes, codes, chances = (torch.rand(8, *size, generator=rng) for size in ((2, POINTS), (n_codes,), (2,)))
    return shapes, torch.zeros(8, 2), codes, torch.zeros(8, 4, POINTS), chances, torch.tensor([[0, 1], [1, -1]] * 4)


def _loss(coder: CycleCoder, batch: tuple[Tensor, ...]) -> Tensor:
    torch.manual_seed(3)  # the same noise every time
    return coder.training_step(batch, 0)


def test_adversaries_learn_to_guess_and_the_decoder_learns_to_fool_them() -> None:
    shares = {"sex": np.array([0.5, 0.5]), "age_group": np.array([0.2, 0.3, 0.5])}
    batch, gradients = _batch(), {}
    for weight in (0.0, 1.0, 10.0):
        coder = _coder(adversaries=shares, adversary=weight)
        _loss(coder, batch).backward()
        gradients[weight] = [part.weight.grad for part in (coder.decoder[-1], coder.adversaries["age_group"][0])]
    # adversaries are told the classes that are known; the decoder, how far they are from what is true of the many
    coder = _coder(adversaries=shares)
    torch.manual_seed(3)
    decoded = coder.decode(batch[2] + learned.CODE_NOISE * torch.randn_like(batch[2]))[0].flatten(1)
    sex, age = (head(decoded) for head in coder.adversaries.values())
    classes = batch[5]
    guess = functional.cross_entropy(sex, classes[:, 0]) + functional.cross_entropy(age[::2], classes[::2, 1])
    (own,) = torch.autograd.grad(guess, coder.adversaries["age_group"][0].weight, retain_graph=True)
    many = [torch.tensor(share, dtype=torch.float32) for share in shares.values()]
    fool = sum(-(share * guessed.log_softmax(1)).sum(1).mean() for share, guessed in zip(many, (sex, age), strict=True))
    (fooled,) = torch.autograd.grad(fool, coder.decoder[-1].weight)
    for weight in (1.0, 10.0):
        torch.testing.assert_close(gradients[weight][0], gradients[0.0][0] + weight * fooled, rtol=1e-3, atol=1e-5)
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

    class Reader(nn.Module):
        def forward(self, x: Tensor) -> dict[str, Tensor]:
            seen.append(x)
            pairs = {"STTC": [0 * x[:, 0, 5], x[:, 0, 5]], "NORM": [x[:, 0, 5], 0 * x[:, 0, 5]]}
            return {readers.head_of(name): torch.stack(pair, 1) for name, pair in pairs.items()}

    batch, coder = _batch(), _coder(utility=2.0)
    coder._readers = [Reader()]
    more = _loss(coder, batch).item() - _loss(_coder(), batch).item()
    assert seen[0].shape == (8, 2 + 4, POINTS)
    margins = torch.stack([-seen[0][:, 0, 5], seen[0][:, 0, 5]], 1)
    assert more == pytest.approx(2 * functional.binary_cross_entropy_with_logits(margins, batch[4]).item(), rel=1e-4)


def _said(chances: np.ndarray) -> SimpleNamespace:
    """Readers whose words about a release are given."""
    return SimpleNamespace(read=lambda _: chances, diagnoses=("NORM", "STTC"))


def test_nothing_but_what_readers_say_passes_a_bottleneck() -> None:
    people, alike = hearts(6), np.array([0, 0, 1, 1, 0, 2])
    chances = np.array([[0.1, 0.8], [0.7, 0.8], [0.2, 0.3]])[alike]
    made = Bottleneck(readers=_said(chances), coder=_coder()).prepare(people, 0)
    same = np.abs(made[:, None] - made).max(axis=(2, 3)) < 1e-5
    np.testing.assert_array_equal(same, alike[:, None] == alike)


@pytest.mark.parametrize("prototypes", [1, 4])
def test_prototypes_are_as_many_shapes_at_most(prototypes: int) -> None:
    rng = np.random.default_rng(0)
    book = KMeans(prototypes, n_init=1, random_state=0).fit(rng.uniform(-1, 1, (50, 2)).astype(np.float32))
    protection = Bottleneck(readers=_said(rng.random((40, 2))), coder=_coder(), codebook=book)
    assert len(np.unique(protection.prepare(hearts(40), 0), axis=0)) == prototypes


def test_people_with_nothing_found_have_one_shape() -> None:
    rng = np.random.default_rng(0)
    disease = rng.uniform(0, 0.6, (60, 2))
    chances = np.column_stack([disease, 0.9 - disease.mean(axis=1)])  # the third is the absence of the others
    codes = learned._code(chances)
    bounds = learned._bounds(codes, 0.25)
    assert bounds.tolist() == pytest.approx([*np.quantile(codes[:, :2], 0.75, axis=0), 1.0])
    assert np.isnan(learned._bounds(codes, 1.0))
    made = Bottleneck(readers=_said(chances), coder=_coder(3), bounds=bounds).prepare(hearts(60), 0)
    is_ill = (codes > bounds).any(axis=1)
    assert 15 < is_ill.sum() < 30
    assert len(np.unique(made[~is_ill].round(5), axis=0)) == 1
    assert len(np.unique(made.round(5), axis=0)) == is_ill.sum() + 1


def test_a_conditional_release_is_drawn_from_stated_diagnoses_alone() -> None:
    assert [kind.needs_labels for kind in (ConditionalVAE, Bottleneck, PPVAE)] == [True, False, False]
    people, told = hearts(4), SimpleNamespace(diagnoses=("STTC", "NORM", "AFIB"))
    people.records["diagnosis"] = ["STTC", "NORM", None, "STTC"]
    people.records["rhythm"] = None
    np.testing.assert_array_equal(learned._stated(people, told), [[1, -1, 0], [-1, 1, 0], [0, 0, 0], [1, -1, 0]])
    protection = ConditionalVAE(n_latent=5, readers=told, coder=_coder(3, 5))
    made = protection.prepare(people, 0)
    stranger = replace(people, cycles=people.cycles[::-1].copy())
    np.testing.assert_array_equal(protection.prepare(stranger, 0), made)
    assert np.abs(protection.prepare(people, 1) - made).max() > 0.01
    assert np.abs(made[0] - made[3]).max() > 0.01  # drawn for each record


def test_a_decoder_learns_the_shape_that_belongs_to_a_code() -> None:
    people, tall = hearts(40), np.arange(40) % 2 == 0
    codes = np.where(tall, 0.9, -0.9)[:, None]
    mute = SimpleNamespace(models=(), diagnoses=(), held_out=np.zeros((40, 1)))

    def fit(state: int) -> CycleCoder:
        torch.manual_seed(state)  # of no account
        return learned._fit_coder(people, codes, mute, CoderWeights(utility=0.0), 0, 40)

    coder, again = fit(1), fit(2)
    made = learned._cycles(coder, codes, people)
    np.testing.assert_array_equal(learned._cycles(again, codes, people), made)
    means = np.stack([people.cycles[each].mean(axis=0) for each in (tall, ~tall)])
    distance = ((shaped(made)[:, None] - shaped(means)) ** 2).mean(axis=(2, 3))
    np.testing.assert_array_equal(distance < 0.05, np.stack([tall, ~tall], axis=1))
    assert distance.max(axis=1).min() > 0.5
    sizes = [np.median(people.amplitudes[each]) for each in (tall, ~tall)]
    np.testing.assert_allclose(made[:2].std(axis=-1)[:, 0], sizes, rtol=0.1)
