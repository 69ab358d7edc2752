"""All labelers by the names that `conf/` uses: the built-in ones, and those that plug-ins register."""

from fourfold.labelers.geometry.edges import CannyEdges
from fourfold.labelers.geometry.normals import NormalsFromDepth
from fourfold.labelers.image_statistics.metadata import ImageMetadata
from fourfold.labelers.image_statistics.palettes import ColorPalettes
from fourfold.labelers.mini_clip.labelers import MiniClipFeatures, MiniClipVector
from fourfold.labelers.protocol import Labeler, Teacher
from fourfold.plugins import Registry
from fourfold.suggestions import unknown_name

LABELERS: Registry[type[Labeler]] = Registry(
    "labeler", "Name the plug-in that registers it under `plugins` in conf/ (docs/guides/add-a-labeler.md)."
)


def register(labeler_class: type[Labeler]) -> type[Labeler]:
    """Register a labeler under its name and return it, so that it also works as a decorator.

    Raises ValueError when another labeler has this name, or when its teacher's name belongs to another teacher.
    """
    teacher = labeler_class.teacher
    if teacher is not None and known_teachers().get(teacher.name, teacher) is not teacher:
        raise ValueError(f"Two teachers have the name {teacher.name!r}. Give one of them another name.")
    return LABELERS.register(labeler_class.name, labeler_class)


def known_teachers() -> dict[str, Teacher]:
    """Return the teachers of all registered labelers by name."""
    return {entry.teacher.name: entry.teacher for _, entry in LABELERS.items() if entry.teacher is not None}


def known_teacher(name: str) -> Teacher:
    """Return a teacher by name; raises ValueError that suggests the nearest name when there is none."""
    teachers = known_teachers()
    if name not in teachers:
        raise ValueError(unknown_name("teacher", name, teachers, "It belongs to a labeler: name that labeler's plug-in."))
    return teachers[name]


for _labeler in (NormalsFromDepth, MiniClipFeatures, MiniClipVector, CannyEdges, ColorPalettes, ImageMetadata):
    register(_labeler)
