"""Heads of fine-tuning, each registered with a task: segmentation, depth and boxes on the feature maps of a network."""
