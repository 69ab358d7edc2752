"""Repeats the steps of a run on a Kubernetes cluster: pods see the data of the worktree in the place of the user's."""

import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from fourfold_ops import handover
from fourfold_ops.errors import UserError
from fourfold_ops.reproduction.workspace import STORE, WORKTREE
from fourfold_ops.tracking.store import SQLITE, VARIABLE

if TYPE_CHECKING:
    from fourfold_ops.kubernetes.plan.settings import KubernetesSettings, Volume

RUNNER = "fourfold_ops.kubernetes.KubernetesRunner"


@dataclass(frozen=True)
class Site:
    """Where the steps run: the cluster and volumes of `conf/NAME/kubernetes.yml`.

    Attributes:
        name: Folder of conf/.
        project: The user's project, whose folders the volumes are.
        settings: Those of the user's project: the commit says what is computed, not where.
    """

    name: str
    project: Path
    settings: "KubernetesSettings"

    @classmethod
    def of(cls, project: Path, name: str) -> "Site":
        """Return the site of a folder of conf/. Raises UserError if it has no valid kubernetes.yml."""
        from kedro.framework.project import settings
        from kedro.framework.startup import bootstrap_project

        from fourfold_ops.kubernetes.plan.hook import settings_in

        bootstrap_project(project)
        return cls(name, project.resolve(), settings_in(str(project / settings.CONF_SOURCE), name))

    def folder(self, name: str) -> Path:
        """Return the default folder of a reproduction: on the first volume that pods mount into the project and can write to.

        Raises:
            UserError: There is none.
        """
        mounts = [volume.mount for volume in self.settings.volumes if _is_shared(volume)]
        if not mounts:
            raise UserError(
                f"conf/{self.name}/kubernetes.yml mounts no volume that pods can write to into the project.",
                "Add the one of data/ to `volumes`, or reproduce without --site.",
            )
        return self.project / mounts[0] / "reproductions" / name

    def check(self, folder: Path) -> None:
        """Raise UserError if a worktree in `folder` would not be on a volume that pods can write to."""
        self._moved_volumes(folder.resolve() / WORKTREE)

    def make_folders(self, root: Path) -> None:
        """Create the folders that pods mount: kubelet would create them for root."""
        for volume in self.settings.volumes:
            if _is_shared(volume):
                (root / volume.mount).mkdir(parents=True, exist_ok=True)

    def arguments(self) -> list[str]:
        """Return the options with which `kedro run` runs the steps there."""
        return [f"--runner={RUNNER}", f"--runner-params=site={self.name}"]

    def variables(self, root: Path, image: str, inherited: list[str]) -> dict[str, str]:
        """Return the environment variables of a driver in the worktree.

        Args:
            root: The project in the worktree.
            image: With which the original was made, by digest; "" if it is not known, or not one: that of the site.
            inherited: Names of variables that pods get with the values of the driver.
        """
        from fourfold_ops.kubernetes.plan.hook import SETTINGS_VARIABLE

        values = self.settings.model_dump(mode="json", exclude_unset=True)
        values["volumes"] = [volume.model_dump(mode="json", exclude_unset=True) for volume in self._moved_volumes(root)]
        sections = [values.setdefault("default", {}), *values.get("tags", {}).values(), *values.get("nodes", {}).values()]
        for section in sections:
            (section.get("env") or {}).pop(VARIABLE, None)
            if image:
                section.pop("image", None)
        # The record of the repetition, like that of its driver, is a file in the worktree.
        store = PurePosixPath(self.settings.project, STORE)
        values["default"]["env"] = {**(values["default"].get("env") or {}), VARIABLE: f"{SQLITE}{store}"}
        if image:
            values["image"] = image
        passed = [name for name in (*handover.inherited(), *inherited) if name]
        return {SETTINGS_VARIABLE: json.dumps(values), **({handover.INHERITED: ",".join(passed)} if passed else {})}

    def _moved_volumes(self, root: Path) -> list["Volume"]:
        """Return the volumes with the folders of the worktree `root` in the place of those of the project."""
        shared = [volume for volume in self.settings.volumes if _is_shared(volume)]
        folders = [(volume, (self.project / volume.mount).resolve()) for volume in shared]
        return [
            _moved(volume.mount, root, folders, self.name) if volume in shared else volume for volume in self.settings.volumes
        ]


def _is_shared(volume: "Volume") -> bool:
    """Return whether a volume is a folder of the project to which pods write."""
    return not volume.read_only and not volume.mount.startswith("/")


def _moved(mount: str, root: Path, folders: list[tuple["Volume", Path]], site: str) -> "Volume":
    """Return the volume that has the folder `mount` of a worktree, with the path to it; `folders` are those of the volumes."""
    place = root / mount
    around = [(volume, folder) for volume, folder in folders if place.is_relative_to(folder)]
    if not around:
        known = ", ".join(sorted(str(folder) for _, folder in folders))
        raise UserError(
            f"Pods cannot read {place}: it is on none of the volumes of conf/{site}/kubernetes.yml.",
            f"Give a --folder in {known}.",
        )
    volume, folder = max(around, key=lambda pair: len(pair[1].parts))
    inner = PurePosixPath(volume.sub_path, place.relative_to(folder).as_posix())
    return volume.model_copy(update={"mount": mount, "sub_path": str(inner)})
