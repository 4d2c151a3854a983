"""The conformance tests of the Container Storage Interface, at the socket of a real plugin before a real worker."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from forebay_node.mounts import current_mounts
from forebay_node.paths import NodePaths
from forebay_protocol.dataset import CREDENTIALS_FILE, DATASET_FILE, KEYS_FILE, DatasetDocument
from forebay_protocol.volume import CONTROL_PORT, worker_host
from testkit import binaries, s3_servers
from testkit.progress import Progress
from testkit.waiting import eventually
from testkit.worker_processes import WorkerCluster

SKIPPED = {
    r"GetCapacity": "a Dataset has no capacity that could run out",
    r"ListVolumes": "nothing is kept of volumes; Kubernetes lists them",
    r"already existing name and different capacity": "volumes have no size, so none can differ",
    r"[Ss]napshot": "a Dataset shows its sources; it is never copied",
    r"source volume": "the same: no clones",
    r"volume attribute class|ModifyVolume": "nothing of a volume can be changed; a Dataset can",
    r"Controller(Unp|P)ublishVolume": "nothing is attached to nodes",
    r"volume lifecycle": "nothing is attached to nodes",
    r"ExpandVolume": "volumes have no size",
    r"VolumeHealth|StorageHealth": "statistics carry the condition, which every Kubernetes understands",
    r"single node single writer": "nothing can be written, so writers need not be told apart",
    r"pagination should detect": "switched off by csi-sanity itself",
    r"GroupController|VolumeGroup": "volumes are independent of each other",
}
"""Which conformance tests may be skipped, by their name, and why."""

SECRET_CALLS = ("CreateVolume", "NodeStageVolume", "NodePublishVolume")


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


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[WorkerCluster]:
    """A worker with the index of a bucket on MinIO."""
    (tmp_path / "minio").mkdir()
    with s3_servers.minio(tmp_path / "minio") as url:
        bucket = s3_servers.fresh_bucket(url)
        bucket.put({"a": b"hello", "d/b": b"world"})
        document = DatasetDocument(uid=str(uuid.uuid4()), namespace="t", name="d", mounts=(bucket.mount(),))
        with WorkerCluster(tmp_path, document, {"data": s3_servers.KEYS}) as made:
            made.start(1).wait_for_index()
            yield made


@pytest.fixture
def plugin(cluster: WorkerCluster, tmp_path: Path) -> Iterator[tuple[NodePaths, int]]:
    """The plugin with a mount namespace of its own, in which the worker's Service has an address; its process id."""
    # An address of the loopback network that nobody else takes at the same time.
    pid = os.getpid()
    address = f"127.{1 + pid // 62500 % 250}.{pid // 250 % 250}.{1 + pid % 250}"
    hosts = tmp_path / "hosts"
    hosts.write_text(f"127.0.0.1 localhost\n{address} {worker_host('d', 't')}\n")
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    with socket.create_server((address, CONTROL_PORT)) as listener, tempfile.TemporaryDirectory(dir="/tmp") as folder:
        threading.Thread(target=_relay, args=(listener, cluster.workers[0].control_port)).start()
        paths, log = NodePaths(Path(folder)), tmp_path / "plugin.log"
        bind = 'mount --bind "$1" /etc/hosts && shift && exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", bind, "sh", str(hosts)]
        command += [sys.executable, "-m", "forebay_node", "--node-name=node-a", f"--kubelet-dir={folder}"]
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


def _secrets(cluster: WorkerCluster) -> dict[str, dict[str, str]]:
    """The access Secret, for the calls that Kubernetes gives it to."""
    names = (DATASET_FILE, CREDENTIALS_FILE, KEYS_FILE)
    texts = {name: (cluster.access / name).read_text() for name in names}
    return {f"{call}Secret": texts for call in SECRET_CALLS}


def _reason(name: str) -> str | None:
    return next((reason for pattern, reason in SKIPPED.items() if re.search(pattern, name)), None)


def test_csi_sanity(cluster: WorkerCluster, plugin: tuple[NodePaths, int], tmp_path: Path) -> None:
    """Every specification that applies is met; each that does not has its reason here."""
    paths, pid = plugin
    (tmp_path / "secrets.yaml").write_text(json.dumps(_secrets(cluster)))
    (tmp_path / "parameters.yaml").write_text(json.dumps({"dataset": "d"}))
    pod = paths.pods / "pod-1/volumes/kubernetes.io~csi/data"
    pod.mkdir(parents=True)
    (paths.plugin / "staging").mkdir()
    report = tmp_path / "report.json"

    ran = subprocess.run(
        [
            "nsenter", f"--target={pid}", "--mount", "--", str(binaries.fetch(Progress()).csi_sanity),
            f"--csi.endpoint={paths.socket}", f"--csi.mountdir={pod}/mount",
            f"--csi.stagingdir={paths.plugin}/staging/globalmount", f"--csi.secrets={tmp_path}/secrets.yaml",
            f"--csi.testvolumeparameters={tmp_path}/parameters.yaml", f"--ginkgo.json-report={report}",
            "--ginkgo.no-color", "--ginkgo.timeout=4m",
        ],
        capture_output=True, text=True, timeout=270, check=False,
    )  # fmt: skip

    results: dict[str, list[str]] = {}
    for spec in json.loads(report.read_text())[0]["SpecReports"]:
        if spec["LeafNodeType"] == "It":
            name = " ".join([*spec["ContainerHierarchyTexts"], spec["LeafNodeText"]])
            results.setdefault(spec["State"], []).append(name)
    not_run = results.get("skipped", []) + results.get("pending", [])
    for name in not_run:
        print(f"not run: {name}: {_reason(name)}")
    assert ran.returncode == 0, ran.stdout[-6000:]
    assert set(results) <= {"passed", "skipped", "pending"}
    assert [name for name in not_run if _reason(name) is None] == []
    assert [name for name in results["passed"] if re.search(r"should (work|be idempotent)", name)]
    print(f"{len(results['passed'])} specifications are met")
