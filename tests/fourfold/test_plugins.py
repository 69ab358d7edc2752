"""Registries, and plug-ins that fill them."""

import sys

import pytest
from extension_points import restored

from fourfold.data.ingestion.sources import SOURCES
from fourfold.modalities import LABELS
from fourfold.plugins import Registry, load_plugins

COLORS: Registry[int] = Registry("color", "Register it in a plug-in.")
PLUGIN = """
from tests.fourfold.test_plugins import COLORS

def register():
    COLORS.register("teal", 0x008080)
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A plug-in package `my_colors`, forgotten after the test."""
    (tmp_path / "my_colors.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    yield "my_colors"
    sys.modules.pop("my_colors", None)
    if "teal" in COLORS:
        COLORS.remove("teal")


def test_names_are_sorted_whatever_the_order_of_registration():
    registry: Registry[int] = Registry("number")
    registry.register("two", 2)
    registry.register("one", 1)
    assert registry.names() == list(registry) == ["one", "two"]
    assert registry.items() == [("one", 1), ("two", 2)]
    assert len(registry) == 2 and "one" in registry and "three" not in registry


def test_unknown_name_is_an_error_with_suggestion_and_remedy():
    registry: Registry[int] = Registry("number", "Count again.")
    registry.register("three", 3)
    with pytest.raises(ValueError, match=r"Unknown number 'tree'. Did you mean 'three'\? Known: three. Count again."):
        registry.get("tree")


def test_second_entry_of_one_name_is_refused():
    registry: Registry[list] = Registry("number")
    entry: list = []
    assert registry.register("one", entry) is entry
    registry.register("one", entry)  # the same object: nothing changes
    with pytest.raises(ValueError, match="Two entries are registered as number 'one'"):
        registry.register("one", [])
    registry.remove("one")
    with pytest.raises(ValueError, match=r"Unknown number 'one'\. Known: none"):
        registry.remove("one")


def test_plugin_registers_when_loaded_not_when_imported(plugin):
    __import__(plugin)
    assert "teal" not in COLORS
    load_plugins([plugin])
    assert COLORS.get("teal") == 0x008080


def test_loading_twice_changes_nothing(plugin):
    load_plugins([plugin, plugin])
    load_plugins((plugin,))
    assert COLORS.names() == ["teal"]


def test_plugin_that_cannot_be_imported_is_one_clear_error():
    with pytest.raises(ValueError, match=r"Plug-in 'my_team.absent' cannot be imported: .*Correct the list `plugins` in conf/"):
        load_plugins(["my_team.absent"])


def test_plugin_without_register_is_an_error():
    with pytest.raises(ValueError, match=r"Plug-in 'json' has no function register\(\)"):
        load_plugins(["json"])


def test_a_test_leaves_no_plugin_behind():
    sources, labels = list(SOURCES), list(LABELS)
    for _ in range(2):
        with restored():
            load_plugins(["fourfold.medical"])
            assert "medical" in SOURCES and "t1ce" in LABELS
        assert list(SOURCES) == sources and list(LABELS) == labels
