"""Public benchmarks: one reader per official layout. Import `BENCHMARKS` from here.

Plug-ins register theirs in their `register()` (docs/guides/add-a-benchmark.md).
"""

from fourfold.evaluation.benchmarks.class_folders import CLASS_FOLDERS
from fourfold.evaluation.benchmarks.official import OfficialBenchmark
from fourfold.evaluation.benchmarks.protocol import BENCHMARKS, Benchmark, evaluate_benchmarks
from fourfold.evaluation.benchmarks.sets.depth import DEPTH_BENCHMARKS
from fourfold.evaluation.benchmarks.sets.imagenet import IMAGENET_BENCHMARKS
from fourfold.evaluation.benchmarks.sets.objects import OBJECT_BENCHMARKS
from fourfold.evaluation.benchmarks.sets.questions import QUESTION_BENCHMARKS
from fourfold.evaluation.benchmarks.sets.segmentation import SEGMENTATION_BENCHMARKS

OFFICIAL = (
    *DEPTH_BENCHMARKS,
    *SEGMENTATION_BENCHMARKS,
    *OBJECT_BENCHMARKS,
    *QUESTION_BENCHMARKS,
    *IMAGENET_BENCHMARKS,
)
BENCHMARKS.register(CLASS_FOLDERS.name, CLASS_FOLDERS)
for _benchmark in OFFICIAL:
    BENCHMARKS.register(_benchmark.name, _benchmark)

__all__ = ["BENCHMARKS", "OFFICIAL", "Benchmark", "OfficialBenchmark", "evaluate_benchmarks"]
