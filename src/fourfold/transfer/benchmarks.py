"""Plug-in: fine-tuning on the training split of public benchmarks, scored as the benchmarks themselves.

    plugins: [fourfold.scenes, fourfold.transfer.benchmarks]

Each official benchmark with a `train_split` becomes a transfer task of its name. Its measure decides the kind of the task:
classes, one of the frequent answers to a question, or maps of classes. Images are read when a batch needs them, in a seeded
order; what is in memory of an example is its path and its annotation. The score is that of `score_official` on the official
split; learning rates are chosen on examples of the training split that are held out.
"""

# B batch, S side of the model, H W original size

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cache, cached_property, lru_cache
from typing import Any, cast

import numpy as np
import torch

from fourfold.data.cursor import Cursor
from fourfold.evaluation.benchmarks import BENCHMARKS, OfficialBenchmark
from fourfold.evaluation.benchmarks.dense_measures import SegmentationMeasure
from fourfold.evaluation.benchmarks.object_measures import GAP, ClassMeasure, Question, QuestionMeasure
from fourfold.evaluation.benchmarks.official import Run, StoredExamples, score_official
from fourfold.evaluation.benchmarks.sets.imagenet import IMAGENET
from fourfold.evaluation.benchmarks.suite import PREDICTIONS, REPORT_FILE, without_images
from fourfold.evaluation.benchmarks.views import View, nearest, resized
from fourfold.evaluation.config import BenchmarkConfig
from fourfold.evaluation.report.benchmarks import benchmark_page
from fourfold.metrics.answers import normalize_answer
from fourfold.metrics.running import Bootstrap
from fourfold.seeds import numpy_generator
from fourfold.storage import write_bytes
from fourfold.transfer.benchmark_settings import BENCHMARK, TrainedBenchmarkConfig
from fourfold.transfer.heads.dense import SegmentationHead
from fourfold.transfer.tasks import (
    TRANSFER_TASKS,
    Examples,
    IndexBatches,
    Scoring,
    Targets,
    TransferTask,
)

CLASS = "class"  # the attribute of classification tasks
MIN_QUESTIONS = 9  # of VQAv2, after Teney et al. 2018 (arXiv 1708.02711, section 3.1)
SCORE_OF_A_PERSON = 0.3  # soft target of an answer for each person who gave it, up to 1
normalized = lru_cache(maxsize=1 << 18)(normalize_answer)


def register() -> None:
    """Add a transfer task for each official benchmark that names its training split; `fourfold.plugins` calls this."""
    for name in trainable():
        TRANSFER_TASKS.register(name, benchmark_task(name))


def trainable() -> dict[str, OfficialBenchmark]:
    """Return the benchmarks that can be learned, by name."""
    found = [each for _, each in BENCHMARKS.items() if isinstance(each, OfficialBenchmark) and each.train_split]
    return {benchmark.name: benchmark for benchmark in (IMAGENET, *found)}


@cache  # so that registering twice adds the same object
def benchmark_task(name: str) -> TransferTask:
    """Return the transfer task of a benchmark; its data are opened when it is resolved."""
    benchmark = trainable()[name]
    return TransferTask(
        name=name,
        title=benchmark.title if "fine-tuned" in benchmark.title else f"{benchmark.title}, fine-tuned",
        metrics=benchmark.metrics,
        make_targets=lambda values, seed: Targets(),  # `resolve` replaces it
        score=lambda predicted, examples: {},  # the stream scores
        truth=BENCHMARK,
        resolve=lambda task, data: opened(task, benchmark, data.benchmarks[task.name]),
    )


def opened(task: TransferTask, benchmark: OfficialBenchmark, settings: TrainedBenchmarkConfig) -> TransferTask:
    """Return a task with the examples of its benchmark and what follows from them: classes, or answers.

    Raises:
        ValueError: data are missing, too few examples are left to learn, or the scored split is the one that is learned.
    """
    stream = BenchmarkStream(benchmark, settings)
    measure = benchmark.measure(Run(cast(Any, None), stream.config, Bootstrap(replicates=0)))
    task = replace(task, stream=stream, resolve=None)
    if isinstance(measure, SegmentationMeasure):
        head = SegmentationHead(measure.table.num_classes)
        return replace(task, head=head, make_targets=lambda maps, seed: Targets(labels=list(maps)))
    if isinstance(measure, ClassMeasure):
        return replace(task, choices={CLASS: tuple(measure.names)}, make_targets=_classes)
    if isinstance(measure, QuestionMeasure):
        min_questions = settings.min_questions or (1 if measure.exact else MIN_QUESTIONS)
        known = AnswerVocabulary(stream.train.truths, min_questions, is_exact=measure.exact)
        return replace(task, answers=known.answers, make_targets=known.make_targets)
    raise ValueError(
        f"{benchmark.title} has a train_split and {type(measure).__name__}, which cannot be learned. Allowed: ClassMeasure, "
        "QuestionMeasure, SegmentationMeasure. Remove train_split, or add a task in a plug-in."
    )


def _classes(values: list[Any], seed: int) -> Targets:
    return Targets(classes={CLASS: np.array(values, np.int64)})


class AnswerVocabulary:
    """The answers that a model can give, and the soft targets of questions.

    An answer is in it if it is the most frequent one of at least `min_questions` questions, after the normalization of VQAv2
    (Teney et al. 2018, arXiv 1708.02711; there and in later work 3,129 answers of the splits train and val; here the training
    split alone counts). The model gives each answer as people wrote it most often, because the official evaluation does not
    normalize where all people agree.
    """

    def __init__(self, questions: Iterable[Question], min_questions: int, is_exact: bool) -> None:
        """Count answers.

        Args:
            questions: of the training split.
            min_questions: that an answer must have.
            is_exact: questions have one answer, which is compared letter by letter, so nothing is normalized.

        Raises:
            ValueError: no answer is frequent enough.
        """
        self._is_exact = is_exact
        count, spellings = Counter[str](), defaultdict[str, Counter[str]](Counter)
        for question in questions:
            plain = [self._plain(answer) for answer in question.answers]
            count.update(answer for answer, _ in Counter(plain).most_common(1))
            for answer, written in zip(plain, question.answers, strict=True):
                spellings[answer][written] += 1
        kept = sorted((answer for answer, number in count.items() if number >= min_questions), key=lambda a: (-count[a], a))
        if not kept:
            raise ValueError(
                f"No answer has {min_questions} questions in the training split; the most frequent one has "
                f"{max(count.values(), default=0)}. Lower min_questions of the task in finetuning.benchmarks."
            )
        self._index_of = {answer: index for index, answer in enumerate(kept)}
        # Of equally frequent spellings the first in the alphabet
        self.answers = tuple(max(sorted(spellings[answer]), key=spellings[answer].__getitem__) for answer in kept)

    def _plain(self, answer: str) -> str:
        return answer if self._is_exact else normalized(answer)

    def soft_targets(self, question: Question) -> dict[int, float]:
        """Return the targets of the answers that people gave, by index: min(1, 0.3 · number of people); of one answer, 1."""
        count = Counter(self._plain(answer) for answer in question.answers)
        each = 1.0 if self._is_exact else SCORE_OF_A_PERSON
        return {self._index_of[a]: min(1.0, each * number) for a, number in count.items() if a in self._index_of}

    def make_targets(self, questions: Sequence[Question], seed: int) -> Targets:
        """Return questions as prompts and soft targets as labels."""
        return Targets([question.text for question in questions], labels=[self.soft_targets(each) for each in questions])


@dataclass(frozen=True)
class StreamedExamples:
    """Examples of a benchmark that are read when a batch needs them; see `fourfold.transfer.tasks.ExampleSource`."""

    examples: StoredExamples
    task: TransferTask
    view: View  # how an image becomes an input of the model

    def __len__(self) -> int:
        return len(self.examples)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images in pixels, after they are read."""
        return self.view.side, self.view.side

    @property
    def prompts(self) -> Sequence[str]:
        """Nothing; questions are read with their images."""
        return ()

    @property
    def classes(self) -> dict[str, np.ndarray]:
        """The class of each example of a classification task, int64 (N,)."""
        return self.task.make_targets(list(self.examples.truths), 0).classes if self.task.choices else {}

    def subset(self, indices: np.ndarray) -> "StreamedExamples":
        """Return some of the examples, in the order of `indices`."""
        return replace(self, examples=self.examples.subset(indices))

    def resized(self, side: int | None) -> "StreamedExamples":
        """Return the examples with images, and maps, of another size."""
        return self if side is None else replace(self, view=replace(self.view, side=side))

    def batches(self, order: IndexBatches, seed: int) -> Iterator[tuple[Examples, Cursor]]:
        """Yield the examples of each batch; the next batch is read while one is learned, with as many threads as torch has."""
        readers = ThreadPoolExecutor(torch.get_num_threads(), "read")  # decoding leaves Python's lock alone

        def begin() -> tuple[list[Future[tuple[np.ndarray, Any]]], Cursor]:
            indices, cursor = next(order)
            return [readers.submit(self._read, int(index), cursor.epoch, seed) for index in indices], cursor

        try:
            ahead = begin()
            while True:
                (parts, cursor), ahead = ahead, begin()
                yield self._together([part.result() for part in parts], seed), cursor
        finally:
            readers.shutdown(cancel_futures=True)

    def _read(self, index: int, epoch: int, seed: int) -> tuple[np.ndarray, Any]:
        """Return an input uint8 (S, S, 3), and the truth about it; of maps, a window that is drawn from those of the view."""
        example = self.examples[index]
        if self.task.kind != "labels":
            return self.view.main_input(example.rgb), example.truth
        boxes = self.view.boxes(*example.rgb.shape[:2])
        top, left, height, width = boxes[int(numpy_generator(seed, "window", epoch, index).integers(len(boxes)))]
        part = slice(top, top + height), slice(left, left + width)
        return resized(example.rgb[part], self.view.side), nearest(example.truth[part], self.view.side, self.view.side)

    def _together(self, parts: Sequence[tuple[np.ndarray, Any]], seed: int) -> Examples:
        targets = self.task.make_targets([truth for _, truth in parts], seed)
        rgb = np.stack([image for image, _ in parts])
        return Examples(rgb, targets.prompts, targets.answers, targets.classes, targets.labels)


class BenchmarkStream:
    """The splits of a benchmark that are learned and scored; see `fourfold.transfer.tasks.Stream`."""

    def __init__(self, benchmark: OfficialBenchmark, settings: TrainedBenchmarkConfig) -> None:
        """Open the training split.

        Raises:
            ValueError: as `opened`.
        """
        assert benchmark.train_split is not None
        self.benchmark, self.held_out = benchmark, settings.held_out
        values = settings.model_dump(exclude={"held_out", "min_questions"}, exclude_none=True)
        self.config = BenchmarkConfig(reader=benchmark.name, **({"split": benchmark.split, "view": benchmark.view} | values))
        if self.config.split == benchmark.train_split:
            raise ValueError(
                f"{benchmark.title}: split {self.config.split!r} is the one that is learned. Score another one: "
                f"{', '.join(split for split in benchmark.splits if split != benchmark.train_split)}."
            )
        for split in (benchmark.train_split, self.config.split):
            benchmark.check(settings.path, str(split))
        self.train = self._examples(benchmark.train_split)
        if len(self.train) < self.held_out + 2:
            raise ValueError(
                f"{benchmark.title}: {self.held_out} examples are held out of the {len(self.train)} of "
                f"{benchmark.train_split!r}; at least 2 must be left. Lower finetuning.benchmarks.{benchmark.name}.held_out."
            )

    @cached_property
    def scored(self) -> StoredExamples:
        """The official split, or its first `max_samples` examples."""
        return self._examples(str(self.config.split))

    def _examples(self, split: str) -> StoredExamples:
        found = self.benchmark.read(self.config.path, split)
        if not isinstance(found, StoredExamples):
            raise ValueError(
                f"The reader of {self.benchmark.name} returns {type(found).__name__}; one with a train_split must return "
                "StoredExamples, so that the examples can be shuffled. Change the reader."
            )
        return found

    def digest(self) -> str:
        """Return a digest of the names and annotations of both splits."""
        return hashlib.sha256(f"{self.train.digest()} {self.scored.digest()}".encode()).hexdigest()

    def pool(self, task: TransferTask, side: int, seed: int) -> StreamedExamples:
        """Return the examples that may be learned; see `fourfold.transfer.tasks.Stream`."""
        view = View(self.config.view or "squash", side, overlap=self.config.overlap)
        return StreamedExamples(self.train.subset(np.sort(self._order(seed)[self.held_out :])), task, view)

    def _order(self, seed: int) -> np.ndarray:
        """Return a random order of the training split, int64 (N,); those that are held out come first."""
        return numpy_generator(seed, "transfer", self.benchmark.name, "held out").permutation(len(self.train))

    def score(self, task: TransferTask, learner: Any, split: str, draw: Scoring) -> dict[str, Any]:
        """Return the official result; of the official split with a report and its predictions in `draw.folder`."""
        is_selection = split == "transfer_val"
        folder = draw.folder / draw.name
        config = self.config
        examples = self.scored
        if is_selection:
            config = config.model_copy(update={"split": self.benchmark.train_split, "max_samples": None})
            examples = self.train.subset(np.sort(self._order(draw.seed)[: self.held_out]))
        run = Run(
            model=FineTuned(learner, task, draw.side),
            config=config,
            bootstrap=Bootstrap(draw.seed, self.benchmark.name),
            seed=draw.seed,
            folder=None if is_selection else folder / PREDICTIONS,
        )
        result = score_official(replace(self.benchmark, read=lambda path, name: examples), run)
        if not is_selection:
            write_bytes(folder / REPORT_FILE, benchmark_page({draw.name: result}).encode())
        return without_images(result)


class FineTuned:
    """A trained learner as the model of a benchmark: it answers what its task asks."""

    def __init__(self, learner: Any, task: TransferTask, side: int) -> None:
        self._learner, self._task, self._side = learner, task, side

    def image_side(self, name: str) -> int:
        """Return the pixels per side of the learner's images."""
        return self._side

    def predict(
        self, conditions: dict[str, Any], targets: Sequence[str], *, preset: Any = "greedy", seed: int = 0
    ) -> dict[str, Any]:
        """Return logits (B, K), answers, or maps uint8 (B, S, S) as the one target; nothing is drawn."""
        (target,) = targets
        questions = [text.removesuffix(f" {GAP}") for text in conditions.get("caption", ())]
        examples = Examples(conditions["rgb"], questions, [], {})
        if self._task.kind == "classes":
            return {target: self._learner.logits(examples.rgb)[CLASS].float().cpu().numpy()}
        return {target: self._learner.predict(examples)}

    def features(self, conditions: Mapping[str, Any]) -> np.ndarray:
        """Raise ValueError: learned tasks need no features."""
        raise ValueError(
            "A fine-tuned model has no features. Use the pretrained model for nearest neighbors and linear probes."
        )
