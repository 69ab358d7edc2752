"""Where the catalog keeps things, for commands and scripts outside of a run: paths stand in the catalog and nowhere else."""

from pathlib import Path

from kedro.framework.project import settings
from kedro.framework.startup import bootstrap_project
from kedro.utils import find_kedro_project

from fourfold_ops.errors import UserError


def catalog_path(name: str, environment: str | None = None, start: Path | None = None) -> Path:
    """Return the path of one dataset of the project around `start` (by default the current folder), relative to that folder.

    `environment` is a folder of `conf/`. Raises UserError outside a project and for a dataset without a path.
    """
    project = find_kedro_project(start or Path.cwd())
    if project is None:
        raise UserError(f"{start or Path.cwd()} is not in a project, so there is no catalog.", "Go there, or name the path.")
    bootstrap_project(project)
    source = str(project / settings.CONF_SOURCE)
    catalog = settings.CONFIG_LOADER_CLASS(source, env=environment, **settings.CONFIG_LOADER_ARGS)["catalog"]
    entry = catalog.get(name) or {}
    path = entry.get("path") or entry.get("filepath")
    if path is None:
        raise UserError(f"The catalog has no path for {name!r}.", f"Known: {', '.join(sorted(catalog))}.")
    place = Path(project) / path
    return place.relative_to(Path.cwd()) if place.is_relative_to(Path.cwd()) else place
