"""The node plugin as the kubelet meets it: its own process, real unix sockets, real mounts."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from forebay_node.csi import csi_pb2, registration_pb2
from forebay_node.mounts import current_mounts, mounted_at
from forebay_protocol.dataset import CREDENTIALS_FILE, DATASET_FILE, KEYS_FILE
from forebay_protocol.volume import DATASET_UID, DRIVER_NAME, WORKER_SERVICE
from testkit.fuse_mount import DOCUMENT, UID, MountedDataset
from testkit.kubelet import READING, Kubelet
from testkit.waiting import eventually

SECRET = "not-to-be-seen"
ACCESS = {
    DATASET_FILE: json.dumps(DOCUMENT.to_json()),
    CREDENTIALS_FILE: json.dumps({"m": {"accessKeyId": "id", "secretAccessKey": SECRET, "sessionToken": ""}}),
    KEYS_FILE: "k" * 64,
}
WRITING = csi_pb2.VolumeCapability(mount={}, access_mode={"mode": "MULTI_NODE_MULTI_WRITER"})


@pytest.fixture
def dataset(tmp_path: Path) -> Iterator[MountedDataset]:
    """Workers that have two files."""
    with MountedDataset(tmp_path, {"a": b"hello", "d/b": b"world"}) as made:
        yield made


@pytest.fixture
def kubelet(dataset: MountedDataset) -> Iterator[Kubelet]:
    """A running plugin; afterwards nothing may be left mounted."""
    context = {DATASET_UID: UID, WORKER_SERVICE: f"127.0.0.1:{dataset.workers[0].member.control_port}"}
    # A socket's path may have 107 bytes only.
    with tempfile.TemporaryDirectory(prefix="kl-", dir="/tmp") as folder:
        made = Kubelet(Path(folder), ACCESS, context)
        made.start()
        try:
            yield made
            assert made.ours() == [], made.log.read_text()
        finally:
            assert made.process is not None
            made.process.terminate()
            assert made.process.wait(timeout=15) == 0
            assert SECRET not in made.log.read_text()


def code_of(caught: pytest.ExceptionInfo[grpc.RpcError]) -> grpc.StatusCode:
    """The code with which a call failed."""
    code: grpc.StatusCode = caught.value.code()
    return code


def test_the_kubelet_learns_of_the_driver(kubelet: Kubelet) -> None:
    """Registration, identity, node id, and the check that a container probe runs."""
    paths = kubelet.paths
    known = kubelet.call(
        "/pluginregistration.Registration/GetInfo", registration_pb2.InfoRequest(), registration_pb2.PluginInfo,
        paths.registration_socket,
    )  # fmt: skip
    node = kubelet.call("/csi.v1.Node/NodeGetInfo", csi_pb2.NodeGetInfoRequest(), csi_pb2.NodeGetInfoResponse)

    assert (known.type, known.name, known.endpoint) == ("CSIPlugin", DRIVER_NAME, str(paths.socket))
    assert list(known.supported_versions) == ["1.0.0"]
    assert node.node_id == "node-a"
    check = [sys.executable, "-m", "forebay_node", "--check", f"--kubelet-dir={paths.kubelet}"]
    assert subprocess.run(check, env={**os.environ, "PYTHONPATH": ":".join(sys.path)}, check=False).returncode == 0


def test_a_volume_comes_and_goes_and_everything_may_be_repeated(kubelet: Kubelet) -> None:
    """Stage, publish to two pods, statistics, and away again, each of it twice."""
    first, second = kubelet.target("pod-1"), kubelet.target("pod-2")
    for _ in range(2):
        kubelet.stage()
    for target in (first, first, second):
        kubelet.publish(target)

    assert (first / "a").read_bytes() == b"hello"
    assert (second / "d/b").read_bytes() == b"world"
    with pytest.raises(OSError, match="Read-only"):
        (first / "new").touch()
    assert [len(mounted_at(path, current_mounts())) for path in (kubelet.staging, first, second)] == [1, 1, 1]
    usage = {one.unit: one for one in kubelet.stats(first).usage}
    assert usage[csi_pb2.VolumeUsage.INODES].total == 2
    assert usage[csi_pb2.VolumeUsage.BYTES].available == 0

    for target in (first, first, second):
        kubelet.unpublish(target)
        assert not target.exists()
    for _ in range(2):
        kubelet.unstage()
    assert list(kubelet.paths.volumes.iterdir()) == []


def test_secrets_are_nowhere_to_be_seen(kubelet: Kubelet) -> None:
    """Not in the server's arguments or environment, not in any file below the kubelet's folder."""
    kubelet.stage()
    pid = kubelet.server_pid

    for name in ("cmdline", "environ"):
        assert SECRET.encode() not in Path(f"/proc/{pid}/{name}").read_bytes()
    for path in kubelet.paths.plugin.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes()
    kubelet.unstage()


def test_volumes_are_made_of_datasets_and_outlive_the_plugin(kubelet: Kubelet) -> None:
    """The same name gives the same volume after a restart; clones, foreign Secrets and writers are refused."""
    uid = "11111111-2222-3333-4444-555555555555"
    texts = {DATASET_FILE: json.dumps({**DOCUMENT.to_json(), "uid": uid})}
    fields: dict[str, object] = {
        "name": "pvc-1", "volume_capabilities": [READING], "parameters": {"dataset": "data"}, "secrets": texts
    }  # fmt: skip

    def create(**changes: object) -> csi_pb2.Volume:
        request = csi_pb2.CreateVolumeRequest(**(fields | changes))  # type: ignore[arg-type]
        return kubelet.call("/csi.v1.Controller/CreateVolume", request, csi_pb2.CreateVolumeResponse).volume

    def validate(capability: csi_pb2.VolumeCapability) -> csi_pb2.ValidateVolumeCapabilitiesResponse:
        request = csi_pb2.ValidateVolumeCapabilitiesRequest(volume_id=made.volume_id, volume_capabilities=[capability])
        answer = csi_pb2.ValidateVolumeCapabilitiesResponse
        return kubelet.call("/csi.v1.Controller/ValidateVolumeCapabilities", request, answer)

    made = create()
    kubelet.end()
    kubelet.start()

    assert create() == made
    assert made.volume_context[DATASET_UID] == uid
    assert validate(READING).HasField("confirmed")
    assert "ReadOnlyMany" in validate(WRITING).message
    refused: list[dict[str, object]] = [
        {"volume_capabilities": [WRITING]}, {"parameters": {"dataset": "other"}}, {"parameters": {}},
        {"parameters": {"source": "s3://bucket"}}, {"secrets": {}}, {"volume_content_source": {}},
    ]  # fmt: skip
    for changes in refused:
        with pytest.raises(grpc.RpcError) as caught:
            create(**changes)
        assert code_of(caught) is grpc.StatusCode.INVALID_ARGUMENT, changes


def test_symlinks_and_foreign_paths_are_refused(kubelet: Kubelet, tmp_path: Path) -> None:
    """A pod that swaps its folder for a symlink gets nothing mounted elsewhere."""
    victim = tmp_path / "victim"
    victim.mkdir()
    kubelet.stage()
    link = kubelet.target("pod-1")
    link.symlink_to(victim)
    beneath = kubelet.paths.kubelet / "pods/evil"
    beneath.symlink_to(victim)

    for target in (link, beneath / "mount", victim, Path("/relative/../etc")):
        with pytest.raises(grpc.RpcError) as caught:
            kubelet.publish(target)
        assert code_of(caught) is grpc.StatusCode.INVALID_ARGUMENT
    assert list(victim.iterdir()) == []
    assert not mounted_at(victim, current_mounts())
    kubelet.unstage()


def test_bad_requests_say_what_to_do(kubelet: Kubelet) -> None:
    """Missing Secret content, another Dataset's Secret, a block volume, a volume that is not staged or not there."""
    cases: list[tuple[dict[str, object], grpc.StatusCode, str]] = [
        ({"secrets": {}}, grpc.StatusCode.INVALID_ARGUMENT, "the operator writes it"),
        ({"secrets": {DATASET_FILE: "{", KEYS_FILE: "k"}}, grpc.StatusCode.INVALID_ARGUMENT, "cannot be parsed"),
        ({"volume_context": {DATASET_UID: "other"}}, grpc.StatusCode.INVALID_ARGUMENT, "another Dataset"),
        ({"volume_context": {DATASET_UID: UID}}, grpc.StatusCode.INVALID_ARGUMENT, WORKER_SERVICE),
        ({"volume_id": ""}, grpc.StatusCode.INVALID_ARGUMENT, "no volume"),
        ({"volume_capability": csi_pb2.VolumeCapability(block={})}, grpc.StatusCode.INVALID_ARGUMENT, "Block"),
        ({"volume_capability": None}, grpc.StatusCode.INVALID_ARGUMENT, "no volume capability"),
        ({"volume_capability": WRITING}, grpc.StatusCode.INVALID_ARGUMENT, "ask for ReadOnlyMany"),
    ]
    for changes, code, sentence in cases:
        with pytest.raises(grpc.RpcError) as caught:
            kubelet.stage(**changes)
        assert code_of(caught) is code
        assert sentence in str(caught.value.details())
    with pytest.raises(grpc.RpcError) as caught:
        kubelet.publish(kubelet.target("pod-1"))
    assert code_of(caught) is grpc.StatusCode.FAILED_PRECONDITION
    with pytest.raises(grpc.RpcError) as caught:
        kubelet.stats(kubelet.target("pod-1"))
    assert code_of(caught) is grpc.StatusCode.NOT_FOUND


def test_staging_waits_for_an_index_and_says_what_is_missing(kubelet: Kubelet, dataset: MountedDataset) -> None:
    """Without one the kubelet is told to try again; nothing is left mounted or running."""
    for worker in dataset.workers:
        worker.index = (0, b"")

    with pytest.raises(grpc.RpcError) as caught:
        kubelet.stage()

    assert code_of(caught) is grpc.StatusCode.UNAVAILABLE
    assert "no index" in str(caught.value.details())
    assert kubelet.ours() == []
    dataset.publish({"a": (b"hello", "v1")})
    kubelet.stage()
    kubelet.unstage()


def test_a_dead_server_is_replaced(kubelet: Kubelet) -> None:
    """Whoever has the mount notices nothing; staging and publishing find it alive, and unstaging ends the new one."""
    target = kubelet.target("pod-1")
    kubelet.stage()
    kubelet.publish(target)
    (device,) = {entry.device for entry in mounted_at(target, current_mounts())}
    killed = kubelet.server_pid
    os.kill(killed, signal.SIGKILL)

    assert (target / "a").read_bytes() == b"hello"
    assert kubelet.server_pid != killed
    assert not kubelet.stats(target).volume_condition.abnormal
    kubelet.stage()
    kubelet.publish(kubelet.target("pod-2"))
    assert {entry.device for entry in mounted_at(kubelet.target("pod-2"), current_mounts())} == {device}
    successor = kubelet.server_pid
    for pod in ("pod-1", "pod-2"):
        kubelet.unpublish(kubelet.target(pod))
    kubelet.unstage()
    eventually(lambda: not Path(f"/proc/{successor}").exists(), timeout=15, what="the server ends")


def test_the_plugin_restarts(kubelet: Kubelet) -> None:
    """After a crash with all its processes nothing dead stays mounted; a pod that comes next is served.

    The kubelet does not stage again then, so publishing does it, if it is given the secrets.
    """
    target = kubelet.target("pod-1")
    kubelet.stage()
    kubelet.publish(target)
    kubelet.kill()
    kubelet.paths.registration_socket.unlink()

    kubelet.start()

    assert kubelet.ours() == []
    kubelet.unpublish(target)
    with pytest.raises(grpc.RpcError) as caught:
        kubelet.publish(kubelet.target("pod-2"))
    assert code_of(caught) is grpc.StatusCode.FAILED_PRECONDITION
    kubelet.publish(kubelet.target("pod-2"), kubelet.secrets)
    assert (kubelet.target("pod-2") / "a").read_bytes() == b"hello"
    kubelet.unpublish(kubelet.target("pod-2"))
    kubelet.unstage()


def test_a_restart_with_living_servers_keeps_them(kubelet: Kubelet) -> None:
    """Where the servers outlive the plugin, the next one goes on with them, and can end them."""
    target = kubelet.target("pod-1")
    kubelet.stage()
    kubelet.publish(target)
    assert kubelet.process is not None
    kubelet.process.terminate()
    kubelet.process.wait(timeout=15)
    assert (target / "a").read_bytes() == b"hello"

    kubelet.start()
    kubelet.stage()
    kubelet.publish(kubelet.target("pod-2"))

    assert (kubelet.target("pod-2") / "a").read_bytes() == b"hello"
    for pod in ("pod-1", "pod-2"):
        kubelet.unpublish(kubelet.target(pod))
    kubelet.unstage()
