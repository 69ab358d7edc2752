"""A bucket for shards that counts what is uploaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import s3fs
from object_store import KEYS, ObjectStore, object_store


@dataclass(frozen=True)
class ShardBucket:
    """A store, and the place in it that shards are kept at."""

    store: ObjectStore

    @property
    def place(self) -> str:
        """The address for `shards_at`."""
        return f"s3://{self.store.bucket}/some/prefix"

    def uploads(self) -> int:
        """Return how many objects were written so far, also those that replaced another one."""
        return len(self.store.client.list_object_versions(Bucket=self.store.bucket).get("Versions", ()))


@contextmanager
def shard_bucket() -> Iterator[ShardBucket]:
    """Serve an empty bucket that keeps all versions, with the environment that clients read, until the end of the block."""
    with object_store() as store, pytest.MonkeyPatch.context() as patch:
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": store.address}.items():
            patch.setenv(name, value)
        store.client.put_bucket_versioning(Bucket=store.bucket, VersioningConfiguration={"Status": "Enabled"})
        s3fs.S3FileSystem.clear_instance_cache()  # a client of an earlier store in this process knows only that address
        yield ShardBucket(store)
        s3fs.S3FileSystem.clear_instance_cache()
