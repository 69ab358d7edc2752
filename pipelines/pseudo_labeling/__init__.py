"""Label every image with depth, normals, segmentation, boxes and CLIP features, by teachers and by computation."""

from pipelines.pseudo_labeling.pipeline import create_pipeline

__all__ = ["create_pipeline"]
