"""Verifies data against their record without running anything."""

import tempfile
from pathlib import Path

from fourfold_ops.errors import UserError
from fourfold_ops.reproduction import git
from fourfold_ops.reproduction.comparison import Comparison
from fourfold_ops.reproduction.environment import changes
from fourfold_ops.reproduction.inputs import compare_inputs, compare_parameters
from fourfold_ops.reproduction.objects import Objects
from fourfold_ops.reproduction.origin import Original
from fourfold_ops.reproduction.outputs import compare_outputs
from fourfold_ops.suggestions import did_you_mean


def verify(project: Path, original: Original, stages: tuple[str, ...] = ()) -> Comparison:
    """Hash the data of a project and the code of the original again, and compare both and its parameters with its lock.

    Args:
        project: The project with the data; nothing is changed.
        original: What is verified: its commit, or the working tree.
        stages: The stages that are verified; by default all that the lock has.

    Raises:
        UserError: A stage is not in the lock.
    """
    names = chosen_stages(original, stages)
    with tempfile.TemporaryDirectory() as folder:
        code = git.export(project, original.commit, Path(folder) / "code", original.patch) if original.commit else project
        return Comparison(
            original.title,
            original.commit,
            original.run_id,
            command="",
            stages=names,
            outputs=tuple(compare_outputs(original.lock, names, project, Objects(project))),
            inputs=tuple(compare_inputs(original.lock, names, code, project)),
            parameters=tuple(compare_parameters(original.lock, names, code)),
            contradictions=tuple(original.lock.contradictions(names)),
            environment=tuple(changes(original.requirements, original.packages)),
            notes=original.notes,
        )


def chosen_stages(original: Original, stages: tuple[str, ...]) -> tuple[str, ...]:
    """Return the stages to compare, in their order; raises UserError for a name that the lock does not have."""
    for name in stages:
        if name not in original.lock.stages:
            raise UserError(
                f"dvc.lock of {original.title} has no stage {name!r}.{did_you_mean(name, original.stages)}",
                f"Choose of: {', '.join(original.stages)}.",
            )
    return tuple(name for name in original.stages if not stages or name in stages)
