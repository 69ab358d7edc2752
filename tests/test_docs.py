"""Settings shown in the documentation are valid, and the guide for a new stage works."""

import re
import sys
from pathlib import Path

import pytest
import yaml

from fourfold.pretraining.config import PretrainConfig
from fourfold.tokenizers.config import TokenizersConfig

ROOT = Path(__file__).parents[1]
SECTIONS = {"tokenizer_training": TokenizersConfig, "pretraining": PretrainConfig}
BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in sorted(ROOT.glob("docs/**/*.md"))
    for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
    if any(f"{name}:" in block.splitlines()[0] for name in SECTIONS)
]


def test_documentation_shows_settings():
    assert len(BLOCKS) >= 5


@pytest.mark.parametrize("block", BLOCKS)
def test_settings_in_the_documentation_are_valid(block):
    for name, values in yaml.safe_load(block).items():
        SECTIONS[name](**values)


def test_the_stage_guide_runs(tmp_path, monkeypatch):
    """Write the files of the guide, then run its pipeline on real shards."""
    from kedro.io import DataCatalog, MemoryDataset
    from kedro.runner import SequentialRunner

    guide = (ROOT / "docs/guides/add-a-stage.md").read_text(encoding="utf-8")
    nodes, pipeline, package = re.findall(r"```python\n(.*?)```", guide, re.DOTALL)
    folder = tmp_path / "statistics_stage"
    folder.mkdir()
    # The guide's package is pipelines.statistics; here it is imported from a temporary folder.
    (folder / "__init__.py").write_text(package.replace("pipelines.statistics", "statistics_stage"))
    (folder / "nodes.py").write_text(nodes)
    (folder / "pipeline.py").write_text(pipeline.replace("pipelines.statistics", "statistics_stage"))
    monkeypatch.syspath_prepend(str(tmp_path))

    from statistics_stage import create_pipeline

    class FourSamples:
        def splits(self):
            return ["train"]

        def num_samples(self, split):
            return 4

    catalog = DataCatalog({"shards": MemoryDataset(FourSamples()), "sample_counts": MemoryDataset()})
    SequentialRunner().run(create_pipeline(), catalog)
    assert catalog.load("sample_counts") == {"train": 4}
    sys.modules.pop("statistics_stage", None)


def test_the_stage_guide_catalog_entry_is_valid():
    from kedro.io import AbstractDataset

    guide = (ROOT / "docs/guides/add-a-stage.md").read_text(encoding="utf-8")
    ((name, entry),) = yaml.safe_load(re.search(r"```yaml\n(.*?)```", guide, re.DOTALL).group(1)).items()
    assert AbstractDataset.from_config(name, entry)
