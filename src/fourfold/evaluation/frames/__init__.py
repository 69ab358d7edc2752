"""Frames of a camera: every label of one frame from one pass, folders of frames within a time budget."""
