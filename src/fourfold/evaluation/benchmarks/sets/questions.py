"""VQAv2 (Goyal et al. 2017, arXiv 1612.00837) and GQA (Hudson and Manning 2019, arXiv 1902.09506)."""

import sys
from pathlib import Path

from fourfold.evaluation.benchmarks.object_measures import Question, QuestionMeasure
from fourfold.evaluation.benchmarks.official import Example, OfficialBenchmark, StoredExamples
from fourfold.evaluation.benchmarks.sets.reading import read_json_file, read_rgb
from fourfold.metrics.metric import Metric

ACCURACY = Metric("accuracy", "accuracy", "of the official evaluation, 0 to 1")
VQA_METRICS = (ACCURACY, *(Metric(f"accuracy_{kind}", kind, "accuracy") for kind in ("yes/no", "number", "other")))
VQA_QUESTIONS = "v2_OpenEnded_mscoco_{split}_questions.json"
VQA_ANSWERS = "v2_mscoco_{split}_annotations.json"


def read_vqa(folder: Path, split: str) -> StoredExamples:
    """Return questions by id; those of a test split have no answers. The images are those of COCO 2014 (test: 2015)."""
    images = "test2015" if split.startswith("test") else split
    answers = {}
    if not split.startswith("test"):
        found = read_json_file(folder / VQA_ANSWERS.format(split=split))["annotations"]
        # Few answers differ: of equal ones, one stays in memory
        answers = {
            each["question_id"]: (tuple(sys.intern(a["answer"]) for a in each["answers"]), sys.intern(each["answer_type"]))
            for each in found
        }
    asked = sorted(
        read_json_file(folder / VQA_QUESTIONS.format(split=split))["questions"], key=lambda each: each["question_id"]
    )
    questions = [Question(each["question"], *answers.get(each["question_id"], ())) for each in asked]
    rows = [(each["question_id"], each["image_id"], question) for each, question in zip(asked, questions, strict=True)]

    def load(row: tuple[int, int, Question]) -> Example:
        path = folder / images / f"COCO_{images}_{row[1]:012d}.jpg"
        return Example(str(row[0]), read_rgb(path), row[2])

    return StoredExamples(rows, load, questions)


def read_gqa(folder: Path, split: str) -> StoredExamples:
    """Return questions by id; those of the challenge have no answers."""
    content = sorted(read_json_file(folder / f"questions1.2/{split}_questions.json").items())
    questions = [Question(each["question"], (each["answer"],) if "answer" in each else ()) for _, each in content]
    rows = [(key, each["imageId"], question) for (key, each), question in zip(content, questions, strict=True)]

    def load(row: tuple[str, str, Question]) -> Example:
        return Example(row[0], read_rgb(folder / f"images/{row[1]}.jpg"), row[2])

    return StoredExamples(rows, load, questions)


QUESTION_BENCHMARKS = (
    OfficialBenchmark(
        name="vqav2",
        title="VQAv2",
        site="the Visual Question Answering page (visualqa.org); images of COCO 2014",
        layout=(VQA_QUESTIONS, "*/*.jpg"),
        read=read_vqa,
        measure=QuestionMeasure,
        metrics=VQA_METRICS,
        protocol="official accuracy, with the answer normalization",
        split="val2014",
        splits=("train2014", "val2014", "test-dev2015", "test2015"),
        train_split="train2014",
        view="crop",
        sizes={"train2014": 443757, "val2014": 214354, "test2015": 447793},
    ),
    OfficialBenchmark(
        name="gqa",
        title="GQA",
        site="the GQA page of Stanford University (cs.stanford.edu)",
        layout=("questions1.2/{split}_questions.json", "images/*.jpg"),
        read=read_gqa,
        measure=lambda run: QuestionMeasure(run, exact=True),
        metrics=(ACCURACY,),
        protocol="answers that are equal to the right one",
        split="testdev_balanced",
        splits=("train_balanced", "val_balanced", "testdev_balanced", "test_balanced"),
        train_split="train_balanced",
        view="crop",
        sizes={"testdev_balanced": 12578},
    ),
)
