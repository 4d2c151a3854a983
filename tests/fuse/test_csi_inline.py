"""Volumes that are part of pods, as the kubelet asks for them: published only, each by an id of its own."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from forebay_node.mounts import FSTYPE, parse_mountinfo
from forebay_node.paths import NodePaths
from forebay_protocol.dataset import CREDENTIALS_FILE, DATASET_FILE, KEYS_FILE
from testkit.kubelet import publish_inline, unpublish
from testkit.waiting import eventually
from testkit.worker_processes import WorkerCluster

OURS = {
    "forebay.io/dataset": "d",
    "csi.storage.k8s.io/ephemeral": "true",
    "csi.storage.k8s.io/pod.namespace": "t",
}
THEIRS = {**OURS, "csi.storage.k8s.io/pod.namespace": "other"}


class Kubelet:
    """The calls for inline volumes, and what they led to in the plugin's mount namespace."""

    def __init__(self, paths: NodePaths, pid: int, access: Mapping[str, str]) -> None:
        self.paths, self.pid, self.access = paths, pid, access

    def _target(self, pod: str) -> Path:
        path = self.paths.pods / pod / "volumes/kubernetes.io~csi/data/mount"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def seen(self, pod: str) -> Path:
        """The pod's volume, as the plugin's mount namespace shows it."""
        return Path(f"/proc/{self.pid}/root{self._target(pod)}")

    def publish(self, pod: str, context: Mapping[str, str] = OURS, secrets: Mapping[str, str] | None = None) -> None:
        """NodePublishVolume."""
        given = self.access if secrets is None else secrets
        publish_inline(self.paths.socket, f"csi-{pod}", self._target(pod), context, given)

    def unpublish(self, pod: str) -> None:
        """NodeUnpublishVolume."""
        unpublish(self.paths.socket, f"csi-{pod}", self._target(pod))

    def mounts(self) -> list[str]:
        """The mounts of datasets below the kubelet's folder."""
        entries = parse_mountinfo(Path(f"/proc/{self.pid}/mountinfo").read_text())
        return [
            one.target for one in entries if one.fstype == FSTYPE and self.paths.kubelet in Path(one.target).parents
        ]


@pytest.fixture
def kubelet(served_bucket: WorkerCluster, plugin: tuple[NodePaths, int]) -> Kubelet:
    """A plugin before a real worker, and the Dataset's access Secret."""
    names = (DATASET_FILE, CREDENTIALS_FILE, KEYS_FILE)
    return Kubelet(*plugin, {name: (served_bucket.access / name).read_text() for name in names})


def test_pods_share_one_mount(kubelet: Kubelet) -> None:
    """All that bring the same access have the same file system, whatever is repeated; it goes after the last."""
    with ThreadPoolExecutor(8) as together:
        list(together.map(kubelet.publish, ["pod-1", "pod-2"] * 4))

    both = [kubelet.seen(pod) / "a" for pod in ("pod-1", "pod-2")]
    assert [path.read_bytes() for path in both] == [b"hello"] * 2
    assert len({path.stat().st_dev for path in both}) == 1
    assert len(kubelet.mounts()) == 3
    with pytest.raises(OSError, match="Read-only"):
        (kubelet.seen("pod-1") / "new").touch()

    kubelet.unpublish("pod-1")
    unused = kubelet.paths.inline / "z-last-in-order"
    unused.mkdir()
    eventually(lambda: not unused.exists(), timeout=30, what="the plugin has looked for unused mounts")
    assert both[1].read_bytes() == b"hello"
    kubelet.unpublish("pod-2")
    eventually(
        lambda: kubelet.mounts() + list(map(str, kubelet.paths.inline.iterdir())),
        timeout=30, what="the mount that no pod has is gone", until=lambda left: not left,
    )  # fmt: skip
    assert list(kubelet.paths.volumes.iterdir()) == []


def test_a_pod_reaches_its_own_namespace_only(kubelet: Kubelet) -> None:
    """Whatever Secret it brings; where something is missing, it is told what."""
    cases: list[tuple[Mapping[str, str], Mapping[str, str] | None, str]] = [
        (THEIRS, None, "not the access Secret of the Dataset d of this namespace"),
        ({**OURS, "forebay.io/dataset": "x"}, None, "not the access Secret of the Dataset x"),
        ({**OURS, "forebay.io/dataset": ""}, None, "it names a Dataset of the namespace"),
        (OURS, {}, "name the Secret d-forebay-access"),
    ]
    for context, secrets, sentence in cases:
        with pytest.raises(grpc.RpcError) as caught:
            kubelet.publish("pod-1", context, secrets)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert sentence in str(caught.value.details())
    assert kubelet.mounts() == []


def test_a_forged_secret_opens_nothing(kubelet: Kubelet) -> None:
    """A pod that knows the Dataset's name and UID but not its keys is not shown the mount of those who do."""
    kubelet.publish("pod-1")

    with pytest.raises(grpc.RpcError):
        kubelet.publish("pod-2", secrets={**kubelet.access, KEYS_FILE: "f" * 64})

    assert not (kubelet.seen("pod-2") / "a").exists()
    kubelet.unpublish("pod-2")
    kubelet.unpublish("pod-1")
    eventually(kubelet.mounts, timeout=30, what="nothing is mounted", until=lambda left: not left)
