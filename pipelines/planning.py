"""What `kedro plan` asks this project: claimed folders, code, sources. Nothing here imports torch until a run asks for it."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fourfold.data.manifests import MANIFEST_FILE
from fourfold.digests import DIGESTS_FILE, damage_of, recorded_digests, sha256_file
from fourfold.reuse import FINGERPRINT_FILE, read_fingerprint
from fourfold.source_code import current_digests
from fourfold.storage import read_json
from fourfold_ops.planning.contents import files
from fourfold_ops.planning.project import Claim, Storage
from pipelines.sources import check_paths, source_files


class Project:
    """The answers; see `fourfold_ops.planning.project.PlannedProject`."""

    def claims(self, folder: Path) -> dict[Path, Claim]:
        """Return the claimed folders at or below a folder; one with an unreadable fingerprint counts as not claimed."""
        found = {}
        for file in files(folder):
            if file.name == FINGERPRINT_FILE:
                content = read_fingerprint(file)
                if {"parameters", "inputs", "modules"} <= set(content):
                    found[file.parent] = _claim(content)
        return found

    def code(self, modules: Iterable[str]) -> dict[str, str]:
        """Return the digest of each module as it is now."""
        return current_digests(modules)

    def stage_code(self, stages: Mapping[str, set[str]], catalog: Mapping[str, Any], parameters: Any) -> dict[str, Any]:
        """Return, by stage, the digest of every module that it can reach, also through the entries of plug-ins."""
        from pipelines.reach import plugin_modules, reached_modules

        plugins = plugin_modules(list(parameters.get("plugins") or ()))
        reached = {stage: reached_modules(stage, datasets, catalog, plugins) for stage, datasets in stages.items()}
        return {stage: self.code(modules) for stage, modules in reached.items()}

    def damage(self, file: Path) -> str:
        """Describe how a file differs from the SHA-256 in its manifest, or in the `digests.json` of a folder above."""
        manifest = file.parent / MANIFEST_FILE
        if file != manifest and manifest.is_file():
            entries = read_json(manifest)["shards"]
            recorded = {one["name"]: one["sha256"] for shard in entries for one in (shard, shard["facts"])}
            is_other = file.name in recorded and sha256_file(file) != recorded[file.name]
            return f"{_shown(file)} changed after it was written" if is_other else ""
        for folder in file.parents[:3]:
            record = recorded_digests(folder) if (folder / DIGESTS_FILE).is_file() else {}
            name = file.relative_to(folder).as_posix()
            if name in record:
                return f"{_shown(file)} changed after it was written" if damage_of(folder, name, record) else ""
        return ""

    def outside(self, parameters: Mapping[str, Any]) -> dict[str, str | None]:
        """Return the source and the supplement of ingestion."""
        return {name: place for name, (place, _) in source_files(dict(parameters)).items()}

    def check(self, stages: Iterable[str], parameters: Mapping[str, Any]) -> None:
        """Raise ValueError if the path of a source does not exist."""
        if "ingestion" in stages:
            check_paths(parameters.get("ingestion") or {})

    def storage(self, root: Path, parameters: Mapping[str, Any], catalog: Mapping[str, Any]) -> Storage | None:
        """Return the bytes of images, labels and tokens of the configured source, on the disk and in a bucket."""
        from pipelines.storage import find_storage

        try:
            return find_storage(root, parameters, catalog)
        except (ValueError, TypeError):  # settings of a wrong type; they are a problem of the plan, with all their names
            return None


def _claim(content: dict[str, Any]) -> Claim:
    """Return what a `fingerprint.json` records."""
    is_kept = "content" not in content["parameters"]  # rendered scenes: see fourfold.scenes.world.writing
    return Claim(
        digest=str(content.get("fingerprint")),
        parameters=content["parameters"],
        inputs=content["inputs"],
        modules=content["modules"],
        is_kept=is_kept,
    )


def _shown(file: Path) -> str:
    return str(file.relative_to(Path.cwd())) if file.is_relative_to(Path.cwd()) else str(file)


PROJECT = Project()
