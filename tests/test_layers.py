"""The arrows between the three rooms that must never exist (docs: CONTRIBUTING, "Rooms"). Read from the imports alone."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLATFORM = ("kedro", "kedro_viz", "mlflow", "dvc", "great_expectations", "kubernetes")
STAGES = ("ingestion", "pseudo_labeling", "tokenizer_training", "pretraining", "finetuning", "evaluation")


def imports(path: Path) -> Iterator[str]:
    """Yield the full name of everything that a file imports, at its top or inside a function."""
    package = path.relative_to(ROOT / "src" if path.is_relative_to(ROOT / "src") else ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) + "." if node.level else ""
            yield from (f"{base}{node.module or ''}".strip(".") + f".{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and _name(node.func) == "import_module" and isinstance(node.args[0], ast.Constant):
            yield str(node.args[0].value)


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")


def arrows(folder: str, forbidden: tuple[str, ...], pattern: str = "**/*.py") -> list[str]:
    """Return every import in `folder` of a forbidden package or what is below it, as "file → import"."""
    return [
        f"{path.relative_to(ROOT)} → {name}"
        for path in sorted((ROOT / folder).glob(pattern))
        for name in imports(path)
        if any(name == package or name.startswith(f"{package}.") for package in forbidden)
    ]


def test_the_science_knows_no_platform_and_no_story():
    assert arrows("src/fourfold", (*PLATFORM, "pipelines", "fourfold_ops")) == []


def test_the_platform_knows_neither_science_nor_story():
    assert arrows("src/fourfold_ops", ("fourfold", "pipelines")) == []


def test_the_model_knows_no_data_since_a_loader_yields_plain_tensors():
    assert arrows("src/fourfold/model", ("fourfold.data",)) == []


@pytest.mark.parametrize("stage", STAGES)
def test_stages_meet_only_through_names_in_the_catalog(stage):
    others = tuple(f"pipelines.{other}" for other in STAGES if other != stage)
    assert arrows(f"pipelines/{stage}", others) == []


def test_nodes_take_data_as_arguments_and_never_look_for_it_themselves():
    assert arrows("pipelines", (*PLATFORM, "os", "environ", "fourfold_ops"), "*/nodes.py") == []


def test_no_node_names_a_path():
    for path in sorted((ROOT / "pipelines").glob("*/nodes.py")):
        texts = [
            n.value for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Constant) and isinstance(n.value, str)
        ]
        named = [text for text in texts if text.startswith(("data/", "conf/", "/", "./"))]
        assert named == [], f"{path.relative_to(ROOT)} names {named}: paths stand only in conf/base/catalog.yml"


def test_only_one_module_would_talk_to_kubernetes():
    assert {arrow.split(" ")[0] for arrow in arrows("src", ("kubernetes",))} <= {
        "src/fourfold_ops/kubernetes/cluster/client.py"
    }


def test_all_six_stage_folders_have_one_shape():
    for stage in STAGES:
        assert {"__init__.py", "nodes.py", "pipeline.py"} == {path.name for path in (ROOT / "pipelines" / stage).glob("*.py")}


def test_the_reader_of_imports_sees_every_way_to_write_one(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "src/fourfold/model").mkdir(parents=True)
    lines = ["from ..data import shards", "def f():\n    import mlflow.pyfunc as p", "importlib.import_module('dvc.repo')"]
    (tmp_path / "src/fourfold/model/m.py").write_text("\n".join(lines))
    assert len(arrows("src/fourfold/model", ("fourfold.data", "mlflow", "dvc"))) == 3
