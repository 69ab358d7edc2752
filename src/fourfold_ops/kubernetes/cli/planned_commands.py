"""The commands `kedro k8s render` and `kedro submit`, which plan a run from the options of `kedro run`."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import click

from fourfold_ops.errors import UserError
from fourfold_ops.kubernetes.cluster.client import Cluster
from fourfold_ops.kubernetes.driver.errors import readable_errors
from fourfold_ops.kubernetes.plan import names
from fourfold_ops.kubernetes.plan.run_plan import FILTERS

API_SECONDS = 30  # for the API server to answer; shorter than in a run, since a user is waiting


@contextlib.contextmanager
def project_context(
    env: str | None, runtime_params: dict[str, Any] | None = None, conf_source: str | None = None
) -> Iterator[Any]:
    """Yield the Kedro context of the project in the current folder."""
    from kedro.framework.session import KedroSession

    with KedroSession.create(env=env, runtime_params=runtime_params, conf_source=conf_source) as session:
        assert isinstance(session, KedroSession)
        yield session.load_context()


def render_command(run: click.Command) -> click.Command:
    """Return the command `kedro k8s render`; `run` is `kedro run`, whose options it takes."""

    def render(**options: Any) -> None:
        import yaml

        from fourfold_ops.kubernetes.manifests.job import job, service

        plan = plan_of(options)
        for step in plan.steps:
            if not step.remote:
                click.echo(f"# {step.title}: runs in the driver")
                continue
            split = (step.resources.shards or 1) > 1
            for spec in [plan.step_job(step), *([plan.merge_job(step)] if split else [])]:
                objects = [job(spec, plan.settings)]
                if spec.num_nodes > 1:
                    objects.append(service(spec, plan.settings, "00000000-0000-0000-0000-000000000000"))
                for manifest in objects:
                    click.echo(f"--- # {step.title}\n{yaml.safe_dump(manifest, sort_keys=False)}", nl=False)

    return click.Command(
        "render",
        params=list(run.params),
        callback=render,
        help="Print the manifests that `kedro run` would submit with these options.",
    )


def submit_command(run: click.Command) -> click.Command:
    """Return the command `kedro submit`; `run` is `kedro run`, whose options it takes."""

    def submit(**options: Any) -> None:
        from fourfold_ops.kubernetes.cluster.objects import is_finished
        from fourfold_ops.kubernetes.manifests.driver_job import driver_job, driver_spec

        plan = plan_of(options)
        arguments = without_runner(sys.argv[sys.argv.index("submit") + 1 :])
        cluster = Cluster(plan.settings.namespace, plan.settings.context, timeout_seconds=API_SECONDS)
        with readable_errors(plan.name):
            drivers = cluster.all("jobs", names.selector(run=plan.name, role="driver"))
            if live := [driver["metadata"]["name"] for driver in drivers if not is_finished(driver)]:
                raise UserError(
                    f"Run {plan.name} already has a driver, Job {live[0]}.",
                    "Wait for it (`kedro k8s list`), or stop it with `kedro k8s cancel`.",
                )
            attempt = 1 + max((int(driver["metadata"]["name"].rpartition("-")[2]) for driver in drivers), default=0)
            manifest = driver_job(driver_spec(plan, arguments, attempt), plan.settings)
            cluster.create("jobs", manifest)
        name = manifest["metadata"]["name"]
        click.echo(
            f"Job {name} drives run {plan.name}.\n  kedro k8s logs {name} --follow{plan.site_option}\n"
            f"  kedro k8s cancel {plan.name}{plan.site_option}"
        )

    return click.Command(
        "submit",
        params=list(run.params),
        callback=submit,
        help="Run like `kedro run --runner=kubernetes`, with the driver in the cluster too.",
    )


def job_lines(options: dict[str, Any]) -> list[str]:
    """Return one line for each Job that `kedro run --runner=kubernetes` would submit: name, step, pods and resources.

    Args:
        options: Those of `kedro run`; absent ones count as not given.
    """
    absent = dict.fromkeys(("pipelines", "pipeline", "env", "params", "conf_source", "runner_params", *FILTERS))
    plan = plan_of({**absent, "tags": (), **options})
    lines = []
    for step in plan.steps:
        if not step.remote:
            lines.append(f"none for {step.title}: it runs in the driver")
            continue
        split = (step.resources.shards or 1) > 1
        for spec in [plan.step_job(step), *([plan.merge_job(step)] if split else [])]:
            count = len(spec.parts) or spec.num_nodes
            pods = "1 pod" if count == 1 else f"{count} pods"
            size = f"cpu {spec.resources.cpu}, memory {spec.resources.memory}, gpus {spec.resources.gpus or 0}"
            lines.append(f"{spec.name} for {step.title}: {pods} with {size}")
    return lines


def without_runner(arguments: list[str]) -> list[str]:
    """Return command-line arguments without the option --runner."""
    kept: list[str] = []
    skip = False
    for argument in arguments:
        if skip or argument in ("--runner", "-r"):
            skip = not skip
        elif not argument.startswith("--runner="):
            kept.append(argument)
    return kept


def plan_of(options: dict[str, Any]) -> Any:
    """Return the plan of a run without tracking or executing anything."""
    pipeline_names = options["pipelines"] or ([options["pipeline"]] if options["pipeline"] else [])
    with project_context(options["env"], options["params"], options["conf_source"]) as context:
        return _plan_in(context, options, pipeline_names)


def _plan_in(context: Any, options: dict[str, Any], pipeline_names: list[str]) -> Any:
    from kedro.framework.project import pipelines, settings
    from kedro.pipeline import Pipeline

    from fourfold_ops.kubernetes.plan.hook import KubernetesHook, site_settings
    from fourfold_ops.kubernetes.plan.run_plan import plan_run

    chosen = {
        name: options[name] for name in ("from_nodes", "to_nodes", "node_names", "from_inputs", "to_outputs") if options[name]
    }
    pipeline = sum((pipelines[name] for name in pipeline_names or ["__default__"]), Pipeline([])).filter(
        tags=tuple(options["tags"]) or None, node_namespaces=options["namespaces"] or None, **chosen
    )
    run_params = {
        **chosen,
        "env": context.env,
        "tags": tuple(options["tags"]),
        "namespaces": options["namespaces"],
        "load_versions": options["load_versions"],
        "pipeline_names": pipeline_names,
        "runtime_params": options["params"] or {},
    }
    hook = next(hook for hook in settings.HOOKS if isinstance(hook, KubernetesHook))
    hook.before_pipeline_run(run_params)
    site = (options["runner_params"] or {}).get("site")
    return plan_run(pipeline, context.catalog, site_settings(context, site), hook.origin(), site)
