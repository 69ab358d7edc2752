"""From nodes to steps: what shares a process, what each step needs, and in which order steps may run. Pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from fourfold_ops.errors import UserError
from fourfold_ops.kubernetes.settings import GROUP_TAG, KubernetesSettings, Request


@dataclass(frozen=True)
class Step:
    """Nodes that run in one process, where they run, and the steps that must have finished before."""

    name: str
    stage: str
    nodes: tuple[str, ...]  # in the order of the pipeline
    request: Request
    needs: frozenset[str]  # names of steps
    inputs: frozenset[str]  # catalog entries from outside the step
    outputs: frozenset[str]  # catalog entries that the step makes

    @property
    def remote(self) -> bool:
        """Whether it runs in pods; the others run in the driver."""
        return bool(self.request.remote)

    @property
    def title(self) -> str:
        """How it is called to the user."""
        return self.name if self.name == self.stage else f"{self.stage}/{self.name}"


def plan_steps(pipeline: Pipeline, settings: KubernetesSettings, stage_of: Callable[[Node], str]) -> list[Step]:
    """Return the steps of a pipeline in an order in which they could run one after another.

    Raises UserError when steps wait for each other in a circle, or when the nodes of one step ask for different places.
    """
    group_of = {node.name: _group(node, settings) for node in pipeline.nodes}
    members: dict[str, list[Node]] = {}
    for node in pipeline.nodes:
        members.setdefault(group_of[node.name], []).append(node)
    needs = {
        group: frozenset(
            group_of[before.name] for node in nodes for before in pipeline.node_dependencies[node] if before not in nodes
        )
        for group, nodes in members.items()
    }
    steps = {group: _step(group, nodes, needs[group], settings, stage_of(nodes[0])) for group, nodes in members.items()}
    return [steps[group] for group in _in_order(needs, members)]


def _group(node: Node, settings: KubernetesSettings) -> str:
    groups = sorted(tag.removeprefix(GROUP_TAG) for tag in node.tags if tag.startswith(GROUP_TAG))
    if len(groups) > 1:
        raise UserError(f"Node {node.name!r} is in two groups: {', '.join(groups)}.", f"Leave one {GROUP_TAG}… tag.")
    if groups:
        return groups[0]
    return node.namespace if settings.group_by == "namespace" and node.namespace else node.name


def _step(name: str, nodes: list[Node], needs: frozenset[str], settings: KubernetesSettings, stage: str) -> Step:
    requests = {node.name: settings.request_for(node.name, set(node.tags)) for node in nodes}
    first = requests[nodes[0].name]
    for other, request in requests.items():
        if request != first:
            fields = ", ".join(field for field, value in request if value != getattr(first, field))
            raise UserError(
                f"Nodes {nodes[0].name!r} and {other!r} share the step {name!r} but ask for different {fields}.",
                "Give them the same tags, or say the same under nodes: in kubernetes.yml.",
            )
    check_request(name, first)
    made = {output for node in nodes for output in node.outputs}
    used = {entry for node in nodes for entry in node.inputs} - made
    return Step(name, stage, tuple(node.name for node in nodes), first, needs, frozenset(used), frozenset(made))


def check_request(name: str, request: Request) -> None:
    """Raise UserError when a request contradicts itself."""
    if (request.shards or 1) > 1 and (request.nodes or 1) > 1:
        raise UserError(
            f"Step {name!r} asks for shards: {request.shards} and nodes: {request.nodes}.",
            "Shards work apart, nodes train together: ask for one of the two.",
        )


def _in_order(needs: Mapping[str, Iterable[str]], members: Mapping[str, list[Node]]) -> list[str]:
    try:
        return list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        circle = list(reversed(error.args[1]))  # graphlib lists each before what it needs
        names = " → ".join(f"{group} ({', '.join(node.name for node in members[group])})" for group in circle)
        raise UserError(
            f"Steps wait for each other in a circle: {names}.", "Group fewer nodes: move one out of its group or namespace."
        ) from None
