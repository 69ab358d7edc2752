"""What a runner is not told by Kedro, noted when a run begins: its options, its parameters and its context."""

import json
import os
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl

from fourfold_ops import handover
from fourfold_ops.errors import UserError
from fourfold_ops.kubernetes.plan import Origin
from fourfold_ops.kubernetes.settings import KubernetesSettings, read_settings

FILE = "kubernetes"
SETTINGS_VARIABLE = "KEDRO_KUBERNETES_SETTINGS"
PATTERNS = ["kubernetes*", "kubernetes*/**"]


class KubernetesHook:
    """Serves `KubernetesRunner` in the driver, and checks in a step that its parameters are the driver's."""

    def __init__(self) -> None:
        self._context: KedroContext | None = None
        self._run_params: dict[str, Any] = {}

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Note the context; in a step, refuse parameters that are not the driver's."""
        self._context = context
        if handed := handover.received():
            check_parameters_are(handed.parameters, context.config_loader["parameters"])

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any]) -> None:
        """Note the options of the run."""
        self._run_params = run_params

    def origin(self) -> Origin:
        """Return what was asked for."""
        from kedro.framework.project import PACKAGE_NAME

        assert self._context is not None
        context = self._context
        return Origin(
            package=PACKAGE_NAME or context.project_path.name,
            project=context.project_path,
            env=self._run_params.get("env"),
            conf_source=str(context.config_loader.conf_source),
            run_params=self._run_params,
            parameters=context.config_loader["parameters"],
        )

    def settings(self, site: str | None) -> KubernetesSettings:
        """Return `kubernetes.yml` of a folder of conf/; None: of the environment of the run."""
        assert self._context is not None
        return site_settings(self._context, site)


def site_settings(context: KedroContext, site: str | None) -> KubernetesSettings:
    """Return the checked `kubernetes.yml`; raises UserError when there is none.

    A driver in the cluster is handed the settings it was submitted with: an image cannot hold a file that names its digest.
    """
    if handed := os.environ.get(SETTINGS_VARIABLE):
        return read_settings(json.loads(handed), SETTINGS_VARIABLE)
    from kedro.config import MissingConfigException, OmegaConfigLoader
    from kedro.framework.project import settings

    where = f"conf/{site or context.env or 'local'}/{FILE}.yml"
    arguments = {**settings.CONFIG_LOADER_ARGS}
    arguments["config_patterns"] = {**arguments.get("config_patterns", {}), FILE: PATTERNS}
    # Read without --params: they say what is computed, this file says where.
    loader = OmegaConfigLoader(str(context.config_loader.conf_source), env=site or context.env, **arguments)
    try:
        values = loader[FILE]
    except (MissingConfigException, KeyError):
        values = {}
    if not values:
        raise UserError(
            f"There is no {where}.", "Write one (conf/kubernetes/kubernetes.yml is an example), or name its folder."
        )
    return read_settings(values, where)


def check_parameters_are(handed: dict[str, str], parameters: dict[str, Any]) -> None:
    """Raise UserError that names the sections in which a step's parameters differ from the driver's."""
    if not handed:
        return
    ours = handover.digests(parameters)
    differing = sorted(name for name in {*handed, *ours} if handed.get(name) != ours.get(name))
    if differing:
        raise UserError(
            f"The parameters of this image differ from the driver's in {', '.join(differing)}.",
            "Build the image from the configuration that the driver runs with (conf/local is not in it).",
        )
