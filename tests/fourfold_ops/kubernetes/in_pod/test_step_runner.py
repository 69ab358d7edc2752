"""The process of a step, started on this machine with the command and the variables of its pod."""

import json
import os

import preloaded
import pytest
import yaml

from fourfold_ops import handover
from fourfold_ops.errors import EXIT_CONFIGURATION, UserError
from fourfold_ops.hooks.tracking import TrackingHook
from fourfold_ops.kubernetes.manifests.job import job
from fourfold_ops.kubernetes.plan.hook import KubernetesHook, check_parameters, site_settings
from fourfold_ops.kubernetes.plan.run_plan import Origin, plan_run
from fourfold_ops.tracking import names

SITE = {
    "image": "x@sha256:" + "0" * 64,
    "volumes": [{"mount": "data", "claim": "data"}],
    "nodes": {"tune_numbers": {"gpus": 1, "env": {"A": "b"}}},
}


class Driver:
    """The driver of a miniature project, up to the point where it would create Jobs."""

    def __init__(self, miniature, env=None, **runtime_params):
        from kedro.framework.project import pipelines
        from kedro.framework.session import KedroSession
        from kedro.framework.startup import bootstrap_project

        bootstrap_project(miniature.folder)
        self.miniature = miniature
        with KedroSession.create(miniature.folder, env=env, runtime_params=runtime_params) as session:
            self.context = session.load_context()
        self.pipeline, self.catalog = pipelines["__default__"], self.context.catalog
        self.run_params = {"env": env, "runtime_params": runtime_params, "pipeline_names": [], "run_id": "r"}
        self.tracking = TrackingHook()
        self.tracking.after_context_created(self.context)
        self.tracking.before_pipeline_run(self.run_params, self.pipeline, self.catalog)

    def plan(self):
        hook = KubernetesHook()
        hook.after_context_created(self.context)
        hook.before_pipeline_run(self.run_params)
        return plan_run(self.pipeline, self.catalog, site_settings(self.context, "site"), hook.origin(), "site")

    def process(self, name, plan=None, **changed):
        """Run a step as its pod would, and return the finished process."""
        plan = plan or self.plan()
        step = next(step for step in plan.steps if step.name == name)
        node = next(node for node in self.pipeline.nodes if node.name == name)
        spec = plan.step_job(step, tracked=self.tracking.hand_over([node]))
        container = job(spec, plan.settings)["spec"]["template"]["spec"]["containers"][0]
        variables = {e["name"]: e["value"].replace("$(POD_NAME)", "pod-1") for e in container["env"] if "value" in e}
        kept = {k: v for k, v in variables.items() if k.startswith("KEDRO")}
        environment = {**os.environ, "DO_NOT_TRACK": "1", **kept, **changed}
        return preloaded.run(container["command"], self.miniature.folder, environment, timeout=120)


@pytest.fixture
def site(miniature):
    settings = miniature.folder / miniature.package / "settings.py"
    text = settings.read_text().replace(
        "HOOKS = (", "from fourfold_ops.kubernetes import KubernetesHook\nHOOKS = (KubernetesHook(), "
    )
    settings.write_text(text)
    miniature.write("conf/site/kubernetes.yml", yaml.safe_dump(SITE))
    return miniature


def test_a_step_has_the_parameters_and_runs_of_its_driver(site):
    driver = Driver(site, "smoke", tuning={"rate": 0.125})
    site.run(env="smoke", runtime_params={"tuning": {"rate": 0.125}}, node_names=["make_numbers"])
    local = site.run(env="smoke", runtime_params={"tuning": {"rate": 0.125}}, node_names=["tune_numbers"])["tuned"].load()
    (site.folder / "data/02_tuned/tuned.json").unlink()

    done = driver.process("tune_numbers")
    assert done.returncode == 0, done.stderr
    assert json.loads((site.folder / "data/02_tuned/tuned.json").read_text()) == local == {"sum": 0.125}
    driver.tracking.remote_nodes_over([node for node in driver.pipeline.nodes if node.name == "tune_numbers"], "")
    driver.tracking.after_pipeline_run(driver.pipeline)
    parent = next(run for run in site.recorded("parent") if run.info.run_id == _parent_of(site))
    (child,) = [run for run in site.recorded("tuning") if run.data.tags["mlflow.parentRunId"] == parent.info.run_id]
    assert child.data.metrics["loss"] == 0.125 and child.info.status == "FINISHED"
    assert child.data.tags[names.IMAGE] == SITE["image"]
    assert len(site.recorded("parent")) == 3  # of the driver and of two local runs: the step has started none
    assert (site.folder / "data/logs").is_dir()  # with the log file of the step


def _parent_of(site):
    newest = max(site.recorded("tuning"), key=lambda run: run.data.metrics.get("loss") is not None and run.info.end_time)
    return newest.data.tags["mlflow.parentRunId"]


def test_other_parameters_in_the_image_are_a_configuration_error(site):
    driver = Driver(site)
    plan = driver.plan()
    parameters = site.folder / "conf/base/parameters.yml"
    parameters.write_text(parameters.read_text().replace("rate: 0.5", "rate: 0.75"))
    done = driver.process("tune_numbers", plan)
    assert done.returncode == EXIT_CONFIGURATION
    assert "The parameters of this image differ from the driver's in tuning." in done.stderr.strip().splitlines()[-1]


def test_a_failed_step_records_its_error_and_the_driver_ends_the_run(site):
    site.run(node_names=["make_numbers"])
    driver = Driver(site, tuning={"fail": True})
    done = driver.process("tune_numbers")
    assert done.returncode == 1
    (child,) = [run for run in site.recorded("tuning") if "error" in run.data.tags]
    assert child.info.status == "RUNNING" and "Lower tuning.rate" in child.data.tags["error"]
    driver.tracking.on_pipeline_error(ValueError("x"))
    assert {run.info.status for run in site.recorded("tuning")} == {"FAILED"}


def test_one_process_of_a_step_saves_and_reports():
    alone = {handover.STEP: "s"}
    assert handover.writes_results(alone)
    assert not handover.writes_results({**alone, handover.RANK: "1"})
    assert handover.writes_results({**alone, handover.RANK: "0"})
    assert not handover.writes_results({**alone, handover.PART_COUNT: "4", handover.PART_INDEX: "0"})


def test_the_completion_index_maps_to_a_part():
    all_parts = {handover.PART_COUNT: "4", handover.PART_NUMBERS: "0,1,2,3", handover.PART_INDEX: "2"}
    assert handover.work_split(all_parts) == (2, 4)
    assert handover.work_split({**all_parts, handover.PART_NUMBERS: "1,3", handover.PART_INDEX: "1"}) == (3, 4)
    assert handover.work_split({}) == (0, 1)


def test_different_parameters_are_named_by_section():
    handed = handover.digests({"seed": 1, "training": {"rate": 0.5}, "old": 1})
    check_parameters(handed, {"training": {"rate": 0.5}, "seed": 1, "old": 1})
    check_parameters({}, {"anything": 1})
    with pytest.raises(UserError, match=r"differ from the driver's in new, old, training\."):
        check_parameters(handed, {"seed": 1, "training": {"rate": 0.25}, "new": 1})


def test_the_site_is_independent_of_the_environment(site):
    driver = Driver(site, "smoke")
    assert site_settings(driver.context, "site").nodes["tune_numbers"].gpus == 1
    with pytest.raises(UserError, match=r"There is no conf/smoke/kubernetes.yml"):
        site_settings(driver.context, None)
    driver.tracking.after_pipeline_run(driver.pipeline)


def test_parameters_that_no_option_can_carry_are_refused(site):
    driver = Driver(site, making={"size": 3})
    driver.run_params["runtime_params"] = {"making": {"sizes": [1, 2]}}
    with pytest.raises(UserError, match=r"making\.sizes"):
        driver.plan()
    driver.tracking.after_pipeline_run(driver.pipeline)


def test_a_configuration_outside_the_project_is_refused(site, tmp_path):
    driver = Driver(site)
    origin = Origin("p", site.folder, None, str(tmp_path), {}, {})
    with pytest.raises(UserError, match="is outside of the project"):
        plan_run(driver.pipeline, driver.catalog, site_settings(driver.context, "site"), origin)
    driver.tracking.after_pipeline_run(driver.pipeline)
