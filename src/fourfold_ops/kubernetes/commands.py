"""`kedro k8s list|logs|cancel|clean|render`, `kedro submit`, and the short name `--runner=kubernetes`."""

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from fourfold_ops.failures import UserError, with_clear_errors
from fourfold_ops.kubernetes import names
from fourfold_ops.kubernetes.client import Cluster
from fourfold_ops.kubernetes.errors import in_words
from fourfold_ops.kubernetes.objects import JOB_LABEL
from fourfold_ops.kubernetes.settings import KubernetesSettings
from fourfold_ops.kubernetes.submitting import RUNNER

ALIAS = "kubernetes"
CANCEL_SECONDS = 120

site_option = click.option(
    "--site",
    "--env",
    "-e",
    default=None,
    help="The folder of conf/ whose kubernetes.yml says where. Default: the usual environment.",
)


def with_kubernetes(run: click.Command) -> click.Command:
    """Let `kedro run --runner=kubernetes` stand for the runner's full name."""
    for option in run.params:
        if option.name == "runner":
            option.callback = lambda _context, _option, value: RUNNER if value == ALIAS else value
    return run


@click.group(name="k8s", context_settings={"help_option_names": ["-h", "--help"]})
def k8s() -> None:
    """Look after what `kedro run --runner=kubernetes` has in the cluster."""


@k8s.command(name="list")
@site_option
@click.option("--run", "run_name", default="", help="Only this run.")
def list_runs(site: str | None, run_name: str) -> None:
    """List runs, their steps and how they stand."""
    from fourfold_ops.kubernetes.overview import entries

    with _cluster(site) as (cluster, _):
        chosen = names.selector(project=_project(), run=run_name)
        found = entries(cluster.all("jobs", chosen), cluster.all("pods", chosen))
    if not found:
        click.echo("There are no runs of this project here.")
    for run in dict.fromkeys(entry.run for entry in found):
        click.secho(run, bold=True)
        for entry in (one for one in found if one.run == run):
            click.echo(f"  {entry.title:<40} {entry.state:<8} {entry.age:>5}  {entry.job}  {entry.note}".rstrip())


@k8s.command()
@click.argument("name")
@site_option
@click.option("--follow", "-f", is_flag=True, help="Go on until the pods end.")
def logs(name: str, site: str | None, follow: bool) -> None:
    """Print the logs of NAME: a run, a step's Job or a pod."""
    with _cluster(site) as (cluster, _):
        pods = [pod for pod in cluster.all("pods", names.selector(project=_project())) if name in _names_of(pod)]
        if not pods:
            raise UserError(f"No pod of this project belongs to {name!r}.", "See `kedro k8s list`; older logs are in MLflow.")
        for pod in sorted(pods, key=lambda one: str(one["metadata"]["creationTimestamp"])):
            own = pod["metadata"]["name"]
            prefix = f"{own}: " if len(pods) > 1 else ""
            if pod["status"].get("phase") == "Pending":
                click.echo(f"{own} has not started.", err=True)
                continue
            _print_log(cluster, own, prefix, follow)


def _print_log(cluster: Cluster, pod: str, prefix: str, follow: bool) -> None:
    from fourfold_ops.kubernetes.following import whole_log

    def open_stream(since: str | None) -> Iterator[bytes]:
        return cluster.log(pod, since, follow)

    for line in whole_log(open_stream, lambda: not follow or _ended(cluster, pod), lambda: time.sleep(1)):
        click.echo(prefix + line)


@k8s.command()
@click.argument("run_name", metavar="RUN")
@site_option
def cancel(run_name: str, site: str | None) -> None:
    """Stop what RUN has in the cluster; finished steps and their logs stay."""
    from fourfold_ops.kubernetes.overview import state_of

    with _cluster(site) as (cluster, _):
        jobs = cluster.all("jobs", names.selector(project=_project(), run=run_name))
        if not jobs:
            raise UserError(f"There is no run {run_name!r} here.", "See `kedro k8s list`.")
        # the driver first, or it would take the end of a step for a failure
        jobs.sort(key=lambda job: job["metadata"]["labels"].get(names.ROLE) != "driver")
        _delete(cluster, [job["metadata"]["name"] for job in jobs if state_of(job) in ("running", "pending", "ending")])


@k8s.command()
@click.argument("run_name", metavar="[RUN]", required=False, default="")
@site_option
@click.option("--all", "everything", is_flag=True, help="What still runs, too.")
def clean(run_name: str, site: str | None, everything: bool) -> None:
    """Remove what is finished: of RUN, or of all runs of this project."""
    from fourfold_ops.kubernetes.overview import state_of

    with _cluster(site) as (cluster, _):
        jobs = cluster.all("jobs", names.selector(project=_project(), run=run_name))
        _delete(
            cluster, [job["metadata"]["name"] for job in jobs if everything or state_of(job) in ("done", "failed", "ending")]
        )


def _delete(cluster: Cluster, jobs: list[str]) -> None:
    """Delete Jobs with their pods and services, and wait until they are gone."""
    for name in jobs:
        cluster.delete("jobs", name)
        click.echo(f"Deleting {name}")
    deadline = time.monotonic() + CANCEL_SECONDS
    left = set(jobs)
    while left and time.monotonic() < deadline:
        time.sleep(0.5)
        left &= {job["metadata"]["name"] for job in cluster.all("jobs", names.selector(project=_project()))}
    if left:
        raise UserError(
            f"Still there after {CANCEL_SECONDS} s: {', '.join(sorted(left))}.", "Their pods may be on a lost node."
        )
    click.echo(f"{len(jobs)} Jobs removed." if jobs else "Nothing to remove.")


def _names_of(pod: dict[str, Any]) -> set[str]:
    labels = pod["metadata"]["labels"]
    return {pod["metadata"]["name"], *(labels.get(key, "") for key in (names.RUN, names.STEP, JOB_LABEL))}


def _ended(cluster: Cluster, pod: str) -> bool:
    found = [one for one in cluster.all("pods", names.selector(project=_project())) if one["metadata"]["name"] == pod]
    return not found or found[0]["status"].get("phase") in ("Succeeded", "Failed")


def _project() -> str:
    from kedro.framework.project import PACKAGE_NAME

    return names.label(PACKAGE_NAME or Path.cwd().name)


@contextlib.contextmanager
def _context(env: str | None, runtime_params: dict[str, Any] | None = None, conf_source: str | None = None) -> Iterator[Any]:
    from kedro.framework.session import KedroSession

    with KedroSession.create(env=env, runtime_params=runtime_params, conf_source=conf_source) as session:
        assert isinstance(session, KedroSession)
        yield session.load_context()


@contextlib.contextmanager
def _cluster(site: str | None) -> Iterator[tuple[Cluster, KubernetesSettings]]:
    from fourfold_ops.kubernetes.hook import site_settings

    with _context(site) as context:
        settings = site_settings(context, None)
    cluster = Cluster(settings.namespace, settings.context, patience=30)
    with in_words("kubernetes"):
        yield cluster, settings


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
        cluster = Cluster(plan.settings.namespace, plan.settings.context, patience=30)
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
    with _context(options["env"], options["params"], options["conf_source"]) as context:
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


def add_commands(cli: click.Group, run: click.Command) -> None:
    """Add `k8s` and `submit` to a project's commands; `run` is Kedro's own."""
    k8s.add_command(render_command(run))
    for name, command in list(k8s.commands.items()):
        k8s.commands[name] = with_clear_errors(command)
    cli.add_command(k8s)
    cli.add_command(with_clear_errors(submit_command(run)), "submit")
