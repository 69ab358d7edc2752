"""The plan of a run, on a small project whose records, claims and files are written by the test."""

import hashlib
import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from fourfold_ops.planning import contents
from fourfold_ops.planning.layout import read_stages
from fourfold_ops.planning.plan import Present, has_new_parameters, plan_stages
from fourfold_ops.planning.project import Claim
from fourfold_ops.planning.records import MAX_OLDER, RECORDS_FILE, Record, read_records, sections_of, write_record

STAGES = ("making", "tuning", "judging")
OUTPUTS = {"making": ["data/01_made"], "tuning": ["data/02_tuned"], "judging": ["data/03_judged"]}
DVC_YAML = {
    "stages": {
        "making": {"params": [{"base.yml": ["seed", "making"]}], "deps": ["src", "${source}"], "outs": ["data/01_made"]},
        "tuning": {
            "params": [{"base.yml": ["seed", "tuning"]}, {"smoke.yml": ["tuning"]}],
            "deps": ["src", "data/01_made"],
            "outs": [{"data/02_tuned": {"persist": True}}],
        },
        "judging": {"params": [{"base.yml": ["judging"]}], "deps": ["data/02_tuned"], "outs": ["data/03_judged"]},
    }
}
PARAMETERS = {"seed": 0, "making": {"size": 3}, "tuning": {"rate": 0.5, "show": 1}, "judging": {"size": 1}}
CATALOG = {"numbers": {"path": "data/01_made/numbers"}, "tuned": {"path": "data/02_tuned/fit"}}
CODE = {"a.make": "1", "a.tune": "1", "a.judge": "1", "a.draw": "1"}
REACH = {"making": ["a.make"], "tuning": ["a.tune", "a.draw"], "judging": ["a.judge"]}


class Small:
    """A project of which making and tuning claim one folder each."""

    def __init__(self, root: Path) -> None:
        self.root, self.modules, self.source = root, dict(CODE), root / "source"

    def claims(self, folder: Path) -> dict[Path, Claim]:
        found = [file for file in contents.files(folder) if file.name == "fingerprint.json"]
        return {file.parent: Claim(**json.loads(file.read_text())) for file in found}

    def code(self, modules):
        return {name: self.modules[name] for name in modules if name in self.modules}

    def damage(self, file: Path) -> str:
        record = json.loads((file.parent / "digests.json").read_text())
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        return f"{file.name} changed" if record.get(file.name, found) != found else ""

    def outside(self, parameters):
        return {"source": str(self.source)}

    def check(self, stages, parameters):
        pass

    def result(self, path: str, value: str, claim: Claim | None = None) -> None:
        """Write a folder of results with its digests."""
        folder = self.root / path
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "value").write_text(value)
        (folder / "digests.json").write_text(json.dumps({"value": hashlib.sha256(value.encode()).hexdigest()}))
        if claim:
            (folder / "fingerprint.json").write_text(json.dumps(claim.__dict__))

    def record(self, stage: str, parameters: dict, inputs: list[str], seconds: float = 1.0) -> None:
        """Write what a run would have recorded."""
        claims = self.claims(self.root / OUTPUTS[stage][0])
        keys = {key for table in DVC_YAML["stages"][stage]["params"] for keys in table.values() for key in keys}
        record = Record(
            parameters={key: parameters[key] for key in keys},
            code={name: self.modules[name] for name in REACH[stage]},
            inputs={path: contents.digest(self.root / path) for path in inputs},
            outputs={path: contents.digest(self.root / path) for path in OUTPUTS[stage]},
            outside={"source": contents.outside_digest(self.source)} if stage == "making" else {},
            claims={path.relative_to(self.root).as_posix(): claim.digest for path, claim in claims.items()},
            ended_ns=time.time_ns(),
            seconds=seconds,
            peak_bytes=1000,
        )
        write_record(self.root / "data", stage, record)


@pytest.fixture
def small(tmp_path):
    """Return the project after a run of everything."""
    project = Small(tmp_path)
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump(DVC_YAML, sort_keys=False))
    project.source.mkdir()
    (project.source / "a.txt").write_text("a")
    finish(project, PARAMETERS)
    return project


def finish(project: Small, parameters: dict) -> None:
    """Write the results of a run of everything, as claims and records describe them."""
    of_making = {"config": parameters["making"], "seed": parameters["seed"]}
    project.result("data/01_made/numbers", str(of_making), Claim(digest_of(of_making), of_making, {}, {"a.make": "1"}))
    of_tuning = {"rate": parameters["tuning"]["rate"]}
    inputs = {"numbers": digest_of(of_making)}
    project.result(
        "data/02_tuned/fit", f"{of_tuning} {of_making}", Claim(digest_of(of_tuning), of_tuning, inputs, {"a.tune": "1"})
    )
    project.result("data/03_judged", f"{parameters['judging']} {of_tuning} {of_making}")
    for stage, read in (("making", []), ("tuning", ["data/01_made"]), ("judging", ["data/02_tuned"])):
        project.record(stage, parameters, read)


def digest_of(value) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def plans(project: Small, parameters: dict = PARAMETERS, selected=()):
    return {plan.name: plan for plan in plan_stages(Present(project.root, project, parameters, CATALOG), selected)}


def texts(plan) -> list[str]:
    return [change.text for change in plan.changes]


def actions(plan) -> dict[str, str]:
    return {folder.path: folder.action for folder in plan.folders}


def test_new_parameters_are_those_of_no_earlier_result(small):
    other = PARAMETERS | {"tuning": {"rate": 0.25, "show": 1}}
    assert not has_new_parameters(Present(small.root, small, PARAMETERS), STAGES)
    assert has_new_parameters(Present(small.root, small, other), STAGES)
    assert not has_new_parameters(Present(small.root, small, other), ["making"])
    finish(small, other)
    assert not has_new_parameters(Present(small.root, small, PARAMETERS), STAGES)


def test_nothing_runs_after_a_complete_run(small):
    assert [plan.name for plan in plans(small).values()] == list(STAGES)
    assert not any(plan.runs for plan in plans(small).values())


def test_a_parameter_runs_its_stage_and_those_after_it(small):
    found = plans(small, PARAMETERS | {"tuning": {"rate": 0.25, "show": 1}})
    assert not found["making"].runs
    assert texts(found["tuning"]) == ["parameter tuning.rate: 0.5 → 0.25"]
    (folder,) = found["tuning"].folders
    digest = digest_of({"rate": 0.5})
    assert (folder.action, folder.aside) == ("make", f"data/02_tuned/.superseded/fit-{digest[:8]}")
    assert texts(found["judging"]) == ["tuning runs before"]


def test_a_parameter_that_no_claim_has_leaves_the_claimed_folder(small):
    found = plans(small, PARAMETERS | {"tuning": {"rate": 0.5, "show": 2}})
    assert texts(found["tuning"]) == ["parameter tuning.show: 1 → 2"]
    assert actions(found["tuning"]) == {"data/02_tuned/fit": "keep"} and not found["tuning"].makes_again
    assert found["judging"].makes_again  # it claims nothing


def test_a_shared_parameter_changes_everything_made_from_it(small):
    found = plans(small, PARAMETERS | {"seed": 7})
    assert [texts(found[name]) for name in STAGES[:2]] == [
        ["parameter seed: 0 → 7"],
        ["parameter seed: 0 → 7", "making runs before"],
    ]
    assert actions(found["making"]) | actions(found["tuning"]) == {"data/01_made/numbers": "make", "data/02_tuned/fit": "maybe"}


@pytest.mark.parametrize(("module", "made"), [("a.make", "maybe"), ("a.draw", "keep"), ("a.tune", "make")])
def test_a_module_makes_what_was_made_with_it(small, module, made):
    small.modules[module] = "2"
    found = plans(small)
    first = found["making" if module == "a.make" else "tuning"]
    assert texts(first) == [f"module {module} changed"]
    assert actions(found["tuning"]) == {"data/02_tuned/fit": made}
    small.modules.pop(module)
    assert texts(plans(small)[first.name]) == [f"module {module} removed"]


def test_a_changed_file_is_named_and_a_touched_one_is_not(small):
    os.utime(small.root / "data/02_tuned/fit/value")
    assert not any(plan.runs for plan in plans(small).values())
    (small.root / "data/02_tuned/fit/value").write_text("other")
    found = plans(small)
    assert texts(found["tuning"]) == ["value changed"] and actions(found["tuning"]) == {"data/02_tuned/fit": "repair"}
    assert not found["making"].runs and found["judging"].runs


def test_a_missing_output_is_made_again(small):
    shutil.rmtree(small.root / "data/03_judged")
    found = plans(small)
    assert texts(found["judging"]) == ["data/03_judged does not exist"]
    assert not found["making"].runs and not found["tuning"].runs


def test_an_input_that_another_run_made_is_another_input(small):
    """Only making ran, with another size; then everything is asked for with that size."""
    other = PARAMETERS | {"making": {"size": 9}}
    of_making = {"config": {"size": 9}, "seed": 0}
    small.result("data/01_made/numbers", "9", Claim(digest_of(of_making), of_making, {}, {"a.make": "1"}))
    small.record("making", other, [])
    found = plans(small, other)
    assert not found["making"].runs
    assert texts(found["tuning"])[0].startswith("data/01_made is another one (")
    assert actions(found["tuning"]) == {"data/02_tuned/fit": "maybe"}
    assert not plans(small, other, selected=["making"])["making"].runs


def test_files_outside_are_compared_by_name_size_and_time(small):
    assert not plans(small)["making"].runs
    (small.source / "b.txt").write_text("b")
    found = plans(small)
    assert texts(found["making"]) == [f"{small.source} changed"]


def test_a_result_that_was_kept_aside_returns(small):
    """The rate was changed for one run, and is what it was before."""
    shutil.copytree(
        small.root / "data/02_tuned/fit", small.root / "data/02_tuned/.superseded" / f"fit-{digest_of({'rate': 0.5})[:8]}"
    )
    finish(small, PARAMETERS | {"tuning": {"rate": 0.25, "show": 1}})
    found = plans(small)
    assert texts(found["tuning"]) == ["parameter tuning.rate: 0.25 → 0.5"]
    assert actions(found["tuning"]) == {"data/02_tuned/fit": "restore"} and not found["tuning"].makes_again
    shutil.rmtree(small.root / "data/02_tuned/.superseded")
    assert actions(plans(small)["tuning"]) == {"data/02_tuned/fit": "make"}


def test_an_interrupted_run_is_named(small):
    of_making = {"config": {"size": 4}, "seed": 0}
    small.result("data/01_made/numbers", "4", Claim(digest_of(of_making), of_making, {}, {"a.make": "1"}))
    found = plans(small, PARAMETERS | {"making": {"size": 4}})
    assert "data/01_made was written since by a run that did not complete, or restored" in texts(found["making"])


def test_an_older_result_that_came_back_is_known(small):
    """As after `dvc checkout` of an earlier commit, with its parameters."""
    shutil.copytree(small.root / "data/02_tuned", small.root / "older")
    finish(small, PARAMETERS | {"tuning": {"rate": 0.25, "show": 1}})
    shutil.rmtree(small.root / "data/02_tuned")
    (small.root / "older").rename(small.root / "data/02_tuned")
    found = plans(small)
    assert not found["making"].runs and not found["tuning"].runs
    assert texts(found["judging"])[0].startswith("data/02_tuned is another one")


def test_without_records_the_lock_of_dvc_tells_what_was_made(small):
    (small.root / "data" / RECORDS_FILE).unlink()
    assert texts(plans(small)["making"]) == ["what it was made from is not recorded"]
    made, tuned, judged = ({"path": OUTPUTS[stage][0], "md5": stage} for stage in STAGES)
    lock = {
        "stages": {
            "making": {"cmd": "kedro run", "params": {"base.yml": {"seed": 0, "making": {"size": 3}}}, "outs": [made]},
            "tuning": {
                "cmd": "kedro run --env=smoke --params=tuning.rate=0.5 --pipelines=tuning",
                "params": {"base.yml": {"seed": 0, "tuning": {"rate": 0.9, "show": 2}}, "smoke.yml": {"tuning": {"show": 1}}},
                "deps": [made],
                "outs": [tuned],
            },
            "judging": {"params": {"base.yml": {"judging": {"size": 1}}}, "deps": [tuned | {"md5": "old"}], "outs": [judged]},
        }
    }
    (small.root / "dvc.lock").write_text(yaml.safe_dump(lock))
    found = plans(small)
    assert not found["making"].runs and not found["tuning"].runs
    assert texts(found["judging"])[0].startswith("data/02_tuned is another one")
    assert texts(plans(small, PARAMETERS | {"making": {"size": 5}})["making"]) == ["parameter making.size: 3 → 5"]
    small.modules["a.tune"] = "2"
    assert texts(plans(small)["tuning"]) == ["module a.tune changed"]


def test_code_is_compared_with_the_lock_as_dvc_does(tmp_path, monkeypatch):
    from dvc.repo import Repo

    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    monkeypatch.chdir(tmp_path)
    for name in ("src/b/c.py", "src/a.py", "src/__pycache__/a.pyc", "one.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / ".dvcignore").write_text("__pycache__\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/x").write_text("x")
    (tmp_path / "dvc.yaml").write_text("stages: {only: {cmd: 'true', deps: [src, one.py], outs: [out]}}")
    with Repo.init(str(tmp_path), no_scm=True) as repo:
        repo.commit(force=True)
    deps = yaml.safe_load((tmp_path / "dvc.lock").read_text())["stages"]["only"]["deps"]
    assert {dep["path"]: dep["md5"] for dep in deps} == {
        name: contents.md5_of_dvc(tmp_path / name) for name in ("src", "one.py")
    }
    project = Small(tmp_path)
    assert [plan.runs for plan in plan_stages(Present(tmp_path, project, {}))] == [False]
    (tmp_path / "src/b/c.py").write_text("edited")
    assert [texts(plan) for plan in plan_stages(Present(tmp_path, project, {}))] == [["src is not as in dvc.lock"]]


def test_records_keep_what_the_work_took_and_few_older_ones(small):
    folder = small.root / "data"
    (first, *_) = read_records(folder)["making"]
    write_record(folder, "making", replace(first, seconds=0.1, peak_bytes=1))
    assert read_records(folder)["making"] == [first]  # a run that found the work done
    for number in range(MAX_OLDER + 3):
        write_record(folder, "making", replace(first, claims={"x": str(number)}))
    assert len(read_records(folder)["making"]) == MAX_OLDER + 1
    (folder / RECORDS_FILE).write_text("{")
    assert read_records(folder) == {}


def test_records_hold_no_secrets(small):
    secret = PARAMETERS | {"tuning": {"rate": 0.5, "show": 1, "hub_token": "planted-value", "url": "https://me:planted@host/x"}}
    found = plans(small, secret)
    assert texts(found["tuning"]) == [
        'parameter tuning.hub_token: unset → "***"',
        'parameter tuning.url: unset → "https://***@host/x"',
    ]
    stage = next(one for one in read_stages(small.root) if one.name == "tuning")
    assert "planted" not in str(sections_of(secret, stage))
