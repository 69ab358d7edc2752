"""The plan of a run: its name, its steps and their Jobs. Nothing here calls the API server."""

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kedro.io import CatalogProtocol
from kedro.pipeline import Pipeline

from fourfold_ops import handover
from fourfold_ops.errors import UserError
from fourfold_ops.kubernetes.plan import names
from fourfold_ops.kubernetes.plan.job_spec import JobSpec
from fourfold_ops.kubernetes.plan.placement import check_placement, local_path, shared_location
from fourfold_ops.kubernetes.plan.settings import KubernetesSettings, Resources
from fourfold_ops.kubernetes.plan.steps import Step, plan_steps, step_contents
from fourfold_ops.stages import stage_of
from fourfold_ops.tracking.provenance import git_tags
from fourfold_ops.versioning.run_file import flags

STEP_RUNNER = "fourfold_ops.kubernetes.StepRunner"
FILTERS = ("tags", "from_nodes", "to_nodes", "node_names", "from_inputs", "to_outputs", "namespaces", "load_versions")
DRIVER_JOB, DRIVER_UID = "KEDRO_DRIVER_JOB", "KEDRO_DRIVER_UID"  # of the Job in which the driver runs


@dataclass(frozen=True)
class Origin:
    """The options of a run, and the project in which it was started."""

    package: str
    project: Path
    env: str | None
    conf_source: str
    run_params: Mapping[str, Any]
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class RunPlan:
    """Everything that a run may submit.

    Attributes:
        name: Name of the run, the same for the same command.
        contents: Digest by step of what determines its result.
        writes: Locations that each step writes to, the same for every run that shares the volumes.
        outputs: Paths that each step writes to, as the driver sees them.
        site: Folder of conf/ that contains kubernetes.yml.
    """

    name: str
    project: str
    steps: list[Step]
    contents: dict[str, str]
    settings: KubernetesSettings
    origin: Origin
    git_tags: dict[str, str]
    writes: dict[str, list[str]] = field(default_factory=dict)
    outputs: dict[str, list[Path]] = field(default_factory=dict)
    site: str | None = None

    @property
    def site_option(self) -> str:
        """Option with which `kedro k8s` finds the cluster of this run."""
        return f" --site={self.site}" if self.site else ""

    def step_job(self, step: Step, parts: tuple[int, ...] = (), tracked: Mapping[str, Any] | None = None) -> JobSpec:
        """Return the Job of a remote step.

        Args:
            step: The step.
            parts: Of a split step, only these parts; empty: all.
            tracked: Fields of the Handover with the runs to report to.
        """
        all_parts = tuple(range(step.resources.shards or 1)) if (step.resources.shards or 1) > 1 else ()
        return self._job(step, "step", step.resources, parts or all_parts, tracked)

    def merge_job(self, step: Step, tracked: Mapping[str, Any] | None = None) -> JobSpec:
        """Return the Job that runs after all parts of a split step, over all of its work, and saves the result."""
        return self._job(step, "merge", step.resources.over(Resources()), (), tracked)

    def _job(
        self, step: Step, role: str, resources: Resources, parts: tuple[int, ...], tracked: Mapping[str, Any] | None
    ) -> JobSpec:
        name = names.job_name(self.name, step.name, self.contents[step.name], "merge" if role == "merge" else "")
        passed = handover.Handover(
            step.title,
            **{"parameters": handover.digests(self.origin.parameters), "git_tags": self.git_tags, **(tracked or {})},
        )
        annotations = {
            names.TITLE: step.title,
            names.NODES: ",".join(step.nodes),
            names.CONTENT: self.contents[step.name],
            names.PARENT: passed.parent_run,
            names.WRITES: json.dumps(self.writes.get(step.name, [])),
            names.COMMAND: self.again,
            **({names.PARTS: ",".join(map(str, parts))} if parts else {}),
        }
        image = {handover.IMAGE: resources.image or self.settings.image}
        env = {**passed.variables(), **image, **self._log_variable(), **_tracking_variable(resources)}
        return JobSpec(
            name=name,
            command=self._command(step),
            resources=resources,
            labels=names.labels(self.project, self.name, step.name, role),
            annotations=annotations,
            env=env,
            parts=parts,
            owner=driver_owner(),
        )

    @property
    def again(self) -> str:
        """The command that starts or resumes this run."""
        from fourfold_ops.tracking.provenance import command_line

        return command_line(dict(self.origin.run_params))

    @property
    def log_folder(self) -> str | None:
        """Folder of log files, relative to the project, on the first writable shared volume; None without one."""
        mounts = [v.mount for v in self.settings.volumes if not v.read_only and not v.mount.startswith("/")]
        return f"{mounts[0].strip('/')}/logs/{self.name}" if mounts else None

    def _log_variable(self) -> dict[str, str]:
        return {handover.LOG_FILE: f"{self.log_folder}/$(POD_NAME).log"} if self.log_folder else {}

    def _command(self, step: Step) -> tuple[str, ...]:
        pipelines = sorted(self.origin.run_params.get("pipeline_names") or [])
        versions = self.origin.run_params.get("load_versions") or {}
        options = {
            "pipelines": ",".join(pipelines),
            "nodes": ",".join(step.nodes),
            "conf-source": self._conf_source(),
            "load-versions": ",".join(f"{name}:{version}" for name, version in sorted(versions.items())),
            "runner": STEP_RUNNER,
        }
        selected = [f"--{name}={value}" for name, value in options.items() if value]
        return (*self.settings.command, "run", *shlex.split(command_flags(self.origin)), *selected)

    def _conf_source(self) -> str:
        source = Path(self.origin.conf_source)
        if source == self.origin.project / "conf":
            return ""
        if not source.is_relative_to(self.origin.project):
            raise UserError(
                f"--conf-source={source} is outside of the project: the image does not contain it.",
                "Use a folder of the project.",
            )
        return source.relative_to(self.origin.project).as_posix()


def command_flags(origin: Origin) -> str:
    """Return --env and --params of `kedro run`. Raises UserError for a value that cannot be written as an option."""
    return flags(origin.env or "base", dict(origin.run_params.get("runtime_params") or {}))


def plan_run(
    pipeline: Pipeline, catalog: CatalogProtocol, settings: KubernetesSettings, origin: Origin, site: str | None = None
) -> RunPlan:
    """Plan a run and check it as far as possible without the cluster.

    Raises:
        UserError: The run could not work, e.g. because pods cannot read an input.
    """
    steps = plan_steps(pipeline, settings, stage_of)
    check_placement(steps, catalog, settings.volumes, origin.project)
    project = origin.package
    tags = git_tags(origin.project)
    common = [_code_digest(origin.project, tags), settings.image, origin.env]
    details = {step.name: _read_parameters(step, catalog) for step in steps}
    outputs = {step.name: _paths(step.outputs, catalog, origin.project) for step in steps}
    plan = RunPlan(
        name=run_name(origin, settings),
        project=project,
        steps=steps,
        contents=step_contents(steps, common, details),
        settings=settings,
        origin=origin,
        git_tags=tags,
        writes={
            name: [shared_location(path, settings.volumes, origin.project) for path in paths] for name, paths in outputs.items()
        },
        outputs=outputs,
        site=site or origin.env,
    )
    for step in steps:
        if step.remote:
            plan.step_job(step)  # raises for options that a command cannot carry
    return plan


def run_name(origin: Origin, settings: KubernetesSettings) -> str:
    """Return the name of a run, which depends on the options and the volumes: the same command gives the same name."""
    chosen = {key: origin.run_params.get(key) for key in (*FILTERS, "runtime_params") if origin.run_params.get(key)}
    pipelines = sorted(origin.run_params.get("pipeline_names") or ["__default__"])
    data = [volume.model_dump() for volume in settings.volumes]
    return names.run_name(origin.package, [origin.env or "base", pipelines, chosen], [settings.namespace, data])


def driver_owner() -> dict[str, Any] | None:
    """Return the Job of this driver as the owner of the Jobs that it creates; None outside of the cluster."""
    if not os.environ.get(DRIVER_UID):
        return None
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "name": os.environ[DRIVER_JOB],
        "uid": os.environ[DRIVER_UID],
        "blockOwnerDeletion": False,
    }


def _tracking_variable(resources: Resources) -> dict[str, str]:
    """Return the address of the tracking server, unless the site sets one that pods can reach.

    A SQLite file is not passed on: the pods use that of their configuration, on the shared volume.
    """
    name = "MLFLOW_TRACKING_URI"
    uri = os.environ.get(name, "")
    return {name: uri} if uri and not uri.startswith("sqlite:") and name not in (resources.env or {}) else {}


def _code_digest(project: Path, tags: Mapping[str, str]) -> str:
    from fourfold_ops.versioning.repository import digest_of_code

    if (project / "dvc.yaml").exists():
        return digest_of_code(project)
    return f"{tags.get('git.commit')} {tags.get('git.dirty')}"


def _read_parameters(step: Step, catalog: CatalogProtocol) -> dict[str, Any]:
    wanted = sorted(name for name in step.inputs if name == "parameters" or name.startswith("params:"))
    return {name: catalog.load(name) for name in wanted}


def _paths(entries: frozenset[str], catalog: CatalogProtocol, project: Path) -> list[Path]:
    paths = []
    for name in sorted(entries):
        path = local_path(catalog.get(name, fallback_to_runtime_pattern=True))
        if path is not None:
            paths.append(path if path.is_absolute() else project / path)
    return paths
