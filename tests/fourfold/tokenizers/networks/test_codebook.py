"""The codebook against numbers of the 4M reference, and properties that any codebook must have."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fourfold.seeds import torch_generator
from fourfold.tokenizers.networks.codebook import CosineCodebook

REFERENCE = Path(__file__).parents[3] / "reference" / "codebook_ema.npz"


@pytest.fixture(scope="module")
def reference() -> dict[str, torch.Tensor]:
    with np.load(REFERENCE, allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays}


def codebook_before(reference, threshold: float = 0.0) -> CosineCodebook:
    codebook = CosineCodebook(64, 16, decay=float(reference["decay"]), dead_code_threshold=threshold)
    codebook.codes_KD.copy_(reference["embed_before"])
    codebook.counts_K.copy_(reference["cluster_size_before"])
    return codebook


def test_two_updates_match_the_reference(reference):
    codebook = codebook_before(reference)
    for step in ("step1", "step2"):
        quantized = codebook(reference[f"{step}/latents"])
        assert torch.equal(quantized.tokens, reference[f"{step}/tokens"])
        torch.testing.assert_close(quantized.codes, reference[f"{step}/quantized"], atol=1e-6, rtol=0)
        codebook.update(reference[f"{step}/latents"], quantized.tokens)
        torch.testing.assert_close(codebook.codes_KD, reference[f"{step}/embed_after"], atol=1e-6, rtol=0)
        torch.testing.assert_close(codebook.counts_K, reference[f"{step}/cluster_size_after"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("case", ["dead", "dead_many"])
def test_dead_codes_are_replaced_as_in_the_reference(reference, case, monkeypatch):
    codebook = codebook_before(reference, float(reference[f"{case}/threshold"]))
    monkeypatch.setattr(codebook, "pick", lambda *_: reference[f"{case}/picked_latent_index"])
    latents = reference["step1/latents"]
    num_replaced = codebook.update(latents, codebook(latents).tokens)
    assert num_replaced == int(reference[f"{case}/expired"].sum())
    torch.testing.assert_close(codebook.codes_KD, reference[f"{case}/embed_after"], atol=1e-6, rtol=0)
    torch.testing.assert_close(codebook.counts_K, reference[f"{case}/cluster_size_after"], atol=1e-6, rtol=0)


def test_split_copies_the_most_used_codes_as_in_the_reference(reference):
    codebook = codebook_before(reference, float(reference["dead/threshold"]))
    codebook.replacement = "split"
    latents = reference["step1/latents"]
    num_replaced = codebook.update(latents, codebook(latents).tokens, torch_generator(0, "noise"))
    assert num_replaced == int(reference["dead_lbg/expired"].sum())
    torch.testing.assert_close(codebook.codes_KD, reference["dead_lbg/embed_after"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("replacement", ["random", "distant"])
@pytest.mark.parametrize(("num_latents", "num_needed"), [(96, 7), (96, 96), (5, 9)])
def test_dead_codes_get_different_latents_if_there_are_enough(num_latents, num_needed, replacement):
    latents = F.normalize(torch.randn(num_latents, 8, generator=torch_generator(0, "latents")), dim=-1)
    codebook = CosineCodebook(4, 8, replacement=replacement)
    picked = codebook.pick(latents, num_needed, torch_generator(0, "pick"))
    assert len(picked) == num_needed and picked.min() >= 0 and picked.max() < num_latents
    assert num_latents < num_needed or len(picked.unique()) == num_needed


def test_gradient_passes_straight_through_to_the_latents(reference):
    latents = reference["step1/latents"].clone().requires_grad_()
    quantized = codebook_before(reference)(latents)
    weights = torch.randn(latents.shape, generator=torch_generator(0, "weights"))
    (quantized.straight_through * weights).sum().backward()
    torch.testing.assert_close(latents.grad, weights)
    torch.testing.assert_close(quantized.straight_through, quantized.codes)


def test_kmeans_finds_well_separated_clusters():
    generator = torch_generator(0, "clusters")
    centers = F.normalize(torch.eye(8), dim=-1)
    latents = (centers[:, None] + 0.05 * torch.randn(8, 100, 8, generator=generator)).flatten(0, 1)
    codebook = CosineCodebook(32, 8)
    codebook.initialize(latents, generator)
    similarity = F.cosine_similarity(codebook.codes(codebook.match(latents)), latents)
    assert similarity.min() > 0.9
    assert len(codebook.match(latents).unique()) == 32
