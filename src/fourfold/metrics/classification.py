"""Classification of whole data sets: top-k accuracy; nearest neighbors and a linear probe on labeled features."""

# N images, K classes, M labeled images, C channels, k neighbors

from typing import Protocol

import numpy as np
import scipy.optimize

from fourfold.metrics.running import Bootstrap, RunningSums, Score

CHUNK = 4096  # labeled images that are compared at once


class TopScorer:
    """Counts images whose class is among the first 1 and 5; classes with equal scores are ranked by id."""

    def __init__(self, bootstrap: Bootstrap, ranks: tuple[int, ...] = (1, 5)) -> None:
        self._sums, self._ranks = RunningSums(bootstrap), ranks

    def add(self, score_NK: np.ndarray, class_N: np.ndarray) -> None:
        """Add a batch: the score of each class, and the true class ids."""
        ranked_NK = np.argsort(-score_NK, axis=1, kind="stable")
        is_among = [(ranked_NK[:, :rank] == class_N[:, None]).any(axis=1) for rank in self._ranks]
        self._sums.add(np.column_stack([*is_among, np.ones(len(class_N))]))

    def scores(self) -> dict[str, Score]:
        """Return e.g. `top_1` and `top_5`, 0 to 1."""
        return {f"top_{rank}": self._sums.mean(index, len(self._ranks)) for index, rank in enumerate(self._ranks)}


class FeatureClassifier(Protocol):
    """Classifies feature vectors, after it has seen labeled ones."""

    def votes(self, features_NC: np.ndarray) -> np.ndarray:
        """Return a score for each class, float64 (N, K); the higher, the more likely."""


class NearestNeighbors:
    """Votes of the nearest labeled features, weighted by similarity (Wu et al. 2018, arXiv 1805.01978; as in DINO and DINOv2).

    The labeled features are kept as float32: 1,281,167 of 768 channels take 3.9 GB.
    """

    def __init__(self, features_MC: np.ndarray, class_M: np.ndarray, k: int = 20, temperature: float = 0.07) -> None:
        """Prepare labeled features.

        Raises:
            ValueError: there are fewer than k of them.
        """
        if len(features_MC) < k:
            raise ValueError(f"{len(features_MC)} labeled images; at least k = {k} are needed. Lower k or give more images.")
        self._features_MC, self._class_M = _unit(features_MC), np.asarray(class_M)
        self._k, self._temperature = k, temperature
        self.num_classes = int(self._class_M.max()) + 1

    def votes(self, features_NC: np.ndarray) -> np.ndarray:
        """Return the votes for each class, float64 (N, K): a softmax over the cosines of the k nearest, divided by T."""
        queries_NC = _unit(features_NC)
        best_Nk, index_Nk = np.zeros((len(queries_NC), 0), np.float32), np.zeros((len(queries_NC), 0), np.int64)
        for start in range(0, len(self._features_MC), CHUNK):
            cosine_NM = queries_NC @ self._features_MC[start : start + CHUNK].T
            index_NM = np.broadcast_to(np.arange(start, start + cosine_NM.shape[1]), cosine_NM.shape)
            best_Nk, index_Nk = np.hstack([best_Nk, cosine_NM]), np.hstack([index_Nk, index_NM])
            nearest = np.argsort(-best_Nk, axis=1, kind="stable")[:, : self._k]
            best_Nk = np.take_along_axis(best_Nk, nearest, axis=1)
            index_Nk = np.take_along_axis(index_Nk, nearest, axis=1)
        weight_Nk = np.exp((best_Nk - best_Nk[:, :1]).astype(np.float64) / self._temperature)
        weight_Nk /= weight_Nk.sum(axis=1, keepdims=True)
        votes_NK = np.zeros((len(queries_NC), self.num_classes))
        np.add.at(votes_NK, (np.arange(len(queries_NC))[:, None], self._class_M[index_Nk]), weight_Nk)
        return votes_NK


class LinearProbe:
    """Multinomial logistic regression on standardized features, fitted with L-BFGS: one optimum, without a learning rate.

    It minimizes the mean cross-entropy + decay / 2 · |W|², without a penalty of the bias. Labeled features are kept as float32
    while it is fitted; logits are computed for CHUNK images at once.
    """

    def __init__(self, features_MC: np.ndarray, class_M: np.ndarray, decay: float = 1e-4, steps: int = 200) -> None:
        """Fit the weights.

        Raises:
            ValueError: there are fewer than two labeled images.
        """
        if len(features_MC) < 2:
            raise ValueError(f"{len(features_MC)} labeled images; a linear probe needs at least 2. Give more images.")
        features_MC = np.asarray(features_MC, np.float32)
        self._mean_C, self._scale_C = features_MC.mean(axis=0), np.maximum(features_MC.std(axis=0), 1e-6)
        self._rows_MC, self._class_M, self._decay = self._standardized(features_MC), np.asarray(class_M), decay
        self.num_classes = int(self._class_M.max()) + 1
        start = np.zeros((features_MC.shape[1] + 1) * self.num_classes)
        found = scipy.optimize.minimize(self._loss, start, jac=True, method="L-BFGS-B", options={"maxiter": steps})
        self._weight_CK = found.x.reshape(-1, self.num_classes)  # the last row is the bias
        del self._rows_MC

    def votes(self, features_NC: np.ndarray) -> np.ndarray:
        """Return the logit of each class, float64 (N, K)."""
        rows_NC = self._standardized(np.asarray(features_NC, np.float32))
        return rows_NC.astype(np.float64) @ self._weight_CK[:-1] + self._weight_CK[-1]

    def _standardized(self, features_MC: np.ndarray) -> np.ndarray:
        return (features_MC - self._mean_C) / self._scale_C

    def _loss(self, weights: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the objective and its gradient."""
        weight_CK = weights.reshape(-1, self.num_classes)
        count, loss, gradient_CK = len(self._class_M), 0.0, np.zeros_like(weight_CK)
        for start in range(0, count, CHUNK):
            rows, classes = self._rows_MC[start : start + CHUNK].astype(np.float64), self._class_M[start : start + CHUNK]
            logit_NK = rows @ weight_CK[:-1] + weight_CK[-1]
            logit_NK -= logit_NK.max(axis=1, keepdims=True)
            share_NK = np.exp(logit_NK)
            total_N1 = share_NK.sum(axis=1, keepdims=True)
            each = np.arange(len(rows))
            loss += float((np.log(total_N1[:, 0]) - logit_NK[each, classes]).sum()) / count
            share_NK /= total_N1
            share_NK[each, classes] -= 1
            gradient_CK[:-1] += rows.T @ share_NK / count
            gradient_CK[-1] += share_NK.sum(axis=0) / count
        gradient_CK[:-1] += self._decay * weight_CK[:-1]
        return loss + self._decay / 2 * float((weight_CK[:-1] ** 2).sum()), gradient_CK.ravel()


def _unit(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, dtype=np.float32)
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
