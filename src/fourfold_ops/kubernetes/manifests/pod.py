"""The pod of a Job, as plain dictionaries: hardened as Pod Security "restricted" asks, with scratch room of its own."""

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
    """Return the pod's spec, as Pod Security "restricted" admits it."""
    security = settings.security
    found: Manifest = {
        "restartPolicy": "Never",  # the Job decides on retries, with the exit code in sight
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
        found["subdomain"] = spec.name
    optional = {
        "serviceAccountName": spec.service_account or settings.service_account,
        "priorityClassName": spec.resources.priority_class,
        "nodeSelector": dict(spec.resources.node_selector or {}),
        "tolerations": [dict(toleration) for toleration in spec.resources.tolerations or ()],
        "imagePullSecrets": [{"name": name} for name in settings.pull_secrets],
    }
    return {**found, **{name: value for name, value in optional.items() if value}}


def container(spec: JobSpec, settings: KubernetesSettings) -> Manifest:
    """Return the pod's one container."""
    found: Manifest = {
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
        "terminationMessagePolicy": "FallbackToLogsOnError",  # the last lines survive in the pod's status
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
            {"name": "scratch", "mountPath": "/tmp", "subPath": "tmp"},  # noqa: S108, for programs that do not ask TMPDIR
            {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108, what loader workers hand batches over in
        ],
    }
    if whole := [secret.name for secret in settings.secrets if not secret.keys]:
        found["envFrom"] = [{"secretRef": {"name": name}} for name in whole]
    found["env"] += [
        {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret.name, "key": key}}}
        for secret in settings.secrets
        for variable, key in sorted(secret.keys.items())
    ]
    return found


def resource_requirements(resources: Resources) -> Manifest:
    """Return what a pod is promised, and what it is held to."""
    promised = {"cpu": resources.cpu, "memory": resources.memory}
    if resources.gpus:
        promised[str(resources.gpu_resource)] = str(resources.gpus)
    most = max((resources.cpu or "0", resources.cpu_limit or "0"), key=quantity)
    return {"requests": promised, "limits": {**promised, "cpu": most}}


def _environment(spec: JobSpec) -> list[Manifest]:
    """Return the variables: what the site sets, under what the driver hands over."""
    own = {
        "HOME": SCRATCH,
        "TMPDIR": SCRATCH,
        "XDG_CACHE_HOME": SCRATCH,
        "MPLCONFIGDIR": SCRATCH,
        "PYTHONUNBUFFERED": "1",  # a line is seen when it is written
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    split = {}
    if spec.parts:
        split = {
            handover.PART_COUNT: str(spec.resources.shards),
            handover.PART_NUMBERS: ",".join(map(str, spec.parts)),
        }
    variables = {**own, **(spec.resources.env or {}), **spec.env, **split}
    pod_name = {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    return [pod_name, *({"name": name, "value": value} for name, value in sorted(variables.items()))]


def launcher(spec: JobSpec, settings: KubernetesSettings) -> list[str]:
    """Return what is put before the command where several train together: torchrun, and what starts it anew."""
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
    """Return the shared volumes, and room of the pod's own for what may not be written to the image."""
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
    """Return where a volume lies in a pod."""
    return mount if mount.startswith("/") else f"{settings.project.rstrip('/')}/{mount.strip('/')}"
