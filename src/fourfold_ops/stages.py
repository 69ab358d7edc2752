"""Which stage a node belongs to, and where a failure was."""

from kedro.framework.hooks import hook_impl
from kedro.pipeline.node import Node

from fourfold_ops.failures import set_place


def stage_of(node: Node) -> str:
    """Return the name of the registered pipeline that holds `node`; else its namespace, its first tag, or "run"."""
    found = stages().get(node.name)
    return found or (node.namespace or "").split(".")[0] or next(iter(sorted(node.tags)), "run")


def stages() -> dict[str, str]:
    """Return the registered pipeline of each node, by the node's name."""
    from kedro.framework.project import pipelines

    return {node.name: name for name, pipeline in pipelines.items() if name != "__default__" for node in pipeline.nodes}


class PlaceHook:
    """Notes in which stage and node an error came up, and on the way in or out of which dataset."""

    def __init__(self) -> None:
        self._place = ""

    @hook_impl(tryfirst=True)
    def before_dataset_loaded(self, dataset_name: str, node: Node) -> None:
        """Note where the run is."""
        self._place = f"{stage_of(node)}, node {node.name}, loading {dataset_name}"

    @hook_impl(tryfirst=True)
    def before_node_run(self, node: Node) -> None:
        """Note where the run is."""
        self._place = f"{stage_of(node)}, node {node.name}"

    @hook_impl(tryfirst=True)
    def before_dataset_saved(self, dataset_name: str, node: Node) -> None:
        """Note where the run is."""
        self._place = f"{stage_of(node)}, node {node.name}, saving {dataset_name}"

    @hook_impl(tryfirst=True)
    def on_pipeline_error(self, error: Exception) -> None:
        """Tie the place to the error, unless it knows better."""
        set_place(error, getattr(error, "place", self._place))
