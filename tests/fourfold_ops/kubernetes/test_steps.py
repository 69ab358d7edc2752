import pytest
from hypothesis import given
from hypothesis import strategies as st
from kedro.pipeline import Pipeline, node

from fourfold_ops.errors import UserError
from fourfold_ops.kubernetes.names import contents, job_name, label, labels, run_name, selector, slug
from fourfold_ops.kubernetes.settings import read_settings
from fourfold_ops.kubernetes.states import Schedule, State
from fourfold_ops.kubernetes.steps import plan_steps


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


def test_each_node_is_a_step_that_needs_the_steps_whose_data_it_reads():
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


def test_nodes_of_one_group_share_a_step_and_only_what_leaves_it_is_its_output_to_others():
    pipeline = Pipeline(
        [n("a", "x", "y", ["gpu", "group-both"]), n("b", ["y"], "z", ["gpu", "group-both"]), n("c", ["z"], "w", "gpu")]
    )
    both, c = plan(pipeline)
    assert (both.name, both.nodes, both.inputs) == ("both", ("a", "b"), {"x"})
    assert c.needs == {"both"}


def test_namespaces_can_be_the_groups():
    pipeline = Pipeline([n("a", "x", "y", "gpu", "one"), n("b", "one.y", "z", "gpu", "one")])
    assert [step.nodes for step in plan(pipeline, group_by="namespace")] == [("one.a", "one.b")]


def test_groups_that_wait_for_each_other_are_refused_with_the_nodes_in_the_circle():
    pipeline = Pipeline(
        [n("a", "x", "y", ["gpu", "group-g"]), n("b", ["y"], "z", "gpu"), n("c", ["z"], "w", ["gpu", "group-g"])]
    )
    with pytest.raises(UserError, match=r"circle: (g \(a, c\) → b \(b\) → g|b \(b\) → g \(a, c\) → b)"):
        plan(pipeline)


def test_nodes_of_one_step_that_ask_for_different_places_are_refused():
    pipeline = Pipeline([n("a", "x", "y", ["gpu", "group-g"]), n("b", ["y"], "z", "group-g")])
    with pytest.raises(UserError, match=r"'a' and 'b' share the step 'g' but ask for different gpus, remote"):
        plan(pipeline)


def test_a_step_cannot_be_split_and_train_together():
    with pytest.raises(UserError, match="shards: 4 and nodes: 2"):
        plan(nodes={"train": {"shards": 4, "nodes": 2}})


# --- names ---


def test_the_content_of_a_step_changes_with_its_parameters_and_all_before_it_and_with_nothing_else():
    steps = plan()
    before = contents(steps, ["code"], {"label": {"params:a": 1}, "report": {"params:b": 1}})
    after = contents(steps, ["code"], {"label": {"params:a": 2}, "report": {"params:b": 1}})
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"label", "train", "report"}
    moved = contents(
        plan(default={"memory": "64Gi", "node_selector": {"zone": "b"}}),
        ["code"],
        {"label": {"params:a": 1}, "report": {"params:b": 1}},
    )
    assert moved == before  # WHERE is no content
    assert set(contents(steps, ["other code"], {}).values()).isdisjoint(before.values())


def test_the_same_command_gives_the_same_names_and_another_one_others():
    step = plan()[1]
    one, two = (run_name("fourfold", what, "data") for what in (["smoke", 1], ["smoke", 2]))
    assert one == run_name("fourfold", ["smoke", 1], "data") != two
    assert run_name("fourfold", ["smoke", 1], "other data") != one
    assert job_name(one, step, "c") == job_name(one, step, "c")
    assert (
        len({job_name(run, step, content, suffix) for run in (one, two) for content in "ab" for suffix in ("", "merge")}) == 8
    )


@given(st.text(max_size=300), st.integers(1, 60))
def test_any_text_becomes_a_valid_part_of_a_name(text, length):
    found = slug(text, length)
    assert found.isascii() and found == found.lower() and 1 <= len(found) <= max(length, 1)
    assert found[0].isalnum() and found[-1].isalnum()


@given(st.text(max_size=200))
def test_any_text_becomes_a_valid_label_and_different_texts_stay_different(text):
    found = label(text)
    assert len(found) <= 63 and all(c.isascii() and (c.isalnum() or c in "-_.") for c in found)
    assert label(text + "x") != found


def test_a_job_with_a_long_name_leaves_room_for_the_host_names_of_its_pods():
    long = plan(Pipeline([n("a_node_with_a_very_long_name_that_says_everything_about_what_it_does", "x", "y", "gpu")]))[0]
    assert len(job_name("r" * 60, long, "c", "merge") + "-9999") <= 63


def test_the_selector_finds_what_the_labels_mark():
    marks = labels("a project, with words", "run-1", "a step")
    wanted = dict(pair.split("=") for pair in selector(project="a project, with words", run="run-1", step="a step").split(","))
    assert wanted.items() <= marks.items()


# --- the order of work ---


def test_steps_start_when_all_before_them_are_done_and_independent_ones_together():
    schedule = Schedule.of(plan())
    assert [step.name for step in schedule.ready()] == ["ingest"]
    schedule.state["ingest"] = State.DONE
    assert [step.name for step in schedule.ready()] == ["label", "tokenize"]
    schedule.state |= {"label": State.SKIPPED, "tokenize": State.RUNNING}
    assert schedule.ready() == [] and not schedule.is_over()
    schedule.state["tokenize"] = State.FAILED
    assert schedule.ready() == [] and schedule.is_over()


def test_a_result_is_old_when_a_step_anywhere_before_it_has_worked_anew():
    schedule = Schedule.of(plan())
    schedule.fresh.add("label")
    assert {name for name, step in schedule.steps.items() if schedule.follows_fresh(step)} == {"train", "report"}
