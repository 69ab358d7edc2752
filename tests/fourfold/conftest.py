"""The tests of the library see the plug-ins of the default configuration."""

from collections.abc import Iterator

import pytest
import torch
from shard_bucket import ShardBucket, shard_bucket

from fourfold.plugins import load_plugins

load_plugins(["fourfold.scenes"])


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Compute with one thread, in processes that the test forks as well."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def bucket() -> Iterator[ShardBucket]:
    """An empty bucket on loopback."""
    with shard_bucket() as bucket:
        yield bucket
