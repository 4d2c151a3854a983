"""The conformance tests of the Container Storage Interface, at the socket of a real plugin before a real worker."""

from pathlib import Path

from forebay_node.paths import NodePaths
from forebay_protocol.dataset import CREDENTIALS_FILE, DATASET_FILE, KEYS_FILE
from testkit.csi_sanity import conform
from testkit.worker_processes import WorkerCluster


def test_csi_sanity(served_bucket: WorkerCluster, plugin: tuple[NodePaths, int], tmp_path: Path) -> None:
    """Every specification that applies is met, those among them that use a volume from its making to its end."""
    paths, pid = plugin
    names = (DATASET_FILE, CREDENTIALS_FILE, KEYS_FILE)
    access = {name: (served_bucket.access / name).read_text() for name in names}

    passed = conform(["nsenter", f"--target={pid}", "--mount", "--"], paths, "d", access, tmp_path)

    assert {"Node Service should work", "Node Service should be idempotent"} <= set(passed)
