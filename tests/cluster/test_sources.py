"""Sources that only workers read: a claim of the namespace shows as a volume, cached, with the right bytes."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.cluster import Cluster
from testkit.workspace import Workspace

pytestmark = pytest.mark.cluster

BODIES = {"models/a.bin": os.urandom(9 << 20), "models/deep/b c.bin": os.urandom(100_000), "other": b"not shown"}


@pytest.fixture
def shared(workspace: Workspace, cluster: Cluster) -> Iterator[str]:
    """A claim with files; both nodes see its folder, as they would see a file server's."""
    folder = cluster.settings.data_dir / f"claim-{workspace.namespace}"
    for name, body in BODIES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    _open_up(folder)
    volume = f"claim-{workspace.namespace}"
    common = {"accessModes": ["ReadWriteMany"], "storageClassName": ""}
    claim_ref = {"namespace": workspace.namespace, "name": "shared"}
    workspace.apply(
        {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume},
         "spec": {**common, "capacity": {"storage": "1Gi"}, "hostPath": {"path": str(folder)}, "claimRef": claim_ref}},
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": claim_ref,
         "spec": {**common, "resources": {"requests": {"storage": "1Gi"}}, "volumeName": volume}},
    )  # fmt: skip
    yield "shared"
    workspace.delete()
    cluster.kubectl("delete", "pv", volume, "--ignore-not-found", "--wait=false")
    shutil.rmtree(folder)


def _open_up(folder: Path) -> None:
    """Let the workers' user read all of it."""
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_claim_is_a_source(workspace: Workspace, shared: str) -> None:
    """Only what lies below the path, by two workers, on both nodes."""
    rows = [
        [name.removeprefix("models"), name, len(body), hashlib.sha256(body).hexdigest()]
        for name, body in BODIES.items() if name.startswith("models/")
    ]  # fmt: skip
    workspace.reader_files(rows)
    dataset = workspace.dataset()
    dataset["spec"]["mounts"] = [{"name": "data", "source": f"pvc://{shared}/models", "path": "/"}]
    workspace.apply(dataset, workspace.runtime(serviceAccountName="default"))
    workspace.wait("dataset", "data")
    workspace.eventually_listed(len(rows))

    for node in ("node-1", "node-2"):
        pod = workspace.reader(f"verify-{node}", node, ("verify",))
        pod.start(workspace.cluster)
        assert pod.results(workspace.cluster)["verify"]["wrong"] == []
        pod.delete(workspace.cluster)
    assert {pod["spec"]["serviceAccountName"] for pod in workspace.workers()} == {"default"}
