"""How `kedro reproduce` makes this machine compute as the one that made a past run."""

from collections.abc import Mapping

from fourfold.training.precision import ASSUME_BF16

# Names of torch, oneDNN and MKL for the instruction sets that torch reports, from the smallest.
INSTRUCTION_SETS = {
    "DEFAULT": {"ATEN_CPU_CAPABILITY": "default"},
    "AVX2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
    "AVX512": {"ATEN_CPU_CAPABILITY": "avx512"},
}


def variables(recorded: Mapping[str, str]) -> dict[str, str]:
    """Return environment variables with which a run rounds as the recorded one, where this machine can.

    A smaller instruction set, float32 instead of bfloat16 and the CPU instead of a GPU are possible everywhere. What this
    machine lacks is left to it, and the report names the difference. The number of threads is a parameter of the run.

    Args:
        recorded: Facts about the machine by "stage.name", as `fourfold.training.precision.compute_facts` has them.
    """
    import torch

    found: dict[str, str] = {}
    if _values(recorded, "precision") == {"fp32"}:
        found[ASSUME_BF16] = "0"
    if _values(recorded, "device") == {"cpu"} and torch.cuda.is_available():
        found["CUDA_VISIBLE_DEVICES"] = ""
    sets = {value.partition(",")[0] for value in _values(recorded, "instruction_set")}
    order, here = list(INSTRUCTION_SETS), torch.backends.cpu.get_cpu_capability()
    if len(sets) == 1 and sets <= set(order) and here in order:
        (wanted,) = sets
        if order.index(wanted) < order.index(here):
            found |= INSTRUCTION_SETS[wanted]
    return found


def _values(recorded: Mapping[str, str], name: str) -> set[str]:
    return {value for key, value in recorded.items() if key.rpartition(".")[2] == name}
