"""Boxes, captions, answers and classes of official benchmarks."""

# N images, K classes, C channels

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fourfold import images
from fourfold.evaluation.benchmarks.class_folders import TEMPLATES
from fourfold.evaluation.benchmarks.dense_measures import plain
from fourfold.evaluation.benchmarks.official import Example, Measure, Run, batches
from fourfold.evaluation.tasks.features import choice_similarities, text_classifier
from fourfold.metrics.answers import ExactScorer, VqaScorer
from fourfold.metrics.boxes import box_iou
from fourfold.metrics.captions import CaptionScorer, rouge_l, tokenize
from fourfold.metrics.classification import FeatureClassifier, NearestNeighbors, TopScorer
from fourfold.metrics.detection import CocoScorer, Detections, TrueBoxes, VocScorer
from fourfold.metrics.generation import RetrievalScorer
from fourfold.metrics.running import Score
from fourfold.modalities.class_table import ClassTable
from fourfold.storage import write_bytes, write_json

GAP = "___"  # what the model fills in (fourfold.generation.any_to_any)
WORD = re.compile(r"\w+")


def whole_images(run: Run, examples: Sequence[Example]) -> np.ndarray:
    """Return the inputs of the model for answers about whole images, uint8 (N, S, S, 3)."""
    return np.stack([run.view.main_input(example.rgb) for example in examples])


def number_of(key: str) -> int | str:
    """Return an image id as official result files have it: a number where it is one."""
    return int(key) if key.isdecimal() else key


class DetectionMeasure(Measure):
    """Boxes; the truth of an example is `TrueBoxes` in pixels, with class indices of `names`."""

    def __init__(self, run: Run, names: Mapping[int, str], year: int | None = None) -> None:
        """Start without examples.

        Args:
            run: the model and the settings.
            names: of the classes, by their official ids, in the order of the class indices.
            year: of VOC, whose metric is then used; None: COCO.
        """
        super().__init__(run)
        self._ids, self.names, self._year = list(names), list(names.values()), year
        self._index = {plain(name): index for index, name in enumerate(self.names)}
        self._scorer = CocoScorer(run.bootstrap) if year is None else VocScorer(run.bootstrap, eleven_points=year < 2010)
        self._unknown: dict[str, int] = {}
        self._results: list[dict[str, Any]] = []

    def answer(self, examples: Sequence[Example]) -> list[Any]:
        """Return `Detections` in pixels; boxes of classes that the benchmark does not have are left out and counted."""
        found = self.run.model.predict({"rgb": whole_images(self.run, examples)}, ["det"], seed=self.run.seed)["det"]
        return [self._detections(each["instances"], example.rgb.shape) for each, example in zip(found, examples, strict=True)]

    def _detections(self, instances: list[dict[str, Any]], shape: tuple[int, ...]) -> Detections:
        kept = []
        for instance in instances:
            name = self.run.config.class_names.get(instance["class_name"], instance["class_name"])
            if (index := self._index.get(plain(name))) is None:
                self._unknown[name] = self._unknown.get(name, 0) + 1
                continue
            x0, y0, x1, y1 = instance["box"]
            kept.append([min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1), index, instance.get("score", 1.0)])
        rows = np.array(kept, float).reshape(-1, 6)
        box = rows[:, :4] * np.tile([shape[1], shape[0]], 2)
        return Detections(box, rows[:, 4].astype(int), rows[:, 5])

    def add(self, example: Example, answer: Any) -> float | None:
        """Return the share of missed and invented boxes at IoU 0.5."""
        self._scorer.add(answer, example.truth)
        return box_error(answer, example.truth)

    def scores(self) -> dict[str, Score]:
        """Return the average precisions."""
        return self._scorer.scores()

    def details(self) -> dict[str, Any]:
        """Return AP of each class (of COCO: the mean over IoU), and the boxes of classes that the benchmark does not have."""
        each = self._scorer.precision_of_classes()
        by_class = {self.names[index]: round(float(np.mean(ap)), 6) for index, ap in each.items()}
        return {"ap_of_classes": by_class, "boxes_of_unknown_classes": dict(sorted(self._unknown.items()))}

    def write(self, example: Example, answer: Any, folder: Path) -> None:
        """Collect the boxes: COCO's results.json, or VOC's text file per class."""
        for box, index, score in zip(answer.box_D4, answer.class_D, answer.score_D, strict=True):
            self._results.append({"image": example.key, "index": int(index), "box": box.tolist(), "score": float(score)})

    def finish(self, folder: Path) -> None:
        """Write the result files."""
        if self._year is None:
            write_json(folder / "detections.json", [self._coco_entry(result) for result in self._results])
            return
        for index, name in enumerate(self.names):
            mine = [result for result in self._results if result["index"] == index]
            lines = [f"{r['image']} {r['score']:.6f} " + " ".join(f"{edge + 1:.1f}" for edge in r["box"]) for r in mine]
            write_bytes(folder / f"comp4_det_test_{name}.txt", "".join(f"{line}\n" for line in lines).encode())

    def _coco_entry(self, result: dict[str, Any]) -> dict[str, Any]:
        x0, y0, x1, y1 = (round(edge, 2) for edge in result["box"])
        size = [round(x1 - x0, 2), round(y1 - y0, 2)]
        image, category = number_of(result["image"]), self._ids[result["index"]]
        return {"image_id": image, "category_id": category, "bbox": [x0, y0, *size], "score": round(result["score"], 6)}

    def draw(self, example: Example, answer: Any) -> list[tuple[str, np.ndarray | str]]:
        """Show predicted and true boxes."""
        table = ClassTable(names=tuple(self.names))
        size = np.tile([example.rgb.shape[1], example.rgb.shape[0]], 2)

        def drawn(boxes: np.ndarray, classes: np.ndarray) -> np.ndarray:
            pairs = zip((boxes / size).tolist(), classes.tolist(), strict=True)
            return images.box_image(example.rgb, [{"box": box, "class_name": self.names[int(k)]} for box, k in pairs], table)

        shown = (("prediction", answer.box_D4, answer.class_D), ("truth", example.truth.box_G4, example.truth.class_G))
        return [("image", example.rgb), *((title, drawn(boxes, classes)) for title, boxes, classes in shown)]


def box_error(found: Detections, truth: TrueBoxes) -> float:
    """Return the share of boxes, found or true, without a partner of their class at IoU 0.5; 0 without any."""
    total = len(found.box_D4) + len(truth.box_G4)
    if not total:
        return 0.0
    same = (box_iou(found.box_D4, truth.box_G4) >= 0.5) & (found.class_D[:, None] == truth.class_G[None])
    return 1 - float(same.any(axis=0).sum() + same.any(axis=1).sum()) / total


class CaptionMeasure(Measure):
    """Captions; the truth of an example is a list of reference captions."""

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self._scorer, self._results = CaptionScorer(run.bootstrap), list[dict[str, Any]]()

    def answer(self, examples: Sequence[Example]) -> list[Any]:
        """Return one caption per image."""
        inputs = {"rgb": whole_images(self.run, examples)}
        return list(self.run.model.predict(inputs, ["caption"], seed=self.run.seed)["caption"])

    def add(self, example: Example, answer: Any) -> float | None:
        """Return 1 - ROUGE-L of the image, for the gallery."""
        self._scorer.add(answer, example.truth)
        return 1 - rouge_l(tokenize(answer), [tokenize(reference) for reference in example.truth])

    def scores(self) -> dict[str, Score]:
        """Return BLEU-4, ROUGE-L and CIDEr-D."""
        return self._scorer.scores()

    def details(self) -> dict[str, Any]:
        """Return which tokenizer was used."""
        return {"tokenizer": "PTB-like (fourfold.metrics.captions); METEOR and SPICE need Java and are not computed"}

    def write(self, example: Example, answer: Any, folder: Path) -> None:
        """Collect the captions."""
        self._results.append({"image_id": number_of(example.key), "caption": answer})

    def finish(self, folder: Path) -> None:
        """Write COCO's caption results."""
        write_json(folder / "captions.json", self._results)

    def draw(self, example: Example, answer: Any) -> list[tuple[str, np.ndarray | str]]:
        """Show the image, the caption and the first reference."""
        return [("image", example.rgb), ("prediction", answer), ("truth", example.truth[0])]


@dataclass(frozen=True)
class Question:
    """A question about an image with its answers."""

    text: str
    answers: tuple[str, ...] = ()  # none where they are not public
    kind: str = ""  # e.g. "yes/no"


class QuestionMeasure(Measure):
    """Answers as text: the model completes the question. The truth of an example is a `Question`, its key the question's id."""

    def __init__(self, run: Run, exact: bool = False) -> None:
        """Start without examples; `exact`: one right answer, compared letter by letter (GQA), instead of ten (VQAv2)."""
        super().__init__(run)
        self.exact = exact
        self._scorer = ExactScorer(run.bootstrap) if exact else VqaScorer(run.bootstrap)
        self._results: list[dict[str, Any]] = []
        self._id, self._answer = ("questionId", "prediction") if exact else ("question_id", "answer")

    def answer(self, examples: Sequence[Example]) -> list[Any]:
        """Return what the model writes after each question."""
        prompts = [f"{example.truth.text} {GAP}" for example in examples]
        inputs = {"rgb": whole_images(self.run, examples), "caption": prompts}
        texts = self.run.model.predict(inputs, ["caption"], seed=self.run.seed)["caption"]
        return [after_question(text, example.truth.text) for text, example in zip(texts, examples, strict=True)]

    def add(self, example: Example, answer: Any) -> float | None:
        """Return 1 - accuracy; None for a question without public answers."""
        question = example.truth
        if not question.answers:
            return None
        if isinstance(self._scorer, ExactScorer):
            return 1 - self._scorer.add(answer, question.answers[0])
        return 1 - self._scorer.add(answer, question.answers, question.kind)

    def scores(self) -> dict[str, Score]:
        """Return the accuracy."""
        return self._scorer.scores()

    def write(self, example: Example, answer: Any, folder: Path) -> None:
        """Collect the answers."""
        value = number_of(example.key) if self._id == "question_id" else example.key
        self._results.append({self._id: value, self._answer: answer})

    def finish(self, folder: Path) -> None:
        """Write the result file."""
        write_json(folder / "answers.json", self._results)

    def draw(self, example: Example, answer: Any) -> list[tuple[str, np.ndarray | str]]:
        """Show the image, the question, the answer and the most frequent right one."""
        right = max(example.truth.answers, key=example.truth.answers.count, default="")
        return [("image", example.rgb), ("question", example.truth.text), ("prediction", answer), ("truth", right)]


def after_question(text: str, question: str) -> str:
    """Return what follows a question in a completed text; the whole text if it does not begin with the question."""
    start = r"\W*".join(map(re.escape, WORD.findall(question.lower())))
    found = re.match(rf"\W*{start}[\s?!.:,]*", text.lower())
    return text[found.end() :].strip() if found else text.strip()


class ClassMeasure(Measure):
    """Classification by a model that scores the classes itself (target `class`); the truth of an example is its class index."""

    def __init__(self, run: Run, names: Sequence[str]) -> None:
        """Start without examples; `names` are those of the classes, in the order of their indices."""
        super().__init__(run)
        self.names, self._scorer, self._lines = list(names), TopScorer(run.bootstrap), list[str]()

    def answer(self, examples: Sequence[Example]) -> list[Any]:
        """Return the score of each class (K,)."""
        inputs = {"rgb": whole_images(self.run, examples)}
        return list(np.asarray(self.run.model.predict(inputs, ["class"], seed=self.run.seed)["class"]))

    def add(self, example: Example, answer: Any) -> float | None:
        """Return the rank of the true class, 0 if it has the highest score."""
        self._scorer.add(answer[None], np.array([example.truth]))
        return float((answer > answer[example.truth]).sum())

    def scores(self) -> dict[str, Score]:
        """Return `top_1` and `top_5`."""
        return self._scorer.scores()

    def write(self, example: Example, answer: Any, folder: Path) -> None:
        """Collect five labels per line, 1-based, as ImageNet's server takes them."""
        best = np.argsort(-answer, kind="stable")[:5] + 1
        self._lines.append(f"{example.key} " + " ".join(map(str, best)))

    def finish(self, folder: Path) -> None:
        """Write the result file."""
        write_bytes(folder / "classification.txt", "".join(f"{line}\n" for line in self._lines).encode())

    def draw(self, example: Example, answer: Any) -> list[tuple[str, np.ndarray | str]]:
        """Show the image, the first class and the true one."""
        return [
            ("image", example.rgb),
            ("prediction", self.names[int(np.argmax(answer))]),
            ("truth", self.names[example.truth]),
        ]


class ZeroShotMeasure(ClassMeasure):
    """Classification through predicted CLIP features."""

    def __init__(self, run: Run, names: Sequence[str]) -> None:
        """Start without examples.

        Raises:
            ValueError: there is no text encoder.
        """
        super().__init__(run, names)
        if run.encoder is None:
            raise ValueError(
                "Zero-shot classification needs a text encoder, and there is none. Set evaluation.text_encoder, and run the "
                "stage pseudo_labeling, which stores it."
            )
        texts = [[template.format(name) for template in TEMPLATES] for name in self.names]
        self._encoder, self._classifier_KC = run.encoder, text_classifier(run.encoder, texts)

    def answer(self, examples: Sequence[Example]) -> list[Any]:
        """Return the similarity of each class (K,)."""
        inputs = {"rgb": whole_images(self.run, examples)}
        features = self.run.model.predict(inputs, ["clip"], seed=self.run.seed)["clip"]
        return list(choice_similarities(self._encoder.pool(np.asarray(features)), self._classifier_KC))


class FeatureMeasure(ClassMeasure):
    """Classification by the encoder's features, with a classifier that is fitted to those of the training images."""

    def __init__(
        self,
        run: Run,
        known: Iterable[Example],
        names: Sequence[str],
        fit: Callable[[np.ndarray, np.ndarray], FeatureClassifier] = NearestNeighbors,
    ) -> None:
        """Embed the training images, whose features are kept as float32, and fit.

        Args:
            run: the model and the settings.
            known: the training images.
            names: of the classes.
            fit: features (M, C) and class ids (M,) → a classifier.

        Raises:
            ValueError: there are too few training images.
        """
        super().__init__(run, names)
        features, classes = list[np.ndarray](), list[int]()
        for batch in batches(iter(known), run.config.batch_size):
            features.append(np.asarray(run.model.features({"rgb": whole_images(run, batch)}), np.float32))
            classes += [example.truth for example in batch]
        self._num_known = len(classes)
        rows_MC = np.concatenate(features) if features else np.zeros((0, 1), np.float32)
        self._classifier = fit(rows_MC, np.array(classes, int))

    def answer(self, examples: Sequence[Example]) -> list[Any]:
        """Return the score of each class (K,)."""
        votes_NK = self._classifier.votes(np.asarray(self.run.model.features({"rgb": whole_images(self.run, examples)})))
        missing = len(self.names) - votes_NK.shape[1]
        return list(np.pad(votes_NK, ((0, 0), (0, max(0, missing))), constant_values=-np.inf))

    def details(self) -> dict[str, Any]:
        """Return the number of training images."""
        return {"training_images": self._num_known}


class RetrievalMeasure(Measure):
    """Retrieval between images and captions through predicted CLIP features; the truth is a list of captions."""

    def __init__(self, run: Run) -> None:
        """Start without examples.

        Raises:
            ValueError: there is no text encoder.
        """
        super().__init__(run)
        if run.encoder is None:
            raise ValueError("Retrieval needs a text encoder, and there is none. Set evaluation.text_encoder.")
        self._encoder, self._scorer = run.encoder, RetrievalScorer(run.bootstrap)

    def answer(self, examples: Sequence[Example]) -> list[Any]:
        """Return the predicted global feature of each image (C,)."""
        inputs = {"rgb": whole_images(self.run, examples)}
        features = self.run.model.predict(inputs, ["clip"], seed=self.run.seed)["clip"]
        return list(self._encoder.pool(np.asarray(features)))

    def add(self, example: Example, answer: Any) -> float | None:
        """Return 1 - the largest cosine with an own caption."""
        texts = np.asarray(self._encoder.encode_text(list(example.truth)))
        self._scorer.add(answer, texts)
        norms = np.linalg.norm(texts, axis=1) * np.linalg.norm(answer)
        return 1 - float((texts @ answer / np.maximum(norms, 1e-12)).max())

    def scores(self) -> dict[str, Score]:
        """Return recalls at 1, 5 and 10 in both directions."""
        return self._scorer.scores()

    def draw(self, example: Example, answer: Any) -> list[tuple[str, np.ndarray | str]]:
        """Show the image and its first caption."""
        return [("image", example.rgb), ("caption", example.truth[0])]
