"""The story: six stages of one shape, and how they chain."""
