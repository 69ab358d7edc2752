"""Two ranks with half a batch each must end where one rank with the whole batch does."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fourfold.seeds import numpy_generator

from .codebook_rank import KINDS, updated

SCRIPT = Path(__file__).with_name("codebook_rank.py")


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> list[dict[str, np.ndarray]]:
    """Return the codebooks of one rank, of rank 0 of two, and of rank 1 of two."""
    folder = tmp_path_factory.mktemp("ranks")
    latents = numpy_generator(0, "latents").normal(size=(3, 4, 5, 6)).astype(np.float32)
    np.save(folder / "latents.npy", latents)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    commands = [[sys.executable, str(SCRIPT), str(rank), "2", str(folder / "meet"), str(folder)] for rank in (0, 1)]
    running = [subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for command in commands]
    for process in running:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors
    of_two = [dict(np.load(folder / f"rank{rank}of2.npz")) for rank in (0, 1)]
    return [updated(latents, 0, 1), *of_two]


@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_update_codes_like_one_with_the_whole_batch(results, kind):
    whole, first, second = results
    np.testing.assert_array_equal(first[f"{kind}_codes"], second[f"{kind}_codes"])
    np.testing.assert_array_equal(first[f"{kind}_counts"], whole[f"{kind}_counts"])
    np.testing.assert_allclose(first[f"{kind}_codes"], whole[f"{kind}_codes"], atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_replace_equally_many_dead_codes(results, kind):
    whole, first, second = (found[f"{kind}_replaced"] for found in results)
    assert whole.sum() > 0 and first.tolist() == second.tolist() == whole.tolist()
