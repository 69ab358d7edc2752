"""Manifests of pods: plain dictionaries that fulfill the Pod Security standard "restricted"."""

from typing import Any

from fourfold_ops import handover
from fourfold_ops.kubernetes.cluster.connection import quantity
from fourfold_ops.kubernetes.plan.job_spec import JobSpec
from fourfold_ops.kubernetes.plan.settings import KubernetesSettings, Resources

Manifest = dict[str, Any]
CONTAINER = "step"
SCRATCH = "/scratch"
LAUNCHER = "fourfold_ops.kubernetes.in_pod.launch"


def pod(spec: JobSpec, settings: KubernetesSettings) -> Manifest:
    """Return the spec of the pod."""
    security = settings.security
    manifest: Manifest = {
        "restartPolicy": "Never",  # the Job retries, because its failure policy depends on the exit code
        "automountServiceAccountToken": spec.talks_to_api,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": settings.grace_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": security.user,
            "runAsGroup": security.group,
            **({"fsGroup": security.fs_group, "fsGroupChangePolicy": "OnRootMismatch"} if security.fs_group else {}),
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container(spec, settings)],
        "volumes": volumes(spec, settings),
    }
    if spec.num_nodes > 1:
        manifest["subdomain"] = spec.name  # with the headless Service: host names of the pods
    optional = {
        "serviceAccountName": spec.service_account or settings.service_account,
        "priorityClassName": spec.resources.priority_class,
        "nodeSelector": dict(spec.resources.node_selector or {}),
        "tolerations": [dict(toleration) for toleration in spec.resources.tolerations or ()],
        "imagePullSecrets": [{"name": name} for name in settings.pull_secrets],
    }
    return {**manifest, **{name: value for name, value in optional.items() if value}}


def container(spec: JobSpec, settings: KubernetesSettings) -> Manifest:
    """Return the only container of the pod."""
    manifest: Manifest = {
        "name": CONTAINER,
        "image": spec.resources.image or settings.image,
        "imagePullPolicy": settings.pull_policy,
        "command": [*launcher(spec, settings), *spec.command],
        "workingDir": settings.project,
        "env": _environment(spec),
        "resources": resource_requirements(spec.resources),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",  # keeps the last lines in the status of the pod
        "volumeMounts": [
            *(
                {
                    "name": f"shared-{number}",
                    "mountPath": mount_path(volume.mount, settings),
                    **({"subPath": volume.sub_path} if volume.sub_path else {}),
                    **({"readOnly": True} if volume.read_only else {}),
                }
                for number, volume in enumerate(settings.volumes)
            ),
            {"name": "scratch", "mountPath": SCRATCH},
            {"name": "scratch", "mountPath": "/tmp", "subPath": "tmp"},  # noqa: S108, for programs that ignore TMPDIR
            {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108, batches of data loader workers
        ],
    }
    if complete := [secret.name for secret in settings.secrets if not secret.keys]:
        manifest["envFrom"] = [{"secretRef": {"name": name}} for name in complete]
    manifest["env"] += [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret.name, "key": key}}}
        for secret in settings.secrets
        for variable, key in sorted(secret.keys.items())
    ]
    return manifest


def resource_requirements(resources: Resources) -> Manifest:
    """Return requests and limits.

    They are equal, so that a pod is not evicted for the memory of another one; only the limit of `cpu` may be higher.
    """
    requests = {"cpu": resources.cpu, "memory": resources.memory}
    if resources.gpus:
        requests[str(resources.gpu_resource)] = str(resources.gpus)
    cpu_limit = max((resources.cpu or "0", resources.cpu_limit or "0"), key=quantity)
    return {"requests": requests, "limits": {**requests, "cpu": cpu_limit}}


def _environment(spec: JobSpec) -> list[Manifest]:
    """Return the environment variables; those of the driver override those of the site, which override the defaults."""
    defaults = {
        "HOME": SCRATCH,
        "TMPDIR": SCRATCH,
        "XDG_CACHE_HOME": SCRATCH,
        "MPLCONFIGDIR": SCRATCH,
        "PYTHONUNBUFFERED": "1",  # lines appear in the log when they are written
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    split = {}
    if spec.parts:
        split = {
            handover.PART_COUNT: str(spec.resources.shards),
            handover.PART_NUMBERS: ",".join(map(str, spec.parts)),
        }
    variables = {**defaults, **(spec.resources.env or {}), **spec.env, **split}
    pod_name = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    return [pod_name, *({"name": name, "value": value} for name, value in sorted(variables.items()))]


def launcher(spec: JobSpec, settings: KubernetesSettings) -> list[str]:
    """Return the launcher that is put before the command if several processes train together."""
    if not spec.distributed:
        return []
    several = spec.num_nodes > 1
    return [
        *settings.python,
        "-m",
        LAUNCHER,
        f"--nodes={spec.num_nodes}",
        f"--processes={spec.num_processes}",
        f"--index={f'$({handover.PART_INDEX})' if several else 0}",
        f"--first={f'{spec.name}-0.{spec.name}' if several else '127.0.0.1'}",
        f"--port={settings.port}",
        f"--grace={settings.grace_seconds}",
    ]


def volumes(spec: JobSpec, settings: KubernetesSettings) -> list[Manifest]:
    """Return the shared volumes, and temporary ones, since the file system of the image is read-only."""
    shared = [
        {
            "name": f"shared-{number}",
            **(
                {"persistentVolumeClaim": {"claimName": volume.claim}}
                if volume.claim
                else {"hostPath": {"path": volume.host_path, "type": "Directory"}}
            ),
        }
        for number, volume in enumerate(settings.volumes)
    ]
    return [
        *shared,
        {"name": "scratch", "emptyDir": {"sizeLimit": spec.resources.scratch}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": spec.resources.shared_memory}},
    ]


def mount_path(mount: str, settings: KubernetesSettings) -> str:
    """Return the absolute path at which a volume is mounted."""
    return mount if mount.startswith("/") else f"{settings.project.rstrip('/')}/{mount.strip('/')}"
