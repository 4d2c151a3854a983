"""Real S3 servers: MinIO, and moto's server for what MinIO refuses to store (an object ``a`` beside ``a/b``)."""

import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from forebay_protocol.dataset import Credentials
from testkit import binaries
from testkit.buckets import Bucket
from testkit.progress import Progress
from testkit.sample_cluster import OBJECTS, Make, document
from testkit.source_backends import nginx
from testkit.store_proxy import StoreProxy
from testkit.waiting import eventually
from testkit.worker_processes import WorkerCluster, free_port

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

KEYS = Credentials(access_key_id="forebay-tests", secret_access_key="forebay-tests-secret")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything below this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.s3)


def _client(endpoint: str) -> "S3Client":
    return boto3.client(
        "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id=KEYS.access_key_id,
        aws_secret_access_key=KEYS.secret_access_key,
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
    )  # fmt: skip


def _serve(argv: list[str], endpoint: str, log: Path, environment: dict[str, str]) -> Iterator[str]:
    """Run a server until the tests are done with it."""
    with log.open("wb") as output:
        process = subprocess.Popen(argv, env={**os.environ, **environment}, stdout=output, stderr=output)

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


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A MinIO server; its URL."""
    folder = tmp_path_factory.mktemp("minio")
    program, port = binaries.fetch(Progress()).minio, free_port()
    argv = [str(program), "server", "--quiet", "--address", f"127.0.0.1:{port}", str(folder / "data")]
    secrets = {"MINIO_ROOT_USER": KEYS.access_key_id, "MINIO_ROOT_PASSWORD": KEYS.secret_access_key}
    settings = {"MINIO_CI_CD": "on", "MINIO_BROWSER": "off", "MINIO_UPDATE": "off"}
    yield from _serve(argv, f"http://127.0.0.1:{port}", folder / "log", {**secrets, **settings})


@pytest.fixture(scope="session")
def versitygw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A versitygw server over a folder; its URL."""
    folder = tmp_path_factory.mktemp("versitygw")
    program, port = binaries.fetch(Progress()).versitygw, free_port()
    (folder / "data").mkdir()
    (folder / "attributes").mkdir()
    argv = [str(program), "--access", KEYS.access_key_id, "--secret", KEYS.secret_access_key, "--quiet"]
    argv += ["--port", f"127.0.0.1:{port}", "posix", "--sidecar", str(folder / "attributes"), str(folder / "data")]
    yield from _serve(argv, f"http://127.0.0.1:{port}", folder / "log", {})


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Moto's server; its URL."""
    port = free_port()
    program = Path(sys.executable).with_name("moto_server")
    argv = [str(program), "-H", "127.0.0.1", "-p", str(port)]
    yield from _serve(argv, f"http://127.0.0.1:{port}", tmp_path_factory.mktemp("moto") / "log", {})


@pytest.fixture(scope="session")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """An nginx, and the folder that it serves."""
    folder = tmp_path_factory.mktemp("nginx")
    with nginx(binaries.fetch(Progress()).nginx, folder, folder / "files") as url:
        yield url, folder / "files"


def _fresh_bucket(endpoint: str) -> Bucket:
    bucket = Bucket(endpoint, f"test-{uuid.uuid4().hex[:16]}", _client(endpoint))
    bucket.client.create_bucket(Bucket=bucket.name)
    return bucket


@pytest.fixture(scope="session")
def fresh_bucket() -> Callable[[str], Bucket]:
    """Makes an empty bucket on a server."""
    return _fresh_bucket


@pytest.fixture
def bucket(minio: str) -> Bucket:
    """An empty bucket on MinIO."""
    return _fresh_bucket(minio)


@pytest.fixture
def versity_bucket(versitygw: str) -> Bucket:
    """An empty bucket on versitygw."""
    return _fresh_bucket(versitygw)


@pytest.fixture
def moto_bucket(moto: str) -> Bucket:
    """An empty bucket on moto's server, which takes every key."""
    return _fresh_bucket(moto)


@pytest.fixture
def proxy(minio: str) -> Iterator[StoreProxy]:
    """A counting proxy before MinIO."""
    with StoreProxy(minio) as running:
        yield running


@pytest.fixture
def keys() -> Credentials:
    """The owner's credentials."""
    return KEYS


@pytest.fixture
def make(bucket: Bucket, proxy: StoreProxy, keys: Credentials, tmp_path: Path) -> Iterator[Make]:
    """Makes clusters over OBJECTS and ends them."""
    bucket.put(OBJECTS)
    made: list[WorkerCluster] = []

    def build(refresh: float | None = 2.0, **options: object) -> WorkerCluster:
        folder = tmp_path / f"cluster{len(made)}"
        folder.mkdir()
        made.append(
            WorkerCluster(folder, document(bucket, proxy.url, refresh), {"data": keys}, **options)  # type: ignore[arg-type]
        )
        return made[-1]

    yield build
    for cluster in made:
        cluster.__exit__()
