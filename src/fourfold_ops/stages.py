"""The stage of a node: the registered pipeline that contains it."""

from kedro.pipeline.node import Node


def stage_of(node: Node) -> str:
    """Return the name of the registered pipeline that contains `node`; else its namespace, its first tag, or "run"."""
    registered = stages().get(node.name)
    return registered or (node.namespace or "").split(".")[0] or next(iter(sorted(node.tags)), "run")


def stages() -> dict[str, str]:
    """Return the registered pipeline of each node, by the name of the node."""
    from kedro.framework.project import pipelines

    return {node.name: name for name, pipeline in pipelines.items() if name != "__default__" for node in pipeline.nodes}
