"""Ingestion: from a source of images and captions to clean, aligned shards. Start at `ingest.ingest`."""
