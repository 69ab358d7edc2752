"""How sure a segmentation is of its classes."""

import pytest
import torch

from fourfold.labelers.certainty import class_certainty


@pytest.mark.parametrize("rows", [1, 32, 75])
def test_it_is_the_mean_probability_of_the_most_probable_class(rows):
    scores_HWK = torch.randn(rows, 9, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 4
    wanted = torch.softmax(scores_HWK, -1).amax(-1).mean().item()
    for scores_KHW in (scores_HWK.permute(2, 0, 1), scores_HWK.permute(2, 0, 1).contiguous()):
        assert class_certainty(scores_KHW, are_logits=True) == pytest.approx(wanted, abs=1e-6)


def test_shares_of_masks_are_scaled_to_1_and_pixels_without_any_count_as_0():
    shares_KHW = torch.tensor([[[0.2, 0.0]], [[0.6, 0.0]]])
    assert class_certainty(shares_KHW, are_logits=False) == pytest.approx((0.75 + 0) / 2)
