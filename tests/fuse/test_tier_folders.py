"""A worker's folder on its node, as the kubelet asks for it: the plugin's own process, real sockets, real mounts."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from forebay_node.mounts import current_mounts, mounted_at
from forebay_node.paths import NodePaths
from forebay_node.tier_folders import POD_NAME, POD_NAMESPACE
from forebay_protocol.volume import RUNTIME_UID, RUNTIMES_FILE, TIER_FOLDERS, TIER_PATH, WORKER_UID
from testkit.kubelet import publish_inline, unpublish
from testkit.waiting import eventually

UID = "0b6c1c8e-7d0f-4a6e-9c55-2f1d8a3b4c5d"
VOLUME = "csi-ephemeral"


class Kubelet:
    """A kubelet's folder, a root for tiers, and the plugin between them."""

    def __init__(self, folder: Path) -> None:
        self.paths = NodePaths(folder / "kubelet")
        self.root, self.lists = folder / "root", folder / "lists"
        self.lists.mkdir()
        self.target = self.paths.pods / "uid/volumes/kubernetes.io~csi/tier-0/mount"
        self.target.parent.mkdir(parents=True)
        self.worker = self.root / "ml" / UID / "data-worker-0"
        self.log = folder / "log"
        arguments = [f"--kubelet-dir={self.paths.kubelet}", f"--tier-root={self.root}", f"--runtimes-dir={self.lists}"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "forebay_node", "--node-name=node-a", *arguments],
                stderr=log, env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
            )  # fmt: skip
        eventually(self.paths.registration_socket.exists, timeout=15, what="the plugin listens")

    def publish(self, path: str) -> None:
        """NodePublishVolume of an inline volume."""
        attributes = {TIER_PATH: path, RUNTIME_UID: UID, POD_NAMESPACE: "ml", POD_NAME: "data-worker-0"}
        publish_inline(self.paths.socket, VOLUME, self.target, attributes)

    def unpublish(self) -> None:
        """NodeUnpublishVolume."""
        unpublish(self.paths.socket, VOLUME, self.target)


@pytest.fixture
def kubelet() -> Iterator[Kubelet]:
    """A running plugin; afterwards nothing may be left mounted."""
    # A socket's path may have 107 bytes only.
    with tempfile.TemporaryDirectory(prefix="kl-", dir="/tmp") as folder:
        made = Kubelet(Path(folder))
        try:
            yield made
            assert not [one for one in current_mounts() if made.paths.kubelet in Path(one.target).parents]
        finally:
            made.process.terminate()
            assert made.process.wait(timeout=15) == 0


def test_a_worker_gets_its_folder_back(kubelet: Kubelet) -> None:
    """Owned by the worker's user, nothing in it can be run, and its files are there for the next pod."""
    kubelet.publish(str(kubelet.root))
    kubelet.publish(str(kubelet.root))
    for name in ("", *TIER_FOLDERS):
        seen = (kubelet.target / name).stat()
        assert (seen.st_uid, seen.st_gid, seen.st_mode & 0o777) == (WORKER_UID, WORKER_UID, 0o700)
    assert (kubelet.target.parent.stat().st_uid, kubelet.worker.parent.stat().st_uid) == (0, 0)
    mounts = mounted_at(kubelet.target, current_mounts())
    assert len(mounts) == 1
    assert {"rw", "nosuid", "nodev", "noexec"} <= set(mounts[0].options.split(","))
    (kubelet.target / "chunks" / "file").write_text("cached")

    kubelet.unpublish()
    kubelet.unpublish()
    assert not kubelet.target.exists()
    kubelet.publish(str(kubelet.root))

    assert (kubelet.target / "chunks" / "file").read_text() == "cached"
    kubelet.unpublish()


def test_a_folder_that_is_not_given_away(kubelet: Kubelet) -> None:
    """Nothing is made and nothing is mounted."""
    with pytest.raises(grpc.RpcError) as caught:
        kubelet.publish("/etc")
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert str(kubelet.root) in str(caught.value.details())
    assert not kubelet.target.exists()


def test_a_worker_cannot_lead_us_astray(kubelet: Kubelet) -> None:
    """A symlink where its own folders are is neither followed nor handed over."""
    kubelet.publish(str(kubelet.root))
    kubelet.unpublish()
    elsewhere = kubelet.root / "elsewhere"
    elsewhere.mkdir()
    (kubelet.worker / "chunks").rmdir()
    (kubelet.worker / "chunks").symlink_to(elsewhere)

    kubelet.publish(str(kubelet.root))

    assert elsewhere.stat().st_uid == 0
    kubelet.unpublish()


def test_folders_that_nobody_claims_go(kubelet: Kubelet) -> None:
    """The one in use stays until its pod is gone, although no Runtime claims it."""
    kubelet.publish(str(kubelet.root))
    (kubelet.target / "chunks" / "file").write_text("cached")
    unused = kubelet.root / "ml" / UID / "data-worker-1" / "chunks"
    unused.mkdir(parents=True)
    (kubelet.lists / RUNTIMES_FILE).write_text(json.dumps({}))

    eventually(lambda: not unused.parent.exists(), timeout=60, what="the unclaimed folder is gone")
    assert (kubelet.target / "chunks" / "file").read_text() == "cached"
    kubelet.unpublish()
    eventually(lambda: not kubelet.worker.exists(), timeout=60, what="the worker's folder is gone")
