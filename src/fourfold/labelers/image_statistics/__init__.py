"""Labelers that compute statistics of an image: color palettes, metadata."""
