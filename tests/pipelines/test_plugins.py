"""Plug-ins of conf/ are loaded in a session without hooks: with the pipelines, or at once if these are loaded."""

import sys
from types import ModuleType

import pytest

from pipelines import plugins
from pipelines.plugins import PluginConfigLoader, load_named_plugins


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    """A project that names a plug-in; returns its loader and how often the plug-in was registered."""
    calls = []
    module = ModuleType("my_plugin")
    module.register = lambda: calls.append("registered")
    monkeypatch.setitem(sys.modules, f"my_plugin_of_{tmp_path.name}", module)
    monkeypatch.setattr(plugins, "_named", [])
    (tmp_path / "base").mkdir()
    (tmp_path / "local").mkdir()
    (tmp_path / "base/parameters.yml").write_text(f"plugins: [my_plugin_of_{tmp_path.name}]\nseed: 0\n")
    return PluginConfigLoader(str(tmp_path), base_env="base", default_run_env="local"), calls


def test_reading_parameters_alone_loads_no_plug_in(loaded, monkeypatch):
    loader, calls = loaded
    monkeypatch.delitem(sys.modules, plugins.REGISTRY, raising=False)  # as in `kedro plan`
    assert loader["parameters"]["seed"] == 0 and calls == []
    load_named_plugins()  # as `register_pipelines` does
    load_named_plugins()
    assert calls == ["registered"]


def test_parameters_that_are_read_after_the_pipelines_load_plug_ins_at_once(loaded, monkeypatch):
    loader, calls = loaded
    monkeypatch.setitem(sys.modules, plugins.REGISTRY, ModuleType("registry"))
    assert loader["parameters"]["seed"] == 0 and calls == ["registered"]


def test_a_list_of_another_type_is_left_to_the_validation(loaded, tmp_path, monkeypatch):
    loader, calls = loaded
    monkeypatch.setitem(sys.modules, plugins.REGISTRY, ModuleType("registry"))
    (tmp_path / "base/parameters.yml").write_text("plugins: fourfold.scenes\n")
    assert loader["parameters"]["plugins"] == "fourfold.scenes" and calls == []
