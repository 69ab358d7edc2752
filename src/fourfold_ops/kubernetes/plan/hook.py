"""Kedro hook that gives the runner what Kedro does not pass to it: options, parameters and context of the run."""

import json
import os
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl

from fourfold_ops import handover
from fourfold_ops.errors import UserError
from fourfold_ops.kubernetes.plan.run_plan import Origin
from fourfold_ops.kubernetes.plan.settings import KubernetesSettings, read_settings

FILE = "kubernetes"
SETTINGS_VARIABLE = "KEDRO_KUBERNETES_SETTINGS"
PATTERNS = ["kubernetes*", "kubernetes*/**"]


class KubernetesHook:
    """Serves `KubernetesRunner` in the driver; in a step, checks that the parameters are those of the driver."""

    def __init__(self) -> None:
        self._context: KedroContext | None = None
        self._run_params: dict[str, Any] = {}

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Keep the context; in a step, raise UserError if its parameters differ from those of the driver."""
        self._context = context
        if handed := handover.received():
            check_parameters(handed.parameters, context.config_loader["parameters"])

    @hook_impl
    def before_pipeline_run(self, run_params: dict[str, Any]) -> None:
        """Keep the options of the run."""
        self._run_params = run_params

    def origin(self) -> Origin:
        """Return the options of the run and its project."""
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
        """Return the settings of a folder of conf/; None: of the environment of the run."""
        assert self._context is not None
        return site_settings(self._context, site)


def site_settings(context: KedroContext, site: str | None) -> KubernetesSettings:
    """Return the validated settings of `kubernetes.yml`.

    A driver in the cluster gets the settings with which it was submitted from an environment variable, because an image
    cannot contain a file with its own digest.

    Raises:
        UserError: There is no such file, or it is not valid.
    """
    if handed := os.environ.get(SETTINGS_VARIABLE):
        return read_settings(json.loads(handed), SETTINGS_VARIABLE)
    return settings_in(str(context.config_loader.conf_source), site or context.env)


def settings_in(conf_source: str, folder: str | None) -> KubernetesSettings:
    """Return the validated settings of `kubernetes.yml`.

    Args:
        conf_source: Path of the configuration.
        folder: Folder of the configuration that has the file; None: `local`.

    Raises:
        UserError: There is no such file, or it is not valid.
    """
    from kedro.config import MissingConfigException, OmegaConfigLoader
    from kedro.framework.project import settings

    where = f"conf/{folder or 'local'}/{FILE}.yml"
    arguments = {**settings.CONFIG_LOADER_ARGS}
    arguments["config_patterns"] = {**arguments.get("config_patterns", {}), FILE: PATTERNS}
    # Without --params: they set what is computed, this file sets where.
    loader = OmegaConfigLoader(conf_source, env=folder, **arguments)
    try:
        values = loader[FILE]
    except (MissingConfigException, KeyError):
        values = {}
    if not values:
        raise UserError(
            f"There is no {where}.",
            "Write one (conf/kubernetes/kubernetes.yml is an example), or name its folder with --runner-params=site=FOLDER.",
        )
    return read_settings(values, where)


def check_parameters(handed: dict[str, str], parameters: dict[str, Any]) -> None:
    """Raise UserError that names the sections in which the parameters of a step differ from those of the driver."""
    if not handed:
        return
    ours = handover.digests(parameters)
    differing = sorted(name for name in {*handed, *ours} if handed.get(name) != ours.get(name))
    if differing:
        raise UserError(
            f"The parameters of this image differ from the driver's in {', '.join(differing)}.",
            "Build the image from the configuration of the driver (conf/local is not part of it).",
        )
