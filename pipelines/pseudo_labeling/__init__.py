"""Pseudo-labeling: networks and heuristics label every image with depth, normals, segmentation, boxes and CLIP features."""

from pipelines.pseudo_labeling.pipeline import create_pipeline

__all__ = ["create_pipeline"]
