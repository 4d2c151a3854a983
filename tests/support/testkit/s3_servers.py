"""S3 servers of this machine, outside any cluster: started on a free port, ended by force."""

import os
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from forebay_protocol.dataset import Credentials
from testkit import binaries
from testkit.buckets import Bucket
from testkit.progress import Progress
from testkit.waiting import eventually
from testkit.worker_processes import free_port

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

KEYS = Credentials(access_key_id="forebay-tests", secret_access_key="forebay-tests-secret")
"""The owner of every server."""


def _client(endpoint: str) -> "S3Client":
    return boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id=KEYS.access_key_id,
        aws_secret_access_key=KEYS.secret_access_key,
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
    )  # fmt: skip


@contextmanager
def serve(argv: list[str], endpoint: str, log: Path, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """Run a server, from its first answer on; its URL."""
    with log.open("wb") as output:
        process = subprocess.Popen(argv, env={**os.environ, **(environment or {})}, stdout=output, stderr=output)

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            _client(endpoint).list_buckets()
        except (BotoCoreError, ClientError):
            return False
        return True

    try:
        eventually(answers, timeout=30, interval=0.05, what="the S3 server answers")
        yield endpoint
    finally:
        process.kill()
        process.wait()


@contextmanager
def minio(folder: Path) -> Iterator[str]:
    """A MinIO server with its data in a folder; its URL."""
    program, port = binaries.fetch(Progress()).minio, free_port()
    argv = [str(program), "server", "--quiet", "--address", f"127.0.0.1:{port}", str(folder / "data")]
    secrets = {"MINIO_ROOT_USER": KEYS.access_key_id, "MINIO_ROOT_PASSWORD": KEYS.secret_access_key}
    settings = {"MINIO_CI_CD": "on", "MINIO_BROWSER": "off", "MINIO_UPDATE": "off"}
    with serve(argv, f"http://127.0.0.1:{port}", folder / "log", {**secrets, **settings}) as url:
        yield url


def fresh_bucket(endpoint: str) -> Bucket:
    """An empty bucket on a server."""
    bucket = Bucket(endpoint, f"test-{uuid.uuid4().hex[:16]}", _client(endpoint))
    bucket.client.create_bucket(Bucket=bucket.name)
    return bucket
