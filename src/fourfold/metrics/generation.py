"""Generated images against real ones: the Fréchet distance of features, and the CLIP score of image and caption."""

# N images, C channels

import numpy as np
import scipy.linalg

from fourfold.metrics.dense import unit_vectors
from fourfold.metrics.running import Bootstrap, RunningSums, Score


class FeatureMoments:
    """Mean and covariance of a stream of feature vectors; memory depends on the number of channels alone."""

    def __init__(self) -> None:
        self.count = 0
        self._sum_C: np.ndarray | None = None
        self._products_CC: np.ndarray | None = None

    def add(self, features_NC: np.ndarray) -> None:
        """Add a batch of feature vectors of any float type; sums are float64."""
        features_NC = np.asarray(features_NC, dtype=np.float64)
        if self._sum_C is None or self._products_CC is None:
            self._sum_C = np.zeros(features_NC.shape[1])
            self._products_CC = np.zeros((features_NC.shape[1], features_NC.shape[1]))
        self._sum_C += features_NC.sum(axis=0)
        self._products_CC += features_NC.T @ features_NC
        self.count += len(features_NC)

    def mean_and_covariance(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean (C,) and the unbiased covariance (C, C).

        Raises:
            ValueError: there are fewer than two vectors.
        """
        if self.count < 2 or self._sum_C is None or self._products_CC is None:
            raise ValueError(f"{self.count} images; a covariance needs at least 2. Give more images.")
        mean_C = self._sum_C / self.count
        covariance_CC = (self._products_CC - self.count * np.outer(mean_C, mean_C)) / (self.count - 1)
        return mean_C, covariance_CC


def frechet_distance(first: FeatureMoments, second: FeatureMoments) -> float:
    """Return the Fréchet distance of two Gaussians: FID, if the features are those of the published Inception network.

    |m1 - m2|² + tr(S1 + S2 - 2 (S1 S2)^½) (Heusel et al. 2017, arXiv 1706.08500, section 2). It depends on the network, on how
    images are resized and stored, and on the number of images: state all of them with the number.
    """
    (mean_C, covariance_CC), (other_C, other_CC) = first.mean_and_covariance(), second.mean_and_covariance()
    eigenvalues = scipy.linalg.eigvals(covariance_CC @ other_CC)
    root_trace = np.sqrt(np.maximum(eigenvalues.real, 0)).sum()
    return float(((mean_C - other_C) ** 2).sum() + np.trace(covariance_CC) + np.trace(other_CC) - 2 * root_trace)


class ClipScorer:
    """Averages 100 cos of image and caption embeddings, as torchmetrics does; the paper's CLIPScore is 2.5 max(cos, 0)."""

    def __init__(self, bootstrap: Bootstrap) -> None:
        self._sums = RunningSums(bootstrap)

    def add(self, images_NC: np.ndarray, texts_NC: np.ndarray) -> None:
        """Add a batch of embeddings of any length."""
        images_NC, texts_NC = (np.asarray(each, np.float64) for each in (images_NC, texts_NC))
        norms_N = np.linalg.norm(images_NC, axis=1) * np.linalg.norm(texts_NC, axis=1)
        cosine_N = (images_NC * texts_NC).sum(axis=1) / np.maximum(norms_N, 1e-12)
        self._sums.add(np.column_stack([100 * cosine_N, np.ones(len(cosine_N))]))

    def scores(self) -> dict[str, Score]:
        """Return `clip_score`, 0 to 100: the mean is cut at 0, not the scores of the images."""
        return {"clip_score": self._sums.score(lambda sums: np.maximum(sums[:, 0] / sums[:, 1], 0))}


class RetrievalScorer:
    """Recall at k of retrieval between images and texts with several texts per image (COCO: 5,000 images, 25,000 texts)."""

    def __init__(self, bootstrap: Bootstrap, ranks: tuple[int, ...] = (1, 5, 10)) -> None:
        self._bootstrap, self._ranks = bootstrap, ranks
        self._images: list[np.ndarray] = []
        self._texts: list[np.ndarray] = []
        self._owner: list[int] = []

    def add(self, image_C: np.ndarray, texts_TC: np.ndarray) -> None:
        """Add one image with its texts; embeddings are kept as float32."""
        self._owner += [len(self._images)] * len(texts_TC)
        self._images.append(np.asarray(image_C, np.float32))
        self._texts.extend(np.asarray(texts_TC, np.float32))

    def scores(self) -> dict[str, Score]:
        """Return `image_to_text_r1`, ... (any own text is among the k nearest) and `text_to_image_r1`, ..., 0 to 1."""
        if not self._images:
            return {}
        images, texts = (unit_vectors(np.stack(rows)) for rows in (self._images, self._texts))
        owner_T = np.array(self._owner)
        found: dict[str, Score] = {}
        best_rank_N = np.array([_ranks_of(texts @ image, owner_T == i).min() for i, image in enumerate(images)])
        rank_T = np.array([_ranks_of(images @ text, np.arange(len(images)) == owner_T[t])[0] for t, text in enumerate(texts)])
        for direction, ranks in (("image_to_text", best_rank_N), ("text_to_image", rank_T)):
            sums = RunningSums(self._bootstrap)
            sums.add(np.column_stack([*(ranks < k for k in self._ranks), np.ones(len(ranks))]))
            found |= {f"{direction}_r{k}": sums.mean(index, len(self._ranks)) for index, k in enumerate(self._ranks)}
        return found


def _ranks_of(similarity: np.ndarray, own: np.ndarray) -> np.ndarray:
    """Return how many others are more similar than each own entry; of equal ones, all others come first."""
    return np.array([((similarity >= mine) & ~own).sum() for mine in similarity[own]])
