"""Settings of the labeling stage."""

from pydantic import Field, field_validator

from fourfold.configuration import Config
from fourfold.labelers.geometry.edges import CannyConfig
from fourfold.labelers.geometry.normals import NormalsConfig
from fourfold.labelers.image_statistics.metadata import MetadataConfig
from fourfold.labelers.image_statistics.palettes import PaletteConfig
from fourfold.labelers.mini_clip.network import MiniClipConfig
from fourfold.labelers.registry import labeler
from fourfold.modalities.camera import Camera
from fourfold.scenes.teachers.network import SceneNetworkConfig

DEFAULT_LABELERS = {
    "depth": "scene_depth",
    "normal": "normals_from_depth",
    "semseg": "scene_segmentation",
    "clip": "mini_clip",
    "det": "scene_boxes",
}


class IntegrationConfig(Config):
    """What the labels of different teachers must have in common."""

    min_score: float = Field(0.3, ge=0, le=1)  # boxes below are left out
    min_class_overlap: float = Field(0.15, ge=0, le=1)  # share of a box's pixels that the segmentation gives to its class
    max_normal_angle: float = Field(60.0, gt=0, le=180)  # degrees, mean of a picture, between normals and those of its depth
    max_depth: float = Field(1000.0, gt=0)  # meters


class LabelingConfig(Config):
    """Which labeler says what, how its teacher is trained, and how labels are brought together."""

    labelers: dict[str, str] = Field(default_factory=lambda: dict(DEFAULT_LABELERS))  # modality → name in the registry
    scene: SceneNetworkConfig = SceneNetworkConfig()
    clip: MiniClipConfig = MiniClipConfig()
    normals: NormalsConfig = NormalsConfig()
    canny: CannyConfig = Field(CannyConfig(), exclude_if=lambda value: value == CannyConfig())
    palette: PaletteConfig = Field(PaletteConfig(), exclude_if=lambda value: value == PaletteConfig())
    metadata: MetadataConfig = Field(MetadataConfig(), exclude_if=lambda value: value == MetadataConfig())
    camera: Camera = Camera()  # assumed for every picture
    annotated_split: str = "annotated"  # has exact truth; teachers learn from it and it is not labeled
    caption_splits: tuple[str, ...] = ("annotated", "train")  # the mini-CLIP learns from their pictures and captions
    batch_size: int = Field(125, ge=1)  # pictures that are labeled at once
    integration: IntegrationConfig = IntegrationConfig()

    @field_validator("labelers")
    @classmethod
    def _known(cls, value: dict[str, str]) -> dict[str, str]:
        for modality, name in value.items():
            entry = labeler(name)
            if entry.modality != modality:
                raise ValueError(
                    f"Labeler {name!r} makes {entry.modality!r}, not {modality!r}. Put it there or choose another."
                )
        return value
