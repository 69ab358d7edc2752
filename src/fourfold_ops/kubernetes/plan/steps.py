"""Groups the nodes of a pipeline into steps, with their resources, dependencies and order."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Any

from kedro.pipeline import Pipeline
from kedro.pipeline.node import Node

from fourfold_ops.errors import UserError
from fourfold_ops.kubernetes.plan import names
from fourfold_ops.kubernetes.plan.settings import GROUP_TAG, KubernetesSettings, Resources


@dataclass(frozen=True)
class Step:
    """Nodes that run in one process, their resources, and the steps that must finish before."""

    name: str
    stage: str
    nodes: tuple[str, ...]  # in the order of the pipeline
    resources: Resources
    needs: frozenset[str]  # names of the steps that must finish before
    inputs: frozenset[str]  # catalog entries from outside the step
    outputs: frozenset[str]  # catalog entries that the step writes

    @property
    def remote(self) -> bool:
        """Whether the step runs in pods; otherwise it runs in the driver."""
        return bool(self.resources.remote)

    @property
    def title(self) -> str:
        """Name for the user: STAGE/STEP."""
        return self.name if self.name == self.stage else f"{self.stage}/{self.name}"


def plan_steps(pipeline: Pipeline, settings: KubernetesSettings, stage_of: Callable[[Node], str]) -> list[Step]:
    """Return the steps of a pipeline in topological order.

    Args:
        pipeline: The nodes to run.
        settings: Resources and grouping of nodes.
        stage_of: Returns the stage of a node.

    Raises:
        UserError: Steps depend on each other in a cycle, or the nodes of a step have different resources.
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
        raise UserError(f"Node {node.name!r} is in several groups: {', '.join(groups)}.", f"Keep one {GROUP_TAG}NAME tag.")
    if groups:
        return groups[0]
    return node.namespace if settings.group_by == "namespace" and node.namespace else node.name


def _step(name: str, nodes: list[Node], needs: frozenset[str], settings: KubernetesSettings, stage: str) -> Step:
    by_node = {node.name: settings.resources_for(node.name, set(node.tags)) for node in nodes}
    first = by_node[nodes[0].name]
    for other, resources in by_node.items():
        if resources != first:
            fields = ", ".join(field for field, value in resources if value != getattr(first, field))
            raise UserError(
                f"Nodes {nodes[0].name!r} and {other!r} share the step {name!r} but have different {fields}.",
                "Give them the same tags, or the same settings under nodes: in kubernetes.yml.",
            )
    check_resources(name, first)
    made = {output for node in nodes for output in node.outputs}
    used = {entry for node in nodes for entry in node.inputs} - made
    return Step(name, stage, tuple(node.name for node in nodes), first, needs, frozenset(used), frozenset(made))


def check_resources(name: str, resources: Resources) -> None:
    """Raise UserError if resources exclude each other."""
    if (resources.shards or 1) > 1 and (resources.nodes or 1) > 1:
        raise UserError(
            f"Step {name!r} has shards: {resources.shards} and nodes: {resources.nodes}.",
            "Shards work independently, nodes train together: set one of the two.",
        )


def _in_order(needs: Mapping[str, Iterable[str]], members: Mapping[str, list[Node]]) -> list[str]:
    try:
        return list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        cycle = list(reversed(error.args[1]))  # graphlib lists each step before its dependency
        path = " → ".join(f"{group} ({', '.join(node.name for node in members[group])})" for group in cycle)
        raise UserError(
            f"Steps depend on each other in a cycle: {path}.", "Group fewer nodes: move one out of its group or namespace."
        ) from None


def step_contents(steps: list[Step], common: Any, details: dict[str, Any]) -> dict[str, str]:
    """Return a digest by step of everything that determines its result.

    Where a step runs is not included, but the number of processes is.

    Args:
        steps: All steps in topological order; the digests of the steps before are included.
        common: What all steps depend on: code, image and environment.
        details: Parameters by step.
    """
    digests: dict[str, str] = {}
    for step in steps:
        split = [step.resources.nodes, step.resources.processes, step.resources.shards]
        before = sorted(digests[name] for name in step.needs)
        digests[step.name] = names.digest([common, step.name, step.nodes, split, details.get(step.name), before], 16)
    return digests
