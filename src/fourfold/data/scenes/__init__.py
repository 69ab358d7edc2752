"""The rendered world: scenes drawn from a seed, pictures with exact truth, captions and questions."""

from fourfold.data.scenes.camera import Camera
from fourfold.data.scenes.captions import caption
from fourfold.data.scenes.config import SPLITS, ScenesConfig
from fourfold.data.scenes.questions import ANSWERS, Question, questions
from fourfold.data.scenes.render import RenderedBatch, render
from fourfold.data.scenes.scene import Scene, SceneObject, parse_key, scene
from fourfold.data.scenes.vocabulary import (
    CLASS_NAMES,
    COLOURS,
    FLOORS,
    GROUND_ID,
    NUMBERS,
    OBJECT_CLASSES,
    SHAPES,
    SIZES,
    SKY_ID,
    TEXTURES,
)
from fourfold.data.scenes.writing import TRUTH, write_crawl, write_truth

__all__ = [
    "ANSWERS",
    "CLASS_NAMES",
    "COLOURS",
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
    "Camera",
    "Question",
    "RenderedBatch",
    "Scene",
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
