"""Real S3 servers: MinIO, and moto's server for what MinIO refuses to store (an object ``a`` beside ``a/b``)."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from forebay_protocol.dataset import Credentials
from testkit import binaries, s3_servers
from testkit.buckets import Bucket
from testkit.progress import Progress
from testkit.s3_servers import KEYS
from testkit.sample_cluster import OBJECTS, Make, document
from testkit.source_backends import nginx
from testkit.store_proxy import StoreProxy
from testkit.worker_processes import WorkerCluster, free_port


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything below this folder."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.s3)


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A MinIO server; its URL."""
    with s3_servers.minio(tmp_path_factory.mktemp("minio")) as url:
        yield url


@pytest.fixture(scope="session")
def versitygw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A versitygw server over a folder; its URL."""
    folder = tmp_path_factory.mktemp("versitygw")
    program, port = binaries.fetch(Progress()).versitygw, free_port()
    (folder / "data").mkdir()
    (folder / "attributes").mkdir()
    argv = [str(program), "--access", KEYS.access_key_id, "--secret", KEYS.secret_access_key, "--quiet"]
    argv += ["--port", f"127.0.0.1:{port}", "posix", "--sidecar", str(folder / "attributes"), str(folder / "data")]
    with s3_servers.serve(argv, f"http://127.0.0.1:{port}", folder / "log") as url:
        yield url


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Moto's server; its URL."""
    port = free_port()
    program = Path(sys.executable).with_name("moto_server")
    argv = [str(program), "-H", "127.0.0.1", "-p", str(port)]
    with s3_servers.serve(argv, f"http://127.0.0.1:{port}", tmp_path_factory.mktemp("moto") / "log") as url:
        yield url


@pytest.fixture(scope="session")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """An nginx, and the folder that it serves."""
    folder = tmp_path_factory.mktemp("nginx")
    with nginx(binaries.fetch(Progress()).nginx, folder, folder / "files") as url:
        yield url, folder / "files"


@pytest.fixture(scope="session")
def fresh_bucket() -> Callable[[str], Bucket]:
    """Makes an empty bucket on a server."""
    return s3_servers.fresh_bucket


@pytest.fixture
def bucket(minio: str) -> Bucket:
    """An empty bucket on MinIO."""
    return s3_servers.fresh_bucket(minio)


@pytest.fixture
def versity_bucket(versitygw: str) -> Bucket:
    """An empty bucket on versitygw."""
    return s3_servers.fresh_bucket(versitygw)


@pytest.fixture
def moto_bucket(moto: str) -> Bucket:
    """An empty bucket on moto's server, which takes every key."""
    return s3_servers.fresh_bucket(moto)


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
