"""Steps of a pipeline, their names and their order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kedro.pipeline import Pipeline, node

from fourfold_ops.errors import UserError
from fourfold_ops.kubernetes.plan.names import job_name, label, labels, run_name, selector, slug
from fourfold_ops.kubernetes.plan.settings import read_settings
from fourfold_ops.kubernetes.plan.steps import plan_steps, step_contents


def settings(**values):
    return read_settings({"image": "x", "allow_tag": True, "tags": {"gpu": {"gpus": 1}}, **values}, "kubernetes.yml")


def work(*_):
    return None


def n(name, inputs, outputs, tags=(), namespace=None):
    return node(work, inputs, outputs, name=name, tags=tags, namespace=namespace)


DIAMOND = Pipeline(
    [
        n("ingest", "params:x", "shards"),
        n("label", ["shards"], "labels", "gpu"),
        n("tokenize", ["shards"], "tokens", "gpu"),
        n("train", ["labels", "tokens"], "model", "gpu"),
        n("report", ["model"], "page"),
    ]
)


def plan(pipeline=DIAMOND, **values):
    return plan_steps(pipeline, settings(**values), lambda _: "stage")


def test_a_step_needs_the_steps_whose_data_it_reads():
    steps = {step.name: step for step in plan()}
    assert {name: set(step.needs) for name, step in steps.items()} == {
        "ingest": set(),
        "label": {"ingest"},
        "tokenize": {"ingest"},
        "train": {"label", "tokenize"},
        "report": {"train"},
    }
    assert [name for name, step in steps.items() if step.remote] == ["label", "tokenize", "train"]
    assert steps["train"].title == "stage/train"


def test_nodes_of_a_group_share_a_step():
    pipeline = Pipeline(
        [n("a", "x", "y", ["gpu", "group-both"]), n("b", ["y"], "z", ["gpu", "group-both"]), n("c", ["z"], "w", "gpu")]
    )
    both, c = plan(pipeline)
    assert (both.name, both.nodes, both.inputs) == ("both", ("a", "b"), {"x"})
    assert c.needs == {"both"}


def test_nodes_can_be_grouped_by_namespace():
    pipeline = Pipeline([n("a", "x", "y", "gpu", "one"), n("b", "one.y", "z", "gpu", "one")])
    assert [step.nodes for step in plan(pipeline, group_by="namespace")] == [("one.a", "one.b")]


def test_groups_that_depend_on_each_other_are_refused():
    pipeline = Pipeline(
        [n("a", "x", "y", ["gpu", "group-g"]), n("b", ["y"], "z", "gpu"), n("c", ["z"], "w", ["gpu", "group-g"])]
    )
    with pytest.raises(UserError, match=r"cycle: (g \(a, c\) → b \(b\) → g|b \(b\) → g \(a, c\) → b)"):
        plan(pipeline)


def test_nodes_of_a_step_need_equal_resources():
    pipeline = Pipeline([n("a", "x", "y", ["gpu", "group-g"]), n("b", ["y"], "z", "group-g")])
    with pytest.raises(UserError, match=r"'a' and 'b' share the step 'g' but have different gpus, remote"):
        plan(pipeline)


def test_shards_and_nodes_exclude_each_other():
    with pytest.raises(UserError, match="shards: 4 and nodes: 2"):
        plan(nodes={"train": {"shards": 4, "nodes": 2}})


# --- names ---


def test_the_content_of_a_step_depends_on_its_parameters_and_predecessors():
    steps = plan()
    before = step_contents(steps, ["code"], {"label": {"params:a": 1}, "report": {"params:b": 1}})
    after = step_contents(steps, ["code"], {"label": {"params:a": 2}, "report": {"params:b": 1}})
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"label", "train", "report"}
    moved = step_contents(
        plan(default={"memory": "64Gi", "node_selector": {"zone": "b"}}),
        ["code"],
        {"label": {"params:a": 1}, "report": {"params:b": 1}},
    )
    assert moved == before  # where a step runs is not part of the content
    assert set(step_contents(steps, ["other code"], {}).values()).isdisjoint(before.values())


def test_names_depend_on_command_data_and_content():
    step = plan()[1]
    one, two = (run_name("fourfold", what, "data") for what in (["smoke", 1], ["smoke", 2]))
    assert one == run_name("fourfold", ["smoke", 1], "data") != two
    assert run_name("fourfold", ["smoke", 1], "other data") != one
    assert job_name(one, step.name, "c") == job_name(one, step.name, "c")
    assert (
        len({job_name(run, step.name, content, suffix) for run in (one, two) for content in "ab" for suffix in ("", "merge")})
        == 8
    )


@given(st.text(max_size=300), st.integers(1, 60))
def test_a_slug_is_a_valid_part_of_a_name(text, length):
    found = slug(text, length)
    assert found.isascii() and found == found.lower() and 1 <= len(found) <= max(length, 1)
    assert found[0].isalnum() and found[-1].isalnum()


@given(st.text(max_size=200))
def test_labels_are_valid_and_distinct(text):
    found = label(text)
    assert len(found) <= 63 and all(c.isascii() and (c.isalnum() or c in "-_.") for c in found)
    assert label(text + "x") != found


def test_host_names_of_pods_fit_into_a_dns_label():
    long = plan(Pipeline([n("a_node_with_a_very_long_name_that_describes_everything_it_does", "x", "y", "gpu")]))[0]
    assert len(job_name("r" * 60, long.name, "c", "merge") + "-9999") <= 63


def test_the_selector_matches_the_labels():
    marks = labels("a project, with words", "run-1", "a step")
    wanted = dict(pair.split("=") for pair in selector(project="a project, with words", run="run-1", step="a step").split(","))
    assert wanted.items() <= marks.items()
