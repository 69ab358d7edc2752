"""Settings that the pages show are settings."""

import re
from pathlib import Path

import pytest
import yaml

from fourfold.pretraining.config import PretrainConfig
from fourfold.tokenizers.config import TokenizersConfig

ROOT = Path(__file__).parents[1]
SECTIONS = {"tokenizer_training": TokenizersConfig, "pretraining": PretrainConfig}
BLOCKS = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in sorted(ROOT.glob("docs/*.md"))
    for number, block in enumerate(re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
    if any(f"{name}:" in block.splitlines()[0] for name in SECTIONS)
]


def test_pages_with_settings_were_found():
    assert len(BLOCKS) >= 5


@pytest.mark.parametrize("block", BLOCKS)
def test_settings_on_a_page_are_accepted(block):
    for name, values in yaml.safe_load(block).items():
        SECTIONS[name](**values)
