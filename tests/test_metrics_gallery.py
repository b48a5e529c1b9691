"""Gallery search against brute force, and faiss beside PyTorch."""

import subprocess
import sys

import numpy as np
import pytest

from ecgstudy.errors import StudyError
from ecgstudy.evaluate.identification import GallerySearch


def test_exact_search_equals_brute_force() -> None:
    rng = np.random.default_rng(0)
    embeddings, queries = rng.normal(size=(500, 16)), 3 * rng.normal(size=(40, 16))
    ids = np.array([f"p{i}" for i in range(500)])
    found, similarity = GallerySearch(embeddings, ids).search(queries, 5)
    norms = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(embeddings, axis=1)
    cosine = queries @ embeddings.T / norms
    order = np.argsort(-cosine, axis=1)[:, :5]
    np.testing.assert_array_equal(found, ids[order])
    np.testing.assert_allclose(similarity, np.take_along_axis(cosine, order, axis=1), atol=1e-6)


def test_approximate_search_finds_near_matches() -> None:
    rng = np.random.default_rng(1)
    embeddings = rng.normal(size=(20_000, 32)).astype(np.float32)
    queries = embeddings[:300] + 0.1 * rng.normal(size=(300, 32))
    found, similarity = GallerySearch(embeddings, np.arange(20_000), approximate=True).search(queries, 2)
    assert np.mean(found[:, 0] == np.arange(300)) > 0.95
    assert (similarity[:, 0] >= similarity[:, 1]).all()


def test_small_approximate_gallery_is_searched_exactly() -> None:
    eye = np.eye(8)
    assert GallerySearch(eye, np.arange(8), approximate=True).search(eye, 1)[0].ravel().tolist() == list(range(8))


def test_unusable_input_is_refused() -> None:
    with pytest.raises(StudyError, match="2 embeddings and 3 ids"):
        GallerySearch(np.eye(2), [1, 2, 3])
    with pytest.raises(StudyError, match="not finite or all 0"):
        GallerySearch(np.zeros((2, 3)), [1, 2])
    with pytest.raises(StudyError, match="Rank 3"):
        GallerySearch(np.eye(2), [1, 2]).search(np.eye(2), 3)


@pytest.mark.parametrize("order", ["import torch, faiss", "import faiss, torch"])
def test_lives_beside_pytorch(order: str) -> None:
    code = f"""import sys
from ecgstudy.evaluate.identification import GallerySearch
assert "faiss" not in sys.modules
{order}
import numpy as np
a = np.random.default_rng(0).normal(size=(3000, 64)).astype("f")
for _ in range(3):
    product = (torch.from_numpy(a) @ torch.from_numpy(a).T).argmax(1).numpy()
    found = GallerySearch(a, np.arange(3000)).search(a, 1)[0][:, 0]
print((found == np.arange(3000)).all())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "True"), done.stderr
