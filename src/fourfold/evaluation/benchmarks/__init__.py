"""Public benchmarks: one reader per official layout. Import `BENCHMARKS` from here.

Plug-ins register theirs in their `register()` (docs/guides/add-a-benchmark.md).
"""

from fourfold.evaluation.benchmarks.class_folders import CLASS_FOLDERS
from fourfold.evaluation.benchmarks.protocol import BENCHMARKS, Benchmark, evaluate_benchmarks

BENCHMARKS.register(CLASS_FOLDERS.name, CLASS_FOLDERS)

__all__ = ["BENCHMARKS", "Benchmark", "evaluate_benchmarks"]
