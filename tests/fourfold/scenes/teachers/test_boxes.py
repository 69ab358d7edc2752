import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fourfold.metrics.boxes import average_precision_50
from fourfold.scenes.teachers.boxes import box_loss, box_maps, cell_centers, decode_boxes

CLASSES = ("sphere", "box", "cylinder", "cone")


def instance(cell_x: int, cell_y: int, half: float, name: str) -> dict:
    x, y = (cell_x + 0.5) / 16, (cell_y + 0.5) / 16
    return {"box": [x - half, y - half, x + half, y + half], "class_name": name, "score": 1.0}


def logits_of(heat: torch.Tensor) -> torch.Tensor:
    return torch.logit(heat.clamp(1e-4, 1 - 1e-4))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([(3, 3), (3, 12), (12, 3), (12, 12), (8, 8)]), unique=True, max_size=5), st.data())
def test_boxes_are_recovered_from_their_maps(places: list[tuple[int, int]], data: st.DataObject) -> None:
    boxes = [instance(x, y, data.draw(st.floats(0.06, 0.14)), data.draw(st.sampled_from(CLASSES))) for x, y in places]
    heat, sides = box_maps([{"instances": boxes}], CLASSES, (16, 16))
    found = decode_boxes(logits_of(heat), sides - cell_centers(16, 16), CLASSES, 20, 0.5)
    assert len(found[0]["instances"]) == len(boxes)
    if boxes:
        assert average_precision_50(found, [{"instances": boxes}]) == pytest.approx(1)


def test_the_loss_is_smallest_for_the_true_maps() -> None:
    heat, sides = box_maps([{"instances": [instance(4, 5, 0.2, "cone")]}], CLASSES, (16, 16))
    offsets = sides - cell_centers(16, 16)
    right = box_loss(logits_of(heat), offsets, heat, sides)
    assert right < 0.3
    assert box_loss(logits_of(heat), offsets + 0.1, heat, sides) > right + 0.5
    assert box_loss(logits_of(heat.roll(3, -1)), offsets, heat, sides) > right + 1


def test_no_object_gives_no_box_and_a_finite_loss() -> None:
    heat, sides = box_maps([{"instances": []}], CLASSES, (8, 8))
    assert torch.isfinite(box_loss(logits_of(heat), torch.zeros_like(sides), heat, sides))
    assert decode_boxes(logits_of(heat), torch.zeros_like(sides), CLASSES, 5, 0.1) == [{"instances": []}]


def test_decoded_boxes_are_sorted_inside_the_image_and_limited() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 4, 8, 8, generator=generator)
    offsets = torch.randn(3, 4, 8, 8, generator=generator)
    for sample in decode_boxes(logits, offsets, CLASSES, 6, 0.4):
        scores = [found["score"] for found in sample["instances"]]
        assert scores == sorted(scores, reverse=True)
        assert len(scores) <= 6
        assert min(scores) >= 0.4
        for found in sample["instances"]:
            xmin, ymin, xmax, ymax = found["box"]
            assert 0 <= xmin < xmax <= 1
            assert 0 <= ymin < ymax <= 1


def test_heat_is_1_in_the_cell_of_the_center() -> None:
    boxes = [instance(2, 9, 0.1, "box"), instance(11, 4, 0.2, "sphere")]
    heat, _ = box_maps([{"instances": boxes}], CLASSES, (16, 16))
    assert np.argwhere(heat[0].numpy() == 1).tolist() == [[0, 4, 11], [1, 9, 2]]
