"""Rendered scenes: drawn from a seed, with images, exact truth, captions and questions."""

from fourfold.scenes.world.camera import SceneCamera
from fourfold.scenes.world.captions import caption
from fourfold.scenes.world.config import SPLITS, ScenesConfig
from fourfold.scenes.world.questions import ANSWERS, Question, questions
from fourfold.scenes.world.render import RenderedBatch, render
from fourfold.scenes.world.scene import Scene, SceneObject, parse_key, scene
from fourfold.scenes.world.vocabulary import (
    CLASS_NAMES,
    CLASS_TABLE,
    COLORS,
    FLOORS,
    GROUND_ID,
    NUMBERS,
    OBJECT_CLASSES,
    SHAPES,
    SIZES,
    SKY_ID,
    TEXTURES,
)
from fourfold.scenes.world.writing import TRUTH, write_crawl, write_truth

__all__ = [
    "ANSWERS",
    "CLASS_NAMES",
    "CLASS_TABLE",
    "COLORS",
    "FLOORS",
    "GROUND_ID",
    "NUMBERS",
    "OBJECT_CLASSES",
    "SHAPES",
    "SIZES",
    "SKY_ID",
    "SPLITS",
    "TEXTURES",
    "TRUTH",
    "Question",
    "RenderedBatch",
    "Scene",
    "SceneCamera",
    "SceneObject",
    "ScenesConfig",
    "caption",
    "parse_key",
    "questions",
    "render",
    "scene",
    "write_crawl",
    "write_truth",
]
