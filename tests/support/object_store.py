"""An object store on loopback (moto), S3's protocol: each with a separate bucket."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}

_numbers = count()


@dataclass(frozen=True)
class ObjectStore:
    """A running store: where it listens and its only bucket."""

    address: str
    client: Any = field(repr=False)
    bucket: str

    def names(self) -> list[str]:
        """Return the keys of all objects in the bucket."""
        return [one["Key"] for one in self.client.list_objects_v2(Bucket=self.bucket).get("Contents", ())]


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """Serve an empty bucket until the end of the block.

    All servers of moto in one process serve the same buckets, also after an earlier one stopped. So each store gets a bucket
    whose name no other one of this process has.
    """
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        address = "http://{}:{}".format(*server.get_host_and_port())
        own = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        client = boto3.client("s3", endpoint_url=address, **own)
        bucket = f"team-{next(_numbers)}"
        client.create_bucket(Bucket=bucket)
        yield ObjectStore(address, client, bucket)
    finally:
        server.stop()
