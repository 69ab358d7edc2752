"""Metrics, tolerances, packages and facts are compared as documented."""

import math
from dataclasses import replace
from importlib.metadata import version

import pytest

from fourfold_ops.errors import UserError
from fourfold_ops.reproduction.environment import changes, decides_bits, fact_changes, pinned
from fourfold_ops.reproduction.lock import Entry, Lock, StageRecord
from fourfold_ops.reproduction.metrics import compare_metrics, flat
from fourfold_ops.reproduction.origin import Original, kedro_arguments, with_pipelines
from fourfold_ops.reproduction.reproduce import commands_of
from fourfold_ops.reproduction.tolerances import rules, tolerance_of

RULES = {
    "tolerances": [
        {"metrics": "task.*", "relative": 0.01, "intervals": 1.0},
        {"metrics": "loss", "absolute": 0.5},
    ]
}


def test_every_leaf_is_compared_and_only_numbers_have_a_difference():
    recorded = flat({"a": {"b": 1.0, "c": "text"}, "list": [1, {"d": None}], "gone": 2, "nan": math.nan, "yes": True})
    found = flat({"a": {"b": 1.5, "c": "text"}, "list": [1, {"d": 0.0}], "new": 3, "nan": math.nan, "yes": True})
    results = {result.name: (result.difference, result.holds) for result in compare_metrics(recorded, found)}
    assert results == {
        "a.b": (0.5, False),
        "a.c": (None, True),
        "list.0": (0.0, True),
        "list.1.d": (None, False),
        "gone": (None, False),
        "nan": (0.0, True),
        "yes": (None, True),
        "new": (None, False),
    }


@pytest.mark.parametrize(
    ("name", "difference", "holds"),
    [
        ("task.value", 0.099, True),  # half the width of its interval is 0.1
        ("task.value", -0.101, False),
        ("task.shuffled", 0.1, True),  # the same interval
        ("task.far.value", 0.5, True),  # no interval: 1 % of 50
        ("task.far.value", 0.51, False),
        ("loss", -0.5, True),
        ("loss", 0.51, False),
        ("other", 1e-9, False),  # no rule
    ],
)
def test_tolerance_is_the_largest_that_the_first_rule_allows(name, difference, holds):
    values = {"task": {"ci95": [0.4, 0.6], "value": 0.5, "shuffled": 0.5, "far": {"value": 50.0}}, "loss": 4.0, "other": 1.0}
    recorded = flat(values)
    found = recorded | {name: recorded[name] + difference}
    results = {result.name: result for result in compare_metrics(recorded, found, tolerance_of(rules(RULES)))}
    assert results[name].holds is holds and all(result.holds for key, result in results.items() if key != name)


def test_wrong_rule_is_named_with_its_key():
    with pytest.raises(UserError, match=r"conf/\*/reproduction.yml, tolerances: ratio: Extra inputs are not permitted"):
        rules({"tolerances": [{"metrics": "*", "ratio": 0.1}]})


def test_packages_are_compared_with_the_run_and_with_the_lock_file():
    lines = [f"Click=={version('click')} \\", "  --hash=sha256:0", "pytest==0.1 ; python_version >= '3'"]
    lock = "\n".join([*lines, "none==1 ; python_version < '3'", "# x==1"])
    assert pinned(lock) == {"click": version("click"), "pytest": "0.1"}
    found = changes(lock, "pytest==0.2\nclick==0.3\n")
    assert [(change.kind, change.name, change.recorded) for change in found] == [
        ("package", "click", "0.3"),
        ("package", "pytest", "0.2"),
        ("requirements.lock", "pytest", "0.1"),
    ]
    assert not decides_bits(found)


def test_facts_that_decide_last_bits_are_compared_and_others_are_not():
    recorded = {
        "tuning.precision": "bf16",
        "tuning.instruction_set": "AVX512",
        "python": "3.11.1",
        "platform": "old",
        "gone": "1",
    }
    found = {"tuning.precision": "fp32", "tuning.instruction_set": "AVX512", "python": "3.11.1", "platform": "new"}
    (change,) = fact_changes(recorded, found)
    assert (change.name, change.recorded, change.found) == ("tuning.precision", "bf16", "fp32") and decides_bits([change])


def test_pipelines_of_a_recorded_command_are_replaced():
    arguments = kedro_arguments("kedro run --env=smoke --pipelines=a,b '--params=x=a b'")
    assert with_pipelines(arguments, ("c", "d")) == ["run", "--env=smoke", "--params=x=a b", "--pipelines=c,d"]
    assert with_pipelines(["run", "-p", "a", "--tags=x"], ("c",)) == ["run", "--tags=x", "--pipelines=c"]
    with pytest.raises(UserError, match="only `kedro run` can be repeated"):
        kedro_arguments("make run")


def test_commands_of_a_revision_have_the_options_of_each_stage():
    cmd = 'PATH="$PWD/.venv/bin:$PATH" kedro run {}--pipelines={} $KEDRO_RUN_FLAGS'
    flags = {"a": "--env=smoke ", "b": "--env=smoke ", "c": "'--params=x=1 2' ", "d": ""}
    lock = Lock({name: StageRecord(name, cmd=cmd.format(text, name)) for name, text in flags.items()})
    original = Original("HEAD", "x", "c", lock, None, stages=("a", "b", "c", "d"))
    assert commands_of(original, ("a", "b", "c", "d")) == [
        ["kedro", "run", "--env=smoke", "--pipelines=a,b"],
        ["kedro", "run", "--params=x=1 2", "--pipelines=c"],
        ["kedro", "run", "--pipelines=d"],
    ]
    assert commands_of(replace(original, stages=("a", "b")), ("a", "b")) == [["kedro", "run", "--env=smoke"]]
    run = replace(original, command=("run", "--env=x", "--pipelines=a"), ran=("a",))
    assert commands_of(run, ("a",)) == [["kedro", "run", "--env=x", "--pipelines=a"]]
    with pytest.raises(UserError, match="did not make"):
        commands_of(replace(original, lock=Lock({"a": StageRecord("a", cmd="make a")})), ("a",))


def test_lock_knows_what_a_stage_needs_and_contradicts():
    first = StageRecord("first", (Entry("src", "1.dir"),), (Entry("data/a", "2.dir"), Entry("data/b", "3")))
    second = StageRecord(
        "second", (Entry("src", "1.dir"), Entry("data/a/part", "9"), Entry("data/b", "4")), (Entry("data/c", "5"),)
    )
    lock = Lock({"first": first, "second": second})
    assert set(lock.needed_outputs(["second"])) == {"data/a", "data/b"} and not lock.needed_outputs(["first", "second"])
    assert {path: users for path, (_, users) in lock.inputs(["first", "second"]).items()} == {"src": ["first", "second"]}
    (sentence,) = lock.contradictions(["first", "second"])
    assert lock.contradictions(["first"]) == []  # what others read does not matter for it
    assert "second read data/b with MD5 4, but first wrote 3" in sentence
    with pytest.raises(UserError, match=r"x is not a lock file of DVC"):
        Lock.parse(b"stages: [1]", "x")
