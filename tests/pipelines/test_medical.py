"""The commands of docs/guides/use-medical-scans.md, one after the other, on scans of made-up patients, with tiny networks."""

import json
import os
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from checkout import clone
from medical_files import PHI, write_patients
from preloaded import Command
from shared import made_once
from tiny import PARAMETERS, VQVAE

from fourfold.data.shards import ShardSet
from fourfold.generation.serving import NUM_AXES
from fourfold.medical.serving import ServedScanModel
from fourfold.modalities import LABELS, TOKEN_MODALITIES
from fourfold.tokenizers.formats import DENSE_FORMATS
from pipelines.demo import notice

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs/guides/use-medical-scans.md"
CONF = ROOT / "conf/medical/parameters.yml"
LIMIT = 600  # seconds
PATIENTS = 12
SMALL = {
    "num_threads": 1,
    "ingestion": {"image_size": 32, "samples_per_shard": 16, "val_share": 0.2, "test_share": 0.2, "cleaning": {"min_side": 8}},
    "tokenizer_training": {
        "grid": [4, 4],
        "visual": dict.fromkeys(("rgb", "t2", "canny_edge"), VQVAE | {"batch_size": 8}),
    },
    "pretraining": PARAMETERS["pretraining"] | {"total_tokens": 2304, "warmup_tokens": 576, "validation_samples": 8},
    "finetuning": PARAMETERS["finetuning"],
    "evaluation": PARAMETERS["evaluation"],
}


def merged(base: dict, other: dict) -> dict:
    """Values of `other` over those of `base`, as Kedro merges environments."""
    both = {k: merged(base[k], v) if isinstance(v, dict) and isinstance(base.get(k), dict) else v for k, v in other.items()}
    return {**base, **both}


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A clone in which the commands of the guide have run, with their outputs."""

    def make(folder: Path) -> None:
        small = merged(yaml.safe_load(CONF.read_text()), SMALL)
        clone(folder, files={str(CONF.relative_to(ROOT)): yaml.safe_dump(small, sort_keys=False)})
        write_patients(folder / "datasets/scans", PATIENTS, depth=3)
        Image.new("L", (40, 40), 90).save(folder / "scan.png")
        path = os.pathsep.join([str(folder / "src"), str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
        environment = {**os.environ, "PYTHONPATH": path}
        for number, command in enumerate(commands()):
            log = folder.with_suffix(f".{number}.log")
            done = Command(shlex.split(command), folder, environment, log)
            assert done.wait(LIMIT) == 0, f"{command}: {done.text()[-3000:]}"

    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        return made_once(tmp_path_factory, "medical project", make)


def commands() -> list[str]:
    return re.findall(r"^(kedro .*)$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_guide_trains_and_evaluates_a_model_of_several_scans(project):
    # 1) What is predicted, and what is left to few-shot fine-tuning
    metrics = json.loads((project / "data/05_reports/metrics.json").read_text())
    assert set(metrics["out_of_the_box"]) == {"rgb->t2", "rgb->caption", "rgb->canny_edge"}
    assert set(metrics["out_of_the_box"]["rgb->t2"]) == {"mae", "psnr"}
    assert set(metrics["transfer"]) == {"labeled_segmentation_8"}
    assert set(metrics["transfer"]["labeled_segmentation_8"]["miou"]) == {"pretrained", "scratch", "baseline"}
    # 2) Patients are in one split; the one without a mask is counted
    shards = ShardSet(project / "data/01_raw/shards")
    patients = {split: {key[:17] for key in shards.keys(split)} for split in shards.splits()}
    assert len(set().union(*patients.values())) == sum(map(len, patients.values())) == PATIENTS
    assert "No mask: the visit has no such scan" in (project / "data/02_labels/label_card.md").read_text()
    # 3) The commands that use the model
    assert {"t2.png", "caption.txt"} <= {path.name for path in (project / "predicted").iterdir()}
    assert (project / "back/rgb.png").is_file()


def test_the_registered_model_needs_no_plugin(project):
    tables = (LABELS, TOKEN_MODALITIES, DENSE_FORMATS, NUM_AXES)
    before = [dict(table) for table in tables]
    assert "t2" not in LABELS
    try:
        model = ServedScanModel.load(project / "data/04_models/any_to_any")
        (found,) = model.predict({"caption": ["a bright lesion"]}, targets=["t2"])["t2"]
        assert found.shape == (32, 32) and found.dtype == np.uint8
        assert set(model.predict({"t2": found[None]}, targets=["rgb"])) == {"rgb"}
        with pytest.raises(ValueError, match=r"'t2' of one sample has shape .* it must have 2 axes"):
            model.predict({"t2": found[None, ..., None]}, targets=["rgb"])
    finally:
        for table, entries in zip(tables, before, strict=True):
            table.clear()
            table.update(entries)
    catalog = yaml.safe_load((ROOT / "conf/medical/catalog.yml").read_text())
    assert catalog["registered_model"]["loader"] == f"{ServedScanModel.__module__}.{ServedScanModel.__name__}"


def test_the_warning_is_where_results_are_shown(project, monkeypatch):
    for name in ("report.html", "05_reports/model_card.md", "run.log"):
        assert "is no medical device" in (project / "data" / name).read_text(), name
    logs = [path.read_text() for path in sorted(project.parent.glob(f"{project.name}.*.log"))]
    assert len(logs) == 3 and all("is no medical device" in log for log in logs)
    monkeypatch.chdir(project)
    assert "is no medical device" in notice("medical") and notice(None) == ""
    assert "This is no medical device" in GUIDE.read_text(encoding="utf-8")


def test_nothing_that_a_run_writes_names_a_patient(project):
    """Also not the record of the run: MLflow's database, artifacts, the patch of uncommitted changes, DVC's lock."""
    secrets = [name.lower().encode() for name in PHI.split("^")]
    texts = [path for path in project.rglob("*") if path.is_file() and path.is_relative_to(project / "data")]
    texts += [project / "dvc.lock", project / "dvc.run.yml", *project.parent.glob(f"{project.name}.*.log")]
    assert len(texts) > 100
    for path in texts:
        content = path.read_bytes().lower()
        assert not any(secret in content or secret.decode() in path.name.lower() for secret in secrets), path
