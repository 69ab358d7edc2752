"""VQAv2 (Goyal et al. 2017, arXiv 1612.00837) and GQA (Hudson and Manning 2019, arXiv 1902.09506)."""

from collections.abc import Iterator
from pathlib import Path

from fourfold.evaluation.benchmarks.object_measures import Question, QuestionMeasure
from fourfold.evaluation.benchmarks.official import Example, OfficialBenchmark
from fourfold.evaluation.benchmarks.sets.reading import read_json_file, read_rgb
from fourfold.metrics.metric import Metric

ACCURACY = Metric("accuracy", "accuracy", "of the official evaluation, 0 to 1")
VQA_METRICS = (ACCURACY, *(Metric(f"accuracy_{kind}", kind, "accuracy") for kind in ("yes/no", "number", "other")))
VQA_QUESTIONS = "v2_OpenEnded_mscoco_{split}_questions.json"
VQA_ANSWERS = "v2_mscoco_{split}_annotations.json"


def read_vqa(folder: Path, split: str) -> Iterator[Example]:
    """Yield questions by id; those of a test split have no answers. The images are those of COCO 2014 (test: 2015)."""
    images = "test2015" if split.startswith("test") else split
    answers = {}
    if not split.startswith("test"):
        found = read_json_file(folder / VQA_ANSWERS.format(split=split))["annotations"]
        answers = {each["question_id"]: (tuple(a["answer"] for a in each["answers"]), each["answer_type"]) for each in found}
    for each in sorted(read_json_file(folder / VQA_QUESTIONS.format(split=split))["questions"], key=lambda q: q["question_id"]):
        known, kind = answers.get(each["question_id"], ((), ""))
        path = folder / images / f"COCO_{images}_{each['image_id']:012d}.jpg"
        yield Example(str(each["question_id"]), read_rgb(path), Question(each["question"], known, kind))


def read_gqa(folder: Path, split: str) -> Iterator[Example]:
    """Yield questions by id; those of the challenge have no answers."""
    content = read_json_file(folder / f"questions1.2/{split}_questions.json")
    for key in sorted(content):
        entry = content[key]
        answers = (entry["answer"],) if "answer" in entry else ()
        yield Example(key, read_rgb(folder / f"images/{entry['imageId']}.jpg"), Question(entry["question"], answers))


QUESTION_BENCHMARKS = (
    OfficialBenchmark(
        name="vqav2",
        title="VQAv2",
        site="the Visual Question Answering page (visualqa.org); images of COCO 2014",
        layout=(VQA_QUESTIONS, "*/*.jpg"),
        read=read_vqa,
        measure=QuestionMeasure,
        metrics=VQA_METRICS,
        protocol="official accuracy of generated answers, with the answer normalization",
        split="val2014",
        splits=("train2014", "val2014", "test-dev2015", "test2015"),
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
        protocol="generated answers that are equal to the right one",
        split="testdev_balanced",
        splits=("train_balanced", "val_balanced", "testdev_balanced", "test_balanced"),
        view="crop",
        sizes={"testdev_balanced": 12578},
    ),
)
