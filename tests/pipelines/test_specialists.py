"""`kedro run --pipelines=specialists` after a finished run: the table, with the evaluation's numbers for the generalist."""

import json
import shutil

import pytest
import yaml
from checkout import start_run
from tiny import ENVIRONMENT

FIT = {"steps": 2, "batch_size": 4}
UNET = {"width": 4, "depth": 2, "fit": FIT}
DETECTOR = {"widths": [8, 8, 16], "blocks": [1, 1, 1], "pyramid_width": 32, "fit": FIT}
FINETUNED = ["finetuned_depth", "finetuned_segmentation", "finetuned_boxes"]
HEADS = {
    "dense": {"width": 8, "depth": 1, "predictions_per_patch": 4},
    "boxes": {"width": 16, "hidden": 16, "pool_side": 3, "proposals": 30, "sampled_boxes": 32, "max_boxes": 10},
}
SPECIALISTS = {
    "settings": {
        **{"unet_depth": UNET, "unet_segmentation": UNET, "faster_rcnn": DETECTOR, "fcos": DETECTOR},
        **{name: {"fit": FIT, "heads": HEADS} for name in FINETUNED},
    },
    "latency_rounds": 1,
    "gallery_samples": 1,
}
TOGETHER = ["together_faster_rcnn", "together_fcos", "finetuned_together"]
ROWS = ["unet_depth", "unet_segmentation", "faster_rcnn", "fcos", *TOGETHER[:2], *FINETUNED, TOGETHER[2]]


@pytest.mark.slow
def test_specialists_are_compared_with_the_generalist_of_a_finished_run(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "project", symlinks=True)
    path = folder / f"conf/{ENVIRONMENT}/parameters.yml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"specialists": SPECIALISTS}))
    results = folder / "data/specialists"
    before = (folder / "dvc.lock").read_bytes()
    command = start_run(folder, f"--env={ENVIRONMENT}", "--pipelines=specialists")
    assert command.wait(300) == 0, command.text()[-3000:]
    metrics, table = (json.loads((results / f"{name}.json").read_text()) for name in ("metrics", "comparison"))
    assert metrics["order"] == [*ROWS, "generalist", "teachers", "trivial"] == [row["name"] for row in table["rows"]]
    # the same samples and metrics as the evaluation, to the last digit
    evaluated = json.loads((folder / "data/05_reports/metrics.json").read_text())["out_of_the_box"]
    for name, column in (("generalist", "value"), ("teachers", "teacher"), ("trivial", "trivial")):
        scores = metrics["rows"][name]["scores"]
        for pair in ("rgb->depth", "rgb->semseg", "rgb->det"):
            wanted = {metric: entry[column] for metric, entry in evaluated[pair].items() if entry[column] is not None}
            assert {metric: entry["value"] for metric, entry in scores[pair].items()} == wanted, (name, pair)
    assert (
        metrics["rows"]["generalist"]["scores"]["rgb->depth"]["abs_rel"]["ci95"] == evaluated["rgb->depth"]["abs_rel"]["ci95"]
    )
    # every row has a latency for each task, and rows of several tasks one for all together
    costs = json.loads((results / "costs.json").read_text())
    assert set(costs["latency"]) == set(metrics["rows"]) - {"trivial"}
    assert all(
        set(costs["latency"][name]) == {"depth", "semseg", "det", "all"} for name in (*TOGETHER, "generalist", "teachers")
    )
    assert costs["training"]["generalist"][0]["seconds"] > 0 and costs["training"]["fcos"][0]["peak_megabytes"] > 0
    sizes = {name: row["size"] for name, row in metrics["rows"].items()}
    assert sizes["together_fcos"]["networks"] == 3 == sizes["generalist"]["networks"]
    assert sizes["together_fcos"]["parameters"] == sum(
        sizes[n]["parameters"] for n in ("unet_depth", "unet_segmentation", "fcos")
    )
    assert sizes["finetuned_together"]["networks"] == 3
    assert set(metrics["rows"]["finetuned_together"]["scores"]) == {"rgb->depth", "rgb->semseg", "rgb->det"}
    assert sizes["teachers"]["networks"] == 1  # one network for all three
    assert "| U-Net after DenseDepth |" in (results / "comparison.md").read_text()
    assert "data:image/png" in (results / "comparison.html").read_text()
    assert (folder / "dvc.lock").read_bytes() == before  # DVC does not track this pipeline
