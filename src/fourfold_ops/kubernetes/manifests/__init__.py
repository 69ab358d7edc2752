"""Builds Kubernetes objects, as plain dictionaries, from descriptions of Jobs. Pure functions."""
