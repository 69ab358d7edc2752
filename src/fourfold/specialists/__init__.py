"""Specialists: one network for each task, trained on the same images and labels as the generalist and compared with it."""
