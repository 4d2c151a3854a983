"""A bucket of a real S3 server, as tests use it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from forebay_protocol.dataset import MountSpec

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client


@dataclass(frozen=True, slots=True)
class Bucket:
    """An empty bucket of a real server, and how to reach it."""

    endpoint: str
    name: str
    client: "S3Client"

    def put(self, objects: dict[str, bytes]) -> None:
        """Store all of them."""
        for key, body in objects.items():
            self.client.put_object(Bucket=self.name, Key=key, Body=body)

    def mount(self, prefix: str = "", *, endpoint: str | None = None, path: str = "/") -> MountSpec:
        """The bucket, or a folder of it, as a mount."""
        source = f"s3://{self.name}/{prefix}".rstrip("/")
        return MountSpec(name="data", source=source, path=path, endpoint=endpoint or self.endpoint)
