"""An S3 server of the tests' own: moto's, in this process, on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from fl_alliance.store.remote_blobs import FsspecBlobs


class Bucket:
    """A bucket, what is in it as its owner sees it, and the blob store over it."""

    name = "bucket"

    def __init__(self, client: Any) -> None:
        self.client, self.stored = client, FsspecBlobs(f"s3://{self.name}/alliance/blobs")
        client.create_bucket(Bucket=self.name)

    def objects(self) -> dict[str, int]:
        found = self.client.list_objects_v2(Bucket=self.name).get("Contents", ())
        return {each["Key"]: each["Size"] for each in found}

    def unfinished(self) -> list[str]:
        """Uploads that nobody completed or aborted."""
        return [each["Key"] for each in self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", ())]

    def delete(self) -> None:
        """Delete every object."""
        for key in self.objects():
            self.client.delete_object(Bucket=self.name, Key=key)


@pytest.fixture(scope="session")
def one_bucket() -> Iterator[Bucket]:
    """The bucket of a server that lives as long as the tests, and an environment that leads to it: clients are slow."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL_S3", "http://{}:{}".format(*server.get_host_and_port()))
        environment.setenv("AWS_ACCESS_KEY_ID", "tester")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        yield Bucket(boto3.client("s3"))
    server.stop()


@pytest.fixture
def bucket(one_bucket: Bucket) -> Iterator[Bucket]:
    """The bucket, empty."""
    yield one_bucket
    one_bucket.delete()
