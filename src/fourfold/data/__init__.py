"""Shards: their format, manifests and codecs, and reading them; crops of samples; the ingestion of sources."""
