"""Settings of `conf/<site>/kubernetes.yml`: where steps run and which resources they get.

No setting may change what a step computes.
"""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from fourfold_ops.errors import UserError
from fourfold_ops.kubernetes.cluster.connection import quantity

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]  # of a Kubernetes object
MAX_CORES = 4096  # catches a unit of memory in `cpu`
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
RESOURCE_TAG = re.compile(r"^(gpus|nodes|shards|cpu|memory)-([0-9][0-9A-Za-z.]*)$")  # e.g. "gpus-8" or "memory-64Gi"
GROUP_TAG = "group-"  # prefix of tags; nodes with the same one share a step


def _check_quantity(text: str) -> str:
    try:
        valid = quantity(text) >= 0
    except ValueError:
        valid = False
    if not valid:
        raise PydanticCustomError("quantity", "Input should be a Kubernetes quantity, e.g. 500m, 2 or 64Gi")
    return text


def _check_cores(text: str) -> str:
    if quantity(_check_quantity(text)) > MAX_CORES:
        raise PydanticCustomError("quantity", "Input should be a number of cores, e.g. 500m, 0.5 or 2")
    return text


Quantity = Annotated[str, AfterValidator(_check_quantity)]
Cores = Annotated[str, AfterValidator(_check_cores)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)


class Resources(_Settings):
    """Resources and options of a step. A field that is None is not set: another section or `BUILT_IN` sets it."""

    cpu: Cores | None = None  # of each pod
    cpu_limit: Cores | None = None  # of each pod, while other pods do not need them; at least `cpu`
    memory: Quantity | None = None  # of each pod; request and limit, so that no pod is evicted for the memory of another
    gpus: int | None = Field(default=None, ge=0, le=64)  # of each pod
    gpu_resource: str | None = None  # nvidia.com/gpu, amd.com/gpu, nvidia.com/mig-3g.20gb, ...
    nodes: int | None = Field(default=None, ge=1, le=4096)  # pods that train together under torchrun
    processes: int | None = Field(default=None, ge=1, le=64)  # of torchrun in each pod; default: one per GPU, at least one
    shards: int | None = Field(default=None, ge=1, le=10_000)  # pods that each work on one part of the step
    parallelism: int | None = Field(default=None, ge=1)  # max. number of shards that run at once; default: all
    scratch: Quantity | None = None  # space for temporary files, per pod
    shared_memory: Quantity | None = None  # size of /dev/shm for data loader workers; counts as `memory`
    deadline_seconds: int | None = Field(default=None, ge=1)  # of the whole step; None: no deadline
    retries: int | None = Field(default=None, ge=0, le=100)  # of failed pods; preempted and stopped pods are not counted
    tolerations: tuple[dict[str, Any], ...] | None = None
    node_selector: dict[str, str] | None = None
    priority_class: Name | None = None
    image: str | None = None
    queue: Name | None = None  # LocalQueue of Kueue
    env: dict[str, str] | None = None
    remote: bool | None = None  # False: in the driver, whatever the tags set

    def over(self, other: "Resources") -> "Resources":
        """Return these settings, with those of `other` for fields that are not set here; `env` is merged."""
        own = {name: value for name, value in self if value is not None}
        below = {name: value for name, value in other if value is not None}
        merged = {"env": {**below.get("env", {}), **own.get("env", {})}}
        return Resources(**{**below, **own, **(merged if merged["env"] else {})})


# Not validated here, but in a test: that would import the `kubernetes` package with every command.
BUILT_IN = Resources.model_construct(
    cpu="1",
    memory="2Gi",
    gpus=0,
    gpu_resource="nvidia.com/gpu",
    nodes=1,
    shards=1,
    scratch="2Gi",
    shared_memory="256Mi",
    retries=3,
    tolerations=(),
    node_selector={},
    env={},
    remote=True,
)


class Volume(_Settings):
    """A volume that the driver and all steps share."""

    mount: str  # folder in the pod: relative to the project, or absolute
    claim: Name | None = None  # of a PersistentVolumeClaim, ReadWriteMany where steps run on several machines
    host_path: str | None = None  # a folder of the node, for clusters of one machine; Pod Security "restricted" refuses it
    sub_path: str = ""
    read_only: bool = False

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.claim is None) == (self.host_path is None):
            raise ValueError(
                f"the volume at {self.mount!r} needs one of claim and host_path, not {'both' if self.claim else 'none'}"
            )
        return self


class Secret(_Settings):
    """A Secret whose keys become environment variables. Its values are never read here."""

    name: Name
    keys: dict[str, str] = {}  # variable → key of the Secret; empty: every key, as a variable of the same name


class Security(_Settings):
    """User and groups of the processes of a pod; the rest of the hardening cannot be changed."""

    user: int = Field(default=1000, ge=1)  # never root
    group: int = Field(default=1000, ge=1)
    fs_group: int | None = Field(default=1000, ge=1)  # group of the files on the volumes, if the volume supports it


class KubernetesSettings(_Settings):
    """All settings of `kubernetes.yml`.

    The settings of a node come from `nodes` by its name, then from `tags`, then from `default`, then from `BUILT_IN`.
    """

    image: str  # by digest, so that a run can be repeated
    allow_tag: bool = False  # allow an `image` by tag, which may refer to another program later
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    pull_secrets: tuple[Name, ...] = ()
    context: str | None = None  # of the kubeconfig; None: the current one, or the service account of the pod
    namespace: Name = "default"
    project: str = "/opt/project"  # folder of the project in the image
    command: tuple[str, ...] = ("kedro",)
    python: tuple[str, ...] = ("python",)
    service_account: Name | None = None  # of the steps; they need no permissions
    driver_service_account: Name = "kedro-driver"  # of the driver of `kedro submit`
    volumes: tuple[Volume, ...] = ()
    secrets: tuple[Secret, ...] = ()
    security: Security = Security()
    default: Resources = Resources()
    driver: Resources = Resources()  # for the driver of `kedro submit`
    tags: dict[str, Resources] = {}
    nodes: dict[str, Resources] = {}
    remote: Literal["tagged", "all"] = "tagged"  # which nodes run in pods: those with a tag or name below, or all
    group_by: Literal["node", "namespace"] = "node"
    parallel_steps: int = Field(default=64, ge=1)
    ttl_seconds: int = Field(default=24 * 3600, ge=60)  # a finished Job is deleted after this time; MLflow has its logs
    grace_seconds: int = Field(default=60, ge=1)  # between SIGTERM and SIGKILL, to save a checkpoint
    start_seconds: int = Field(default=120, ge=1)  # to wait for an image, a secret or a volume that is missing
    pending_seconds: int | None = Field(default=None, ge=1)  # to wait for resources, quota or a queue; None: forever
    api_seconds: int = Field(default=300, ge=1)  # that the API server may be unreachable
    port: int = Field(default=29500, ge=1024, le=65534)  # of torch's store; port + 1: the restart group of the launchers

    @model_validator(mode="after")
    def _images_are_pinned(self) -> Self:
        for image in [self.image, *(r.image for r in (*self.tags.values(), *self.nodes.values()) if r.image)]:
            if not DIGEST.search(image) and not self.allow_tag and self.pull_policy != "Never":
                raise ValueError(
                    f"image {image!r} is not named by digest, so the run could not be repeated exactly. Write NAME@sha256:..., "
                    "or set allow_tag: true"
                )
        return self

    def resources_for(self, name: str, tags: set[str]) -> Resources:
        """Return the settings of a node, complete; `remote` is False if it runs in the driver.

        Raises:
            UserError: Two of its tags set one field to different values.
        """
        chosen = Resources()
        for tag in sorted(tags & set(self.tags)):
            chosen = _merged(chosen, self.tags[tag], name, tag)
        inline = {m[1]: m[2] for tag in sorted(tags) if (m := RESOURCE_TAG.match(tag))}
        if inline:
            chosen = Resources.model_validate(inline).over(chosen)
        chosen = self.nodes.get(name, Resources()).over(chosen)
        named = bool(tags & set(self.tags)) or bool(inline) or name in self.nodes
        if chosen.remote is None:
            chosen = Resources(remote=named or self.remote == "all").over(chosen)
        return chosen.over(self.default).over(BUILT_IN)


def _merged(chosen: Resources, of_tag: Resources, node: str, tag: str) -> Resources:
    for field, value in of_tag:
        before = getattr(chosen, field)
        if value is not None and before is not None and value != before and field != "env":
            raise UserError(
                f"Node {node!r}: its tags set {field} = {before!r} and, by tag {tag!r}, {value!r}.",
                f"Set {field} under nodes.{node} in kubernetes.yml.",
            )
    return of_tag.over(chosen)


def read_settings(values: dict[str, Any], source: str) -> KubernetesSettings:
    """Return validated settings.

    Args:
        values: The content of the file.
        source: Name of the file for error messages.

    Raises:
        UserError: Lists every problem.
    """
    from fourfold_ops.hooks.parameters import explain

    try:
        return KubernetesSettings.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(explain(problem, KubernetesSettings) for problem in error.errors(include_url=False))
        raise UserError(f"{source} is not valid: {problems}.", "Correct the file.") from None
