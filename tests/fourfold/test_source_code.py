"""The code that a result depends on: the import closure, and digests that comments and docstrings do not change."""

import re
import sys
import zlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from fourfold import source_code
from fourfold.source_code import closure, module_digests, modules_of

FILES = {
    "__init__": "from my_team_{n} import always\n",
    "always": "",
    "labelers": "from fourfold import seeds\nfrom my_team_{n}.deep import networks\n\n\ndef build():\n    return networks\n",
    "deep/__init__": "import my_team_{n}.deep.setup\n",
    "deep/setup": "",
    "deep/networks": "def train():\n    from my_team_{n} import lazy\n    return lazy\n",
    "lazy": "",
    "types": "",
    "typed": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from my_team_{n} import types\n",
    "unused": "",
}


@pytest.fixture
def team(tmp_path, monkeypatch, request):
    """Return the name and folder of a plug-in package that exists only in this test."""
    number = zlib.crc32(request.node.name.encode())
    name = f"my_team_{number}"
    for path, content in FILES.items():
        file = tmp_path / name / f"{path}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content.format(n=number))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield name, tmp_path / name
    clear_caches()


def clear_caches():
    for function in (source_code._import_graph, source_code._digest):
        function.cache_clear()


def digests(name):
    clear_caches()
    return module_digests([f"{name}.labelers"])


def test_closure_holds_packages_and_imports_inside_functions(team):
    name, _ = team
    wanted = ["", ".always", ".deep", ".deep.networks", ".deep.setup", ".labelers", ".lazy"]
    assert [m for m in closure([f"{name}.labelers"]) if m.startswith(name)] == [name + suffix for suffix in wanted]
    assert {"fourfold", "fourfold.seeds"} <= set(closure([f"{name}.labelers"]))


def test_imports_for_type_checking_do_not_count(team):
    name, _ = team
    assert f"{name}.types" not in closure([f"{name}.typed"])


def test_single_file_plugin_is_read_too(tmp_path, monkeypatch):
    (tmp_path / "single_plugin.py").write_text("from fourfold.metrics import boxes\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert {"single_plugin", "fourfold.metrics.boxes"} <= set(module_digests(["single_plugin"]))


def test_unknown_entry_point_is_refused():
    with pytest.raises(ValueError, match=r"'fourfold.nowhere' is not a module of fourfold"):
        closure(["fourfold.nowhere"])


@pytest.mark.parametrize(
    "edited",
    [
        '"""A docstring."""\nfrom my_team_{n} import always\n',
        "# a comment\n\n\nfrom my_team_{n} import always  # why\n",
        "from my_team_{n} import (\n    always,\n)\n",
    ],
)
def test_docstrings_comments_and_layout_do_not_change_a_digest(team, edited):
    name, folder = team
    before = digests(name)
    (folder / "__init__.py").write_text(edited.format(n=name.rpartition("_")[2]))
    assert digests(name) == before


@pytest.mark.parametrize("file", ["labelers", "lazy", "deep/networks", "deep/__init__"])
def test_changed_code_changes_the_digest_of_its_module_only(team, file):
    name, folder = team
    before = digests(name)
    path = folder / f"{file}.py"
    path.write_text(path.read_text() + "\nVALUE = 1\n")
    after = digests(name)
    module = f"{name}.{file.removesuffix('/__init__').replace('/', '.')}"
    assert {key for key in before if before[key] != after[key]} == {module}


def test_module_that_is_not_reached_does_not_count(team):
    name, folder = team
    before = digests(name)
    (folder / "unused.py").write_text("VALUE = 1\n")
    assert digests(name) == before


@dataclass
class Entry:
    title: str
    build: object


def test_registry_entries_count_with_the_modules_that_define_them():
    from fourfold.metrics.boxes import box_iou
    from fourfold.seeds import derive_seed

    entry = Entry("boxes", partial(box_iou, 1))
    assert set(modules_of([entry, derive_seed])) == {__name__, "fourfold.metrics.boxes", "fourfold.seeds"}


def test_installed_packages_count_by_version():
    import numpy

    assert module_digests(modules_of([numpy.random.default_rng])) == {"numpy": f"version {numpy.__version__}"}


def test_standard_library_does_not_count():
    assert modules_of([sys.exit, partial(print)]) == []


def test_only_plugins_are_imported_by_name():
    """Static analysis cannot follow an import by name; plug-ins are covered by `modules_of` instead."""
    package = Path(source_code.__file__).parent
    # `importlib.metadata` and `find_spec` only look what is installed
    pattern = re.compile(r"\bimport importlib$|\bimport_module\b|__import__|\bexec_module\b|\bspec_from", re.MULTILINE)
    found = {path.relative_to(package).as_posix() for path in package.rglob("*.py") if pattern.search(path.read_text())}
    assert found == {"plugins.py", "scenes/__init__.py", "medical/__init__.py"}
