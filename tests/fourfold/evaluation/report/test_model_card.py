"""The model card: what the report says, as Markdown, and nothing that a run adds."""

import pytest

from fourfold.evaluation.report.model_card import model_card

ENTRY = {"value": 0.7, "trivial": 0.2, "shuffled": 0.25, "teacher": None, "ci95": [0.65, 0.75]}
METRICS = {
    "samples": 600,
    "reference": "exact truth",
    "out_of_the_box": {"rgb->semseg": {"miou": ENTRY}, "rgb->depth": {"abs_rel": ENTRY}},
    "pretraining": {"parameters": 2_800_000, "validation/loss": 1.5},
    "about": {"model": "ab" * 32},
    "left_out": ["The transfer results are left out."],
}
INGESTED = {"seen": 12, "kept": {"train": 8, "test": 3}}


def test_the_card_has_results_data_and_limits():
    card = model_card(METRICS, INGESTED, "The numbers mean nothing.")
    assert (
        card.index("> The numbers mean nothing.") < card.index("## Model") < card.index("## Results") < card.index("## Limits")
    )
    assert "| RGB → segmentation | mIoU ↑ | 0.700 | 0.650 to 0.750 | – | 0.200 | 0.250 |" in card
    assert "11 of 12 samples were kept (train 8, test 3)" in card and "- 2,800,000 parameters" in card
    assert "`abababababababab`" in card and "- The transfer results are left out." in card
    limits = card[card.index("## Limits") :]
    assert "RGB → depth, AbsRel: not better than the trivial answer." in limits and "segmentation" not in limits


@pytest.mark.parametrize("metrics", [{}, {"out_of_the_box": {}, "pretraining": {}}])
def test_what_is_not_known_is_said(metrics):
    card = model_card(metrics, {})
    assert "Not evaluated." in card and "Not recorded." in card and "None" not in card
