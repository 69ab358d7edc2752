"""Where in the run an error was raised: stage, node, and the dataset that was being loaded or saved."""

from kedro.framework.hooks import hook_impl
from kedro.pipeline.node import Node

from fourfold_ops.errors import set_location
from fourfold_ops.stages import stage_of


class ErrorLocationHook:
    """Attaches the location in the run to an error that ends it, for the one line that the command prints."""

    def __init__(self) -> None:
        self._location = ""

    @hook_impl(tryfirst=True)
    def before_dataset_loaded(self, dataset_name: str, node: Node) -> None:
        """Note the dataset that is loaded."""
        self._location = f"{stage_of(node)}, node {node.name}, loading {dataset_name}"

    @hook_impl(tryfirst=True)
    def before_node_run(self, node: Node) -> None:
        """Note the node that runs."""
        self._location = f"{stage_of(node)}, node {node.name}"

    @hook_impl(tryfirst=True)
    def before_dataset_saved(self, dataset_name: str, node: Node) -> None:
        """Note the dataset that is saved."""
        self._location = f"{stage_of(node)}, node {node.name}, saving {dataset_name}"

    @hook_impl(tryfirst=True)
    def on_pipeline_error(self, error: Exception) -> None:
        """Attach the location, unless the error has one (a runner that executes nodes elsewhere sets its own)."""
        set_location(error, self._location)
