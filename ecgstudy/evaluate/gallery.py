"""Search of very large galleries by cosine similarity, through faiss.

faiss is imported when a gallery is built, not with the package: it brings its own OpenMP runtime, which on
Linux lives peacefully beside PyTorch's (tested in both import orders), but which on macOS is known to abort the
process when both are loaded from wheels (faiss-wheels issue 73).
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from ecgstudy.errors import StudyError

_MIN_APPROXIMATE = 10_000
"""Below this many entries an inverted file saves nothing."""
_TRAINING_PER_LIST = 64
_PROBED_SHARE = 1 / 32


class GallerySearch:
    """Enrolled embeddings, searched for the most similar ones.

    Parameters
    ----------
    embeddings : numpy.ndarray
        Shape (n_entries, dim); scaled to length 1 on entry, so similarity is the cosine.
    ids : array_like
        Person of each entry.
    approximate : bool
        Search a 32nd of an inverted file (faiss ``IndexIVFFlat``, about ``2 sqrt(n_entries)`` lists by k-means)
        instead of everything. Faster, but a true match is missed now and then: measure the recall against
        the exact search on your embeddings before you report a rate.

    Raises
    ------
    StudyError
        The gallery is empty, its sizes disagree, or an embedding is not finite or all 0.
    """

    def __init__(self, embeddings: np.ndarray, ids: ArrayLike, approximate: bool = False) -> None:
        import faiss

        entries = _unit_rows(embeddings)
        self.ids = np.asarray(ids)
        if not len(entries) or len(entries) != self.ids.size:
            raise StudyError(f"The gallery has {len(entries)} embeddings and {self.ids.size} ids; give one id each.")
        n_entries, dim = entries.shape
        self._index = faiss.IndexFlatIP(dim)
        if approximate and n_entries >= _MIN_APPROXIMATE:
            n_lists = 2 * math.isqrt(n_entries)
            self._index = faiss.IndexIVFFlat(self._index, dim, n_lists, faiss.METRIC_INNER_PRODUCT)
            self._index.cp.max_points_per_centroid = _TRAINING_PER_LIST
            self._index.nprobe = max(1, round(n_lists * _PROBED_SHARE))
            self._index.train(entries)
        self._index.add(entries)

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the `k` most similar entries of each query.

        Parameters
        ----------
        queries : numpy.ndarray
            Shape (n_queries, dim).
        k : int
            Entries to return.

        Returns
        -------
        ids : numpy.ndarray
            Their persons, best first, shape (n_queries, k).
        similarities : numpy.ndarray
            Cosines, float32, shape (n_queries, k); minus infinity where an approximate search found fewer than
            `k`, with the id of an arbitrary entry.

        Raises
        ------
        StudyError
            `k` exceeds the gallery, or a query is not finite or all 0.
        """
        if not 1 <= k <= self.ids.size:
            raise StudyError(f"Rank {k} was asked of a gallery with {self.ids.size} entries.")
        similarities, positions = self._index.search(_unit_rows(queries), k)
        return self.ids[positions], np.where(positions < 0, np.float32(-np.inf), similarities)


def _unit_rows(embeddings: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1, float32, contiguous."""
    rows = np.ascontiguousarray(embeddings, dtype=np.float32)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    if not (np.isfinite(length).all() and (length > 0).all()):
        raise StudyError("An embedding is not finite or all 0; look for a record without a usable window.")
    return rows / length
