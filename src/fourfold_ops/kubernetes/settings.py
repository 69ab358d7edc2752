"""`conf/<site>/kubernetes.yml`: where steps run and what they get there. Nothing here may change what they compute."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from fourfold_ops.errors import UserError

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$")]  # of a Kubernetes object
Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$")]
Cores = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?m?$")]  # "2", "0.5", "500m"
DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")
REQUEST_TAG = re.compile(r"^(gpus|nodes|shards|cpu|memory)-([0-9][0-9A-Za-z.]*)$")  # on a node: "gpus-8", "memory-64Gi"
GROUP_TAG = "group-"


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)


class Request(_Settings):
    """What a step needs. A field that is None says nothing: the default, a tag or a node may say it."""

    cpu: Cores | None = None  # of each pod
    cpu_limit: Cores | None = None  # that it may use while nobody else needs them; where it is less than `cpu`, that counts
    memory: Quantity | None = None  # of each pod; request and limit, so that a step is not evicted for another's sake
    gpus: int | None = Field(default=None, ge=0, le=64)  # of each pod
    gpu_resource: str | None = None  # nvidia.com/gpu, amd.com/gpu, nvidia.com/mig-3g.20gb, ...
    nodes: int | None = Field(default=None, ge=1, le=4096)  # pods that train together under torchrun
    processes: int | None = Field(default=None, ge=1, le=64)  # of torchrun in each pod; default: one per GPU, at least one
    shards: int | None = Field(default=None, ge=1, le=10_000)  # pods that each do their own part of the work
    parallelism: int | None = Field(default=None, ge=1)  # of the shards: at most so many at once
    scratch: Quantity | None = None  # room for temporary files
    shared_memory: Quantity | None = None  # /dev/shm, counted into `memory`: what loader workers hand over
    deadline_seconds: int | None = Field(default=None, ge=1)  # of the whole step; None: none
    retries: int | None = Field(default=None, ge=0, le=100)  # of a pod that failed; a pre-empted one is not counted
    tolerations: tuple[dict[str, Any], ...] | None = None
    node_selector: dict[str, str] | None = None
    priority_class: Name | None = None
    image: str | None = None
    queue: Name | None = None  # of Kueue
    env: dict[str, str] | None = None
    remote: bool | None = None  # False: in the driver, whatever its tags say

    def over(self, other: "Request") -> "Request":
        """Return what this says, and `other` where this says nothing; `env` is merged."""
        said = {name: value for name, value in self if value is not None}
        below = {name: value for name, value in other if value is not None}
        merged = {"env": {**below.get("env", {}), **said.get("env", {})}}
        return Request(**{**below, **said, **(merged if merged["env"] else {})})


BUILT_IN = Request(
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
    """A volume that driver and steps both see. `mount` is relative to the project's folder, or absolute."""

    mount: str
    claim: Name | None = None  # of a PersistentVolumeClaim, ReadWriteMany where steps run on several machines
    host_path: str | None = None  # a folder of the node: for one machine; Pod Security "restricted" does not admit it
    sub_path: str = ""
    read_only: bool = False

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.claim is None) == (self.host_path is None):
            raise ValueError(f"the volume at {self.mount!r} needs one of claim and host_path")
        return self


class Secret(_Settings):
    """A Secret whose keys become environment variables. Only its name is known here."""

    name: Name
    keys: dict[str, str] = {}  # variable → key of the Secret; empty: every key under its own name


class Security(_Settings):
    """Who the processes of a pod are; the rest of the hardening is not for choice."""

    user: int = Field(default=1000, ge=1)  # never root
    group: int = Field(default=1000, ge=1)
    fs_group: int | None = Field(default=1000, ge=1)  # owner of the volumes' files, where the volume can do that


class KubernetesSettings(_Settings):
    """All of `kubernetes.yml`. What a step gets: `default`, under what its tags say, under what its name says."""

    image: str  # by digest: what ran can be run again
    allow_tag: bool = False  # let `image` be a tag, which may be another program tomorrow
    pull_policy: Literal["IfNotPresent", "Always", "Never"] = "IfNotPresent"
    pull_secrets: tuple[Name, ...] = ()
    context: str | None = None  # of the kubeconfig; None: the current one, or the pod's own service account
    namespace: Name = "default"
    project: str = "/opt/project"  # the project's folder in the image
    command: tuple[str, ...] = ("kedro",)
    python: tuple[str, ...] = ("python",)
    service_account: Name | None = None  # of the steps, which need none
    driver_service_account: Name = "kedro-driver"  # of `kedro submit`
    volumes: tuple[Volume, ...] = ()
    secrets: tuple[Secret, ...] = ()
    security: Security = Security()
    default: Request = Request()
    driver: Request = Request()  # what the driver of `kedro submit` gets
    tags: dict[str, Request] = {}
    nodes: dict[str, Request] = {}
    remote: Literal["tagged", "all"] = "tagged"  # steps that no tag or name makes remote: in the driver, or in pods too
    group_by: Literal["node", "namespace"] = "node"
    parallel_steps: int = Field(default=64, ge=1)
    ttl_seconds: int = Field(default=24 * 3600, ge=60)  # a finished Job is kept so long; its logs are in MLflow by then
    grace_seconds: int = Field(default=60, ge=1)  # between SIGTERM and SIGKILL: time to write a checkpoint
    start_seconds: int = Field(default=120, ge=1)  # for an image, a secret or a volume that is not there to turn up
    pending_seconds: int | None = Field(default=None, ge=1)  # for a place on a node, quota or a queue; None: for ever
    api_seconds: int = Field(default=300, ge=1)  # that the API server may be away
    port: int = Field(default=29500, ge=1024, le=65534)  # of torchrun's rendezvous; the next one is the gang's

    @model_validator(mode="after")
    def _images_are_pinned(self) -> Self:
        for image in [self.image, *(r.image for r in (*self.tags.values(), *self.nodes.values()) if r.image)]:
            if not DIGEST.search(image) and not self.allow_tag and self.pull_policy != "Never":
                raise ValueError(
                    f"image {image!r} is not named by digest, so what ran could not be run again. Write NAME@sha256:…, "
                    "or set allow_tag: true"
                )
        return self

    def request_for(self, name: str, tags: set[str]) -> Request:
        """Return what a node gets; `remote` is False for one that runs in the driver.

        Raises UserError when two of its tags say different things.
        """
        said = Request()
        for tag in sorted(tags & set(self.tags)):
            said = _agreeing(said, self.tags[tag], name, tag)
        inline = {m[1]: m[2] for tag in sorted(tags) if (m := REQUEST_TAG.match(tag))}
        if inline:
            said = Request.model_validate(inline).over(said)
        said = self.nodes.get(name, Request()).over(said)
        named = bool(tags & set(self.tags)) or bool(inline) or name in self.nodes
        if said.remote is None:
            said = Request(remote=named or self.remote == "all").over(said)
        return said.over(self.default).over(BUILT_IN)


def _agreeing(said: Request, tag_says: Request, node: str, tag: str) -> Request:
    for field, value in tag_says:
        before = getattr(said, field)
        if value is not None and before is not None and value != before and field != "env":
            raise UserError(
                f"Node {node!r}: its tags ask for {field} = {before!r} and, by tag {tag!r}, {value!r}.",
                f"Say what it gets under nodes.{node} in kubernetes.yml.",
            )
    return tag_says.over(said)


def read_settings(values: dict[str, Any], source: str) -> KubernetesSettings:
    """Return the checked settings; raises UserError that lists every problem, naming `source`."""
    from fourfold_ops.hooks.parameters import explain

    try:
        return KubernetesSettings.model_validate(values)
    except ValidationError as error:
        problems = "; ".join(explain(problem, KubernetesSettings) for problem in error.errors(include_url=False))
        raise UserError(f"{source} is not valid: {problems}.", "Correct it there.") from None
