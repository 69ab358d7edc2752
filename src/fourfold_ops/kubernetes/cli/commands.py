"""The commands `kedro k8s list|logs|cancel|clean`, and their registration in a project."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from fourfold_ops.cli.failures import with_clear_errors
from fourfold_ops.errors import UserError
from fourfold_ops.kubernetes.cli.planned_commands import API_SECONDS, project_context, render_command, submit_command
from fourfold_ops.kubernetes.cluster.client import Cluster
from fourfold_ops.kubernetes.cluster.objects import JOB_LABEL
from fourfold_ops.kubernetes.driver.errors import readable_errors
from fourfold_ops.kubernetes.manifests.driver_job import RUNNER
from fourfold_ops.kubernetes.plan import names
from fourfold_ops.kubernetes.plan.settings import KubernetesSettings

ALIAS = "kubernetes"
CANCEL_SECONDS = 120

site_option = click.option(
    "--site",
    "--env",
    "-e",
    default=None,
    help="Folder of conf/ with the kubernetes.yml. Default: the default environment.",
)


def with_kubernetes(run: click.Command) -> click.Command:
    """Let `kedro run` accept `--runner=kubernetes` as a short name of `KubernetesRunner`."""
    for option in run.params:
        if option.name == "runner":
            option.callback = lambda _context, _option, value: RUNNER if value == ALIAS else value
    return run


@click.group(name="k8s", context_settings={"help_option_names": ["-h", "--help"]})
def k8s() -> None:
    """Inspect and remove runs of `kedro run --runner=kubernetes` in the cluster."""


@k8s.command(name="list")
@site_option
@click.option("--run", "run_name", default="", help="Only this run.")
def list_runs(site: str | None, run_name: str) -> None:
    """List runs and the state of their steps."""
    from fourfold_ops.kubernetes.cli.overview import entries

    with _cluster(site) as (cluster, _):
        chosen = names.selector(project=_project(), run=run_name)
        found = entries(cluster.all("jobs", chosen), cluster.all("pods", chosen))
    if not found:
        click.echo("No runs of this project in this namespace.")
    for run in dict.fromkeys(entry.run for entry in found):
        click.secho(run, bold=True)
        for entry in (one for one in found if one.run == run):
            click.echo(f"  {entry.title:<40} {entry.state:<8} {entry.age:>5}  {entry.job}  {entry.note}".rstrip())


@k8s.command()
@click.argument("name")
@site_option
@click.option("--follow", "-f", is_flag=True, help="Follow the logs until the pods end.")
def logs(name: str, site: str | None, follow: bool) -> None:
    """Print the logs of NAME: a run, a step's Job or a pod."""
    with _cluster(site) as (cluster, _):
        pods = [pod for pod in cluster.all("pods", names.selector(project=_project())) if name in _names_of(pod)]
        if not pods:
            raise UserError(
                f"No pod of this project belongs to {name!r}.",
                "Allowed: a run, Job or pod of `kedro k8s list`. Older logs are in MLflow.",
            )
        for pod in sorted(pods, key=lambda one: str(one["metadata"]["creationTimestamp"])):
            own = pod["metadata"]["name"]
            prefix = f"{own}: " if len(pods) > 1 else ""
            if pod["status"].get("phase") == "Pending":
                click.echo(f"{own} has not started.", err=True)
                continue
            _print_log(cluster, own, prefix, follow)


def _print_log(cluster: Cluster, pod: str, prefix: str, follow: bool) -> None:
    from fourfold_ops.kubernetes.cluster.pod_logs import complete_log

    def open_stream(since: str | None) -> Iterator[bytes]:
        return cluster.log(pod, since, follow)

    for line in complete_log(open_stream, lambda: not follow or _ended(cluster, pod), lambda: time.sleep(1)):
        click.echo(prefix + line)


@k8s.command()
@click.argument("run_name", metavar="RUN")
@site_option
def cancel(run_name: str, site: str | None) -> None:
    """Stop the active steps of RUN; finished steps and their logs are kept."""
    from fourfold_ops.kubernetes.cli.overview import state_of

    with _cluster(site) as (cluster, _):
        jobs = cluster.all("jobs", names.selector(project=_project(), run=run_name))
        if not jobs:
            raise UserError(f"Unknown run {run_name!r}.", "List the runs of this namespace with `kedro k8s list`.")
        # the driver first: it would report a deleted step as a failure
        jobs.sort(key=lambda job: job["metadata"]["labels"].get(names.ROLE) != "driver")
        _delete(cluster, [job["metadata"]["name"] for job in jobs if state_of(job) in ("running", "pending", "ending")])


@k8s.command()
@click.argument("run_name", metavar="[RUN]", required=False, default="")
@site_option
@click.option("--all", "everything", is_flag=True, help="Also remove active Jobs.")
def clean(run_name: str, site: str | None, everything: bool) -> None:
    """Remove the finished Jobs of RUN, or of all runs of this project."""
    from fourfold_ops.kubernetes.cli.overview import state_of

    with _cluster(site) as (cluster, _):
        jobs = cluster.all("jobs", names.selector(project=_project(), run=run_name))
        _delete(
            cluster, [job["metadata"]["name"] for job in jobs if everything or state_of(job) in ("done", "failed", "ending")]
        )


def _delete(cluster: Cluster, jobs: list[str]) -> None:
    """Delete Jobs with their pods and Services, and wait until they are deleted."""
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
            f"Not deleted after {CANCEL_SECONDS} s: {', '.join(sorted(left))}.", "Check whether their pods are on a lost node."
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
def _cluster(site: str | None) -> Iterator[tuple[Cluster, KubernetesSettings]]:
    from fourfold_ops.kubernetes.plan.hook import site_settings

    with project_context(site) as context:
        settings = site_settings(context, None)
    cluster = Cluster(settings.namespace, settings.context, timeout_seconds=API_SECONDS)
    with readable_errors("kubernetes"):
        yield cluster, settings


def add_commands(cli: click.Group, run: click.Command) -> None:
    """Add `k8s` and `submit` to a project's commands; `run` is the `kedro run` command."""
    k8s.add_command(render_command(run))
    for name, command in list(k8s.commands.items()):
        k8s.commands[name] = with_clear_errors(command)
    cli.add_command(k8s)
    cli.add_command(with_clear_errors(submit_command(run)), "submit")
