"""Paths of the catalog, for commands and scripts outside of a run: only the catalog contains paths."""

from pathlib import Path

from kedro.framework.project import settings
from kedro.framework.startup import bootstrap_project
from kedro.utils import find_kedro_project

from fourfold_ops.errors import UserError


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
    if project is None:
        raise UserError(
            f"{start or Path.cwd()} is not in a project, so there is no catalog.",
            "Change to a project folder, or give the path.",
        )
    bootstrap_project(project)
    source = str(project / settings.CONF_SOURCE)
    catalog = settings.CONFIG_LOADER_CLASS(source, env=environment, **settings.CONFIG_LOADER_ARGS)["catalog"]
    entry = catalog.get(name) or {}
    path = entry.get("path") or entry.get("filepath")
    if path is None:
        raise UserError(f"The catalog has no path for {name!r}.", f"Known: {', '.join(sorted(catalog))}.")
    absolute = Path(project) / path
    return absolute.relative_to(Path.cwd()) if absolute.is_relative_to(Path.cwd()) else absolute
