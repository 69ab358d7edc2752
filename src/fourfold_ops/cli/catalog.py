"""Configuration of the project for commands and scripts outside of a run: paths of the catalog, and parameters."""

from pathlib import Path
from typing import Any

from kedro.framework.project import settings
from kedro.framework.startup import bootstrap_project
from kedro.utils import find_kedro_project

from fourfold_ops.errors import UserError


def configuration(section: str, environment: str | None = None, start: Path | None = None) -> dict[str, Any] | None:
    """Return a section of the configuration, with everything that the environment overrides.

    Args:
        section: "catalog" or "parameters".
        environment: A folder of `conf/`.
        start: A folder in the project; by default the current one.

    Returns:
        The section, or None if `start` is in no project.
    """
    project = find_kedro_project(start or Path.cwd())
    if project is None:
        return None
    bootstrap_project(project)
    source = str(project / settings.CONF_SOURCE)
    return settings.CONFIG_LOADER_CLASS(source, env=environment, **settings.CONFIG_LOADER_ARGS)[section]


def catalog_path(name: str, environment: str | None = None, start: Path | None = None) -> Path:
    """Return the path of one data set.

    Args:
        name: Name in the catalog.
        environment: A folder of `conf/`.
        start: A folder in the project; by default the current one.

    Returns:
        The path, relative to the current folder if it is inside.

    Raises:
        UserError: `start` is in no project, or the data set has no path.
    """
    project = find_kedro_project(start or Path.cwd())
    catalog = configuration("catalog", environment, start)
    if project is None or catalog is None:
        raise UserError(
            f"{start or Path.cwd()} is not in a project, so there is no catalog.",
            "Change to a project folder, or give the path.",
        )
    entry = catalog.get(name) or {}
    path = entry.get("path") or entry.get("filepath")
    if path is None:
        raise UserError(f"The catalog has no path for {name!r}.", f"Known: {', '.join(sorted(catalog))}.")
    absolute = Path(project) / path
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute
