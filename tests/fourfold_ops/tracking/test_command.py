import shlex

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kedro.framework.cli.project import run as kedro_run

from fourfold_ops.tracking.command import as_option, repeating_command


def options_of(command):
    """Return what Kedro's own parser makes of a command."""
    program, subcommand, *arguments = shlex.split(command)
    assert (program, subcommand) == ("kedro", "run")
    return kedro_run.make_context("run", list(arguments)).params


values = st.one_of(
    st.booleans(),
    st.none(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12),
    st.lists(st.integers(), max_size=1),
)


@given(values)
def test_kedro_reads_the_same_value(value):
    text = as_option(value)
    if text is None:
        assert isinstance(value, str)  # numbers, switches and short lists always have a text
        return
    read = options_of(shlex.join(["kedro", "run", f"--params=section.name={text}"]))["params"]["section"]["name"]
    assert type(read) is type(value) and read == value


@pytest.mark.parametrize("value", [[1, 2], "a,b", {"a": 1, "b": 2}, ["a, b"]])
def test_values_with_commas_have_no_text(value):
    assert as_option(value) is None


def test_command_has_every_option_that_selects_work_and_no_other(tmp_path, monkeypatch):
    from kedro.framework.project import pipelines
    from kedro.pipeline import Pipeline

    monkeypatch.setattr(pipelines, "_content", dict.fromkeys(["__default__", "first", "second"], Pipeline([])))
    monkeypatch.setattr(pipelines, "_is_data_loaded", True)
    run_params = {
        "env": "smoke",
        "pipeline_names": ["second", "first"],
        "tags": ("t",),
        "node_names": ("a", "b"),
        "from_nodes": ["c d"],
        "to_outputs": ["out"],
        "namespaces": ["n"],
        "load_versions": {"x": "2"},
        "only_missing_outputs": True,
        "runtime_params": {"tuning": {"rate": 0.5, "names": ["p", "q"]}, "seed": 2},
        "runner": "KubernetesRunner",
    }
    command, unspoken = repeating_command(run_params, tmp_path, str(tmp_path / "conf"))
    given = options_of(command)
    assert given["env"] == "smoke" and given["pipelines"] == ["first", "second"] and given["runner"] is None
    assert (given["tags"], given["node_names"], given["from_nodes"]) == (["t"], ["a", "b"], ["c d"])
    assert (given["to_outputs"], given["namespaces"], given["load_versions"]) == (["out"], ["n"], {"x": "2"})
    assert given["only_missing_outputs"] and given["params"] == {"seed": 2, "tuning": {"rate": 0.5}}
    assert unspoken == ["tuning.names"] and given["conf_source"] is None


def test_another_folder_of_configuration_is_relative_to_the_project(tmp_path):
    (tmp_path / "other conf").mkdir()
    command, _ = repeating_command({"env": "local"}, tmp_path, str(tmp_path / "other conf"))
    assert command == "kedro run '--conf-source=other conf'"


def test_parser_of_kedro_splits_at_commas():
    """If this fails, Kedro can read lists, and `as_option` may write them."""
    with pytest.raises(click.UsageError):
        options_of("kedro run --params=a=[1,2]")
