"""The page of `kedro demo` for this project: its classes and, as examples, its test images."""

from fourfold.data.shards import ShardSet
from fourfold.demo.page import DemoPage, first_samples
from fourfold.modalities.class_table import ClassTable
from fourfold.plugins import load_plugins
from fourfold_ops.cli.catalog import catalog_path, configuration
from fourfold_ops.errors import UserError

SPLITS = ("test", "val", "train")  # examples come from the first that exists: images that no model was trained on


def page(environment: str | None, is_own: bool) -> DemoPage:
    """Return the page; without data there are no examples, and classes of a model that is not `is_own` have numbers."""
    load_plugins((configuration("parameters", environment) or {}).get("plugins") or ())
    return DemoPage(class_table(environment) if is_own else None, _examples(environment), notice(environment))


def notice(environment: str | None) -> str:
    """Return what a reader of results must know before everything else (`evaluation.notice`); "" for nothing."""
    return str(((configuration("parameters", environment) or {}).get("evaluation") or {}).get("notice") or "")


def class_table(environment: str | None) -> ClassTable | None:
    """Return the names and colors of the classes of the catalog's labels; None without segmentation."""
    labels = _shards("labels", environment)
    splits = labels.splits() if labels else []
    return next((labels.class_table(split) for split in splits if labels and "semseg" in labels.modalities(split)), None)


def _examples(environment: str | None) -> list:
    shards = _shards("shards", environment)
    split = next((split for split in SPLITS if shards and split in shards.splits()), None)
    return first_samples(shards, split) if shards and split else []


def _shards(name: str, environment: str | None) -> ShardSet | None:
    try:
        folder = catalog_path(name, environment)
    except UserError:  # outside of a project
        return None
    return ShardSet(folder) if folder.is_dir() else None
