"""`kedro k8s render` and `kedro submit`: the commands that take the options of `kedro run` and plan what it would do."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import click

from fourfold_ops.errors import UserError
from fourfold_ops.kubernetes import names
from fourfold_ops.kubernetes.client import Cluster
from fourfold_ops.kubernetes.errors import in_words

PATIENCE = 30  # seconds that a command waits for a server that is away: somebody sits before it


@contextlib.contextmanager
def project_context(
    env: str | None, runtime_params: dict[str, Any] | None = None, conf_source: str | None = None
) -> Iterator[Any]:
    """Yield Kedro's context of the project in this folder."""
    from kedro.framework.session import KedroSession

    with KedroSession.create(env=env, runtime_params=runtime_params, conf_source=conf_source) as session:
        assert isinstance(session, KedroSession)
        yield session.load_context()


def render_command(run: click.Command) -> click.Command:
    """Return `kedro k8s render`, which takes the options of `kedro run` and prints what that would submit."""

    def render(**options: Any) -> None:
        import yaml

        from fourfold_ops.kubernetes.manifest import job, service

        plan = plan_of(options)
        for step in plan.steps:
            if not step.remote:
                click.echo(f"# {step.title}: runs in the driver")
                continue
            split = (step.request.shards or 1) > 1
            for spec in [plan.step_job(step), *([plan.merge_job(step)] if split else [])]:
                objects = [job(spec, plan.settings)]
                if spec.num_nodes > 1:
                    objects.append(service(spec, plan.settings, "00000000-0000-0000-0000-000000000000"))
                for found in objects:
                    click.echo(f"--- # {step.title}\n{yaml.safe_dump(found, sort_keys=False)}", nl=False)

    return click.Command(
        "render", params=list(run.params), callback=render, help="Print what `kedro run` with these options would submit."
    )


def submit_command(run: click.Command) -> click.Command:
    """Return `kedro submit`, which takes the options of `kedro run` and runs the driver itself in the cluster."""

    def submit(**options: Any) -> None:
        from fourfold_ops.kubernetes.objects import is_finished
        from fourfold_ops.kubernetes.submitting import driver_job, driver_spec

        plan = plan_of(options)
        arguments = without_runner(sys.argv[sys.argv.index("submit") + 1 :])
        cluster = Cluster(plan.settings.namespace, plan.settings.context, patience=PATIENCE)
        with in_words(plan.name):
            drivers = cluster.all("jobs", names.selector(run=plan.name, role="driver"))
            if live := [driver["metadata"]["name"] for driver in drivers if not is_finished(driver)]:
                raise UserError(f"Run {plan.name} is being driven by Job {live[0]}.", "See `kedro k8s list`.")
            attempt = 1 + max((int(driver["metadata"]["name"].rpartition("-")[2]) for driver in drivers), default=0)
            manifest = driver_job(driver_spec(plan, arguments, attempt), plan.settings)
            cluster.create("jobs", manifest)
        name = manifest["metadata"]["name"]
        click.echo(
            f"Run {plan.name} is driven by Job {name}.\n  kedro k8s logs {name} --follow{plan.site_option}\n"
            f"  kedro k8s cancel {plan.name}{plan.site_option}"
        )

    return click.Command(
        "submit",
        params=list(run.params),
        callback=submit,
        help="Like `kedro run --runner=kubernetes`, with the driver in the cluster too.",
    )


def without_runner(arguments: list[str]) -> list[str]:
    """Return the arguments of a command line without the choice of a runner."""
    found: list[str] = []
    skip = False
    for argument in arguments:
        if skip or argument in ("--runner", "-r"):
            skip = not skip
        elif not argument.startswith("--runner="):
            found.append(argument)
    return found


def plan_of(options: dict[str, Any]) -> Any:
    """Return the plan of a run that is not started: nothing is tracked or executed."""
    pipeline_names = options["pipelines"] or ([options["pipeline"]] if options["pipeline"] else [])
    with project_context(options["env"], options["params"], options["conf_source"]) as context:
        return _plan_in(context, options, pipeline_names)


def _plan_in(context: Any, options: dict[str, Any], pipeline_names: list[str]) -> Any:
    from kedro.framework.project import pipelines, settings
    from kedro.pipeline import Pipeline

    from fourfold_ops.kubernetes.hook import KubernetesHook, site_settings
    from fourfold_ops.kubernetes.plan import plan_run

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
