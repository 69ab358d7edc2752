"""Deterministic kernels: the same step gives the same bytes, whatever else the machine does.

Some kernels of torch add up numbers in an order that depends on timing. On CPUs it is the gradient of an index with
equal entries (`table[rows]`, `put_` with `accumulate`): several threads add to one row. `F.embedding`, `index_select`,
`index_add`, `gather` and `scatter_add` are safe there: one thread adds to each row, in the order of the entries.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.utils.deterministic


@contextmanager
def deterministic_kernels(device: torch.device) -> Iterator[None]:
    """Let torch choose deterministic kernels inside the block, on CPUs; restore the previous choice afterward.

    GPUs are left as they are: there the switch needs `CUBLAS_WORKSPACE_CONFIG` before the first product, and costs more.
    """
    if device.type != "cpu":
        yield
        return
    was_enabled = torch.are_deterministic_algorithms_enabled()
    only_warned = torch.is_deterministic_algorithms_warn_only_enabled()
    memory: Any = torch.utils.deterministic  # its attribute is a property that type checkers do not see
    was_filled = memory.fill_uninitialized_memory
    _choose(True)
    memory.fill_uninitialized_memory = False  # it fills every new tensor, to find bugs
    try:
        yield
    finally:
        _choose(was_enabled, only_warned)
        memory.fill_uninitialized_memory = was_filled


def _choose(deterministic: bool, warn_only: bool = False) -> None:
    # `torch.use_deterministic_algorithms` does this, and imports the compiler to set it too, which takes seconds
    torch._C._set_deterministic_algorithms(deterministic, warn_only=warn_only)
