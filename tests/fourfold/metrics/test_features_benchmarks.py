"""Classification, nearest neighbors, retrieval and generation, compared with scikit-learn and torchmetrics."""

import numpy as np
import pytest
import torch

from fourfold.metrics.classification import LinearProbe, NearestNeighbors, TopScorer
from fourfold.metrics.generation import ClipScorer, FeatureMoments, RetrievalScorer, frechet_distance
from fourfold.metrics.running import Bootstrap

FEW = Bootstrap(replicates=20)


def test_top_k_equals_scikit_learn_for_unequal_batches():
    from sklearn.metrics import top_k_accuracy_score

    rng = np.random.default_rng(0)
    scores, classes = rng.random((90, 12)), rng.integers(0, 12, 90)
    scorer = TopScorer(FEW)
    for part in (slice(0, 64), slice(64, 90)):
        scorer.add(scores[part], classes[part])
    for k in (1, 5):
        expected = top_k_accuracy_score(classes, scores, k=k, labels=np.arange(12))
        assert scorer.scores()[f"top_{k}"].value == pytest.approx(expected)


def test_nearest_neighbors_equal_scikit_learn(monkeypatch):
    from sklearn.neighbors import KNeighborsClassifier

    monkeypatch.setattr("fourfold.metrics.classification.CHUNK", 64)
    rng = np.random.default_rng(0)
    known, classes, queries = rng.normal(size=(300, 8)), rng.integers(0, 5, 300), rng.normal(size=(40, 8))
    votes = NearestNeighbors(known, classes).votes(queries)
    judge = KNeighborsClassifier(20, metric="cosine", algorithm="brute", weights=lambda distance: np.exp((1 - distance) / 0.07))
    assert votes == pytest.approx(judge.fit(known, classes).predict_proba(queries), abs=1e-4)
    with pytest.raises(ValueError, match="at least k = 20"):
        NearestNeighbors(known[:5], classes[:5])


def test_the_linear_probe_equals_scikit_learn(monkeypatch):
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    monkeypatch.setattr("fourfold.metrics.classification.CHUNK", 64)
    rng = np.random.default_rng(0)
    centers = rng.normal(0, 1, (4, 6))
    classes = rng.integers(0, 4, 200)
    features, queries = centers[classes] + rng.normal(0, 1, (200, 6)), rng.normal(size=(30, 6))
    logits = LinearProbe(features, classes, decay=0.01).votes(queries)
    scaler = StandardScaler().fit(features)
    judge = LogisticRegression(C=1 / (0.01 * 200), max_iter=1000).fit(scaler.transform(features), classes)
    expected = judge.predict_proba(scaler.transform(queries))
    assert torch.softmax(torch.tensor(logits), 1).numpy() == pytest.approx(expected, abs=2e-3)
    with pytest.raises(ValueError, match="needs at least 2"):
        LinearProbe(features[:1], classes[:1])


class Flat(torch.nn.Module):
    """Features of an image: its pixels through a fixed matrix."""

    num_features = 6

    def __init__(self):
        super().__init__()
        self.matrix = torch.nn.Parameter(torch.randn(3 * 16, 6, generator=torch.Generator().manual_seed(0)), False)

    def forward(self, images):
        return images.flatten(1).to(self.matrix) @ self.matrix


def test_frechet_distance_equals_torchmetrics():
    from torchmetrics.image.fid import FrechetInceptionDistance

    rng = np.random.default_rng(0)
    real, made = (torch.tensor(rng.integers(0, high, (200, 3, 4, 4)), dtype=torch.uint8) for high in (256, 200))
    judge = FrechetInceptionDistance(Flat(), input_img_size=(3, 4, 4)).set_dtype(torch.float64)
    moments = FeatureMoments(), FeatureMoments()
    for is_real, images, mine in ((True, real, moments[0]), (False, made, moments[1])):
        judge.update(images, real=is_real)
        for part in images.split(64):
            mine.add(Flat().double()(part).numpy())
    assert frechet_distance(*moments) == pytest.approx(float(judge.compute()), rel=1e-6)
    assert frechet_distance(moments[0], moments[0]) == pytest.approx(0, abs=1e-2)
    with pytest.raises(ValueError, match="at least 2"):
        FeatureMoments().mean_and_covariance()


def test_the_clip_score_is_a_mean_that_is_cut_at_zero():
    scorer = ClipScorer(FEW)
    scorer.add(np.array([[2.0, 0], [0, 1]]), np.array([[1.0, 0], [1, 1]]))
    scorer.add(np.array([[1.0, 0]]), np.array([[-3.0, 0]]))
    assert scorer.scores()["clip_score"].value == pytest.approx(100 * (1 + 0.5**0.5 - 1) / 3)
    opposite = ClipScorer(FEW)
    opposite.add(np.array([[1.0, 0]]), np.array([[-1.0, 0]]))
    assert opposite.scores()["clip_score"].value == 0


def test_recall_with_several_texts_per_image_equals_a_sorted_list():
    rng = np.random.default_rng(0)
    images, texts = rng.normal(size=(30, 4)), rng.normal(size=(30, 5, 4))
    texts += 1.5 * images[:, None]
    scorer = RetrievalScorer(FEW)
    for image, group in zip(images, texts, strict=True):
        scorer.add(image, group)
    cosine = torch.cosine_similarity(torch.tensor(images)[:, None], torch.tensor(texts).flatten(0, 1)[None], dim=2)
    owner = torch.arange(150) // 5
    scores = scorer.scores()
    for k in (1, 5, 10):
        to_text = (owner[cosine.topk(k, dim=1).indices] == torch.arange(30)[:, None]).any(1)
        to_image = (cosine.T.topk(k, dim=1).indices == owner[:, None]).any(1)
        assert scores[f"image_to_text_r{k}"].value == pytest.approx(float(to_text.double().mean()))
        assert scores[f"text_to_image_r{k}"].value == pytest.approx(float(to_image.double().mean()))
