import preloaded
import pytest
from kedro.io import DataCatalog
from kedro.pipeline import Node, Pipeline
from records import results_of

from fourfold_ops.datasets import JsonDataset
from fourfold_ops.hooks.ranks import RanksHook, for_this_process

REGISTRY = """
import os

from kedro.pipeline import Node, Pipeline

from fourfold_ops.hooks.ranks import for_this_process

RANK = int(os.environ.get("RANK", "0"))


def make(size):
    import time
    time.sleep(1)  # the other process must wait for this
    return {"size": size["size"]}


def together(made, log):
    import torch
    import torch.distributed as dist
    total = torch.tensor([made["size"] + RANK])
    dist.all_reduce(total)
    log.log_metrics({"seen_by": RANK})
    return {"total": total.item(), "rank": RANK}


def judge(tuned):
    return f"{tuned['total']} from {tuned['rank']}, judged by {RANK}"


def register_pipelines():
    stages = {
        "making": Pipeline([Node(make, "params:making", "made_json", name="make")]),
        "tuning": Pipeline([Node(together, ["made_json", "metric_log"], "tuned", name="together", tags="distributed")]),
        "judging": Pipeline([Node(judge, "tuned", "report", name="judge")]),
    }
    return for_this_process({"__default__": sum(stages.values(), Pipeline([])), **stages})
"""


@pytest.fixture
def several(miniature):
    """The miniature project with a distributed node and the hooks of the real project."""
    folder = miniature.folder / miniature.package
    (folder / "pipeline_registry.py").write_text(REGISTRY)
    settings = (folder / "settings.py").read_text()
    assert "\nHOOKS = (*CHECKS, " in settings
    settings = settings.replace("\nHOOKS = (*CHECKS, ", "\nRECORDING = (", 1)
    settings += "HOOKS = (*CHECKS, RanksHook(), *(RECORDING if is_first() else ()))\n"
    (folder / "settings.py").write_text("from fourfold_ops.hooks.ranks import RanksHook, is_first\n" + settings)
    catalog = miniature.folder / "conf/base/catalog.yml"
    made = "made_json: {type: fourfold_ops.datasets.JsonDataset, filepath: data/01_made/made.json}\n"
    catalog.write_text(catalog.read_text() + made)
    return miniature


def test_under_torchrun_only_the_first_process_writes_and_records(several, tmp_path):
    kedro = preloaded.stand_in(tmp_path / "bin") / "kedro"
    done = several.command("torchrun", "--nproc-per-node=2", "--standalone", "--no-python", str(kedro), "run")
    assert done.returncode == 0, done.stdout + done.stderr
    report = (several.folder / "data/03_judged/report.html").read_text()
    assert report == "7 from 0, judged by 0"  # 3 + 0 of the first process, 3 + 1 of the second
    assert len(several.recorded("parent")) == len(several.recorded("tuning")) == 1
    assert results_of(several.recorded("tuning")[0]) == {"seen_by": 0.0}


def test_single_process_runs_all_nodes(monkeypatch):
    pipelines = {"a": Pipeline([Node(len, "x", "y", name="n")])}
    assert for_this_process(pipelines) == pipelines
    monkeypatch.setenv("RANK", "1")
    assert [node.name for node in for_this_process(pipelines)["a"].nodes] == ["wait_for_the_first_process"]


def test_other_processes_read_but_do_not_write(tmp_path, monkeypatch):
    JsonDataset(filepath=str(tmp_path / "there.json")).save([1])
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    catalog = DataCatalog({name: JsonDataset(filepath=str(tmp_path / f"{name}.json")) for name in ("there", "absent")})
    monkeypatch.setenv("RANK", "1")
    saving = Pipeline([Node(lambda: ([2], [2]), None, ["there", "absent"], name="save")])
    RanksHook().before_pipeline_run(saving, catalog)
    assert catalog.load("there") == [1] and catalog.exists("there") and not catalog.exists("absent")
    catalog.save("there", [2])
    catalog.save("absent", [2])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == written
