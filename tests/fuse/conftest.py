"""Real mounts need root and /dev/fuse; without them these tests are reported as not run, with the reason."""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from forebay_node.mounts import current_mounts
from forebay_node.paths import NodePaths
from forebay_protocol.dataset import DatasetDocument
from forebay_protocol.volume import CONTROL_PORT, worker_host
from testkit import s3_servers
from testkit.fuse_mount import AWKWARD_FILES, MountedDataset
from testkit.waiting import eventually
from testkit.worker_processes import WorkerCluster, free_port


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything below this folder."""
    reason = "" if os.geteuid() == 0 and Path("/dev/fuse").exists() else "a real mount needs root and /dev/fuse"
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.fuse)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="module")
def store() -> Iterator[str]:
    """An S3 server that takes every key; its URL."""
    port = free_port()
    server = ThreadedMotoServer("127.0.0.1", port)
    server.start()
    yield f"http://127.0.0.1:{port}"
    server.stop()


@pytest.fixture
def dataset(tmp_path: Path) -> Iterator[MountedDataset]:
    """The awkward files on two workers, mounted."""
    with MountedDataset(tmp_path, AWKWARD_FILES) as mounted:
        yield mounted.mount()


def _pump(one: socket.socket, other: socket.socket) -> None:
    try:
        while data := one.recv(65536):
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)
    except OSError:
        return


def _pass_on(near: socket.socket, port: int) -> None:
    with near, socket.create_connection(("127.0.0.1", port)) as far:
        back = threading.Thread(target=_pump, args=(far, near))
        back.start()
        _pump(near, far)
        back.join()


def _relay(listener: socket.socket, port: int) -> None:
    """Pass each connection on to a port of this machine, until the listener is shut down."""
    with contextlib.suppress(OSError):
        while True:
            threading.Thread(target=_pass_on, args=(listener.accept()[0], port)).start()


@pytest.fixture(scope="module")
def served_bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WorkerCluster]:
    """A worker with the index of a bucket on MinIO."""
    tmp_path = tmp_path_factory.mktemp("served")
    (tmp_path / "minio").mkdir()
    with s3_servers.minio(tmp_path / "minio") as url:
        bucket = s3_servers.fresh_bucket(url)
        bucket.put({"a": b"hello", "d/b": b"world"})
        document = DatasetDocument(uid=str(uuid.uuid4()), namespace="t", name="d", mounts=(bucket.mount(),))
        with WorkerCluster(tmp_path, document, {"data": s3_servers.KEYS}) as made:
            made.start(1).wait_for_index()
            yield made


@pytest.fixture(scope="module")
def plugin(served_bucket: WorkerCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NodePaths, int]]:
    """The plugin with a mount namespace of its own, in which the worker's Service has an address; its process id."""
    tmp_path = tmp_path_factory.mktemp("plugin")
    # An address of the loopback network that nobody else takes at the same time.
    pid = os.getpid()
    address = f"127.{1 + pid // 62500 % 250}.{pid // 250 % 250}.{1 + pid % 250}"
    hosts = tmp_path / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n{address} {worker_host('d', 't')}\n")
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    with socket.create_server((address, CONTROL_PORT)) as listener, tempfile.TemporaryDirectory(prefix="kl-") as folder:
        threading.Thread(target=_relay, args=(listener, served_bucket.workers[0].control_port)).start()
        paths, log = NodePaths(Path(folder)), tmp_path / "plugin.log"
        bind = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", bind, "sh", str(hosts)]
        command += [sys.executable, "-m", "forebay_node", "--node-name=node-a", f"--kubelet-dir={folder}"]
        command.append("--index-patience=2")
        with log.open("wb") as output:
            process = subprocess.Popen(command, stderr=output, env=environment)
        try:
            eventually(paths.registration_socket.exists, timeout=20, interval=0.05, what="the plugin serves")
            yield paths, process.pid
        finally:
            process.terminate()
            assert process.wait(timeout=15) == 0, log.read_text()
            assert s3_servers.KEYS.secret_access_key not in log.read_text()
            listener.shutdown(socket.SHUT_RDWR)
        left = [entry.target for entry in current_mounts() if Path(folder) in Path(entry.target).parents]
        assert left == []
