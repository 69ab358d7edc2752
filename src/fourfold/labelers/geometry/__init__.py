"""Labelers that need geometry or image filters alone: normals from depth, edges."""
