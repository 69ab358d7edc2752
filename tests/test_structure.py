"""Structure that import-linter does not check; `make lint` checks the import contracts of pyproject.toml."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAGES = ("ingestion", "pseudo_labeling", "tokenizer_training", "pretraining", "finetuning", "evaluation")


@pytest.mark.parametrize("stage", STAGES)
def test_stage_folder_has_nodes_and_pipeline(stage):
    assert {path.name for path in (ROOT / "pipelines" / stage).glob("*.py")} == {"__init__.py", "nodes.py", "pipeline.py"}


@pytest.mark.parametrize("stage", STAGES)
def test_nodes_contain_no_path(stage):
    tree = ast.parse((ROOT / "pipelines" / stage / "nodes.py").read_text(encoding="utf-8"))
    texts = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    # Paths belong in conf/base/catalog.yml.
    assert [text for text in texts if text.startswith(("data/", "conf/", "/", "./"))] == []


@pytest.mark.parametrize("stage", STAGES)
def test_nodes_read_no_environment_variable(stage):
    source = (ROOT / "pipelines" / stage / "nodes.py").read_text(encoding="utf-8")
    assert "environ" not in source and "getenv" not in source
