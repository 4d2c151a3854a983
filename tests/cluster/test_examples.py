"""What a newcomer runs: the demo, and every folder of examples/."""

import os
import subprocess
import sys
from collections.abc import Callable

import pytest
import yaml

from testkit.cluster import Cluster
from testkit.demo import NAMESPACE
from testkit.image import Image
from testkit.install import ROOT
from testkit.seeding import Seeded, big_objects
from testkit.waiting import eventually
from testkit.workspace import Workspace

pytestmark = pytest.mark.cluster

Seed = Callable[..., Seeded]


@pytest.mark.timeout(600)
def test_the_demo(cluster: Cluster, forebay: Image) -> None:
    """`make demo` on a cluster that runs: its own namespace, all bytes verified, a table, and the example's check."""
    done = subprocess.run(
        [sys.executable, "-m", "testkit.demo"], cwd=ROOT, capture_output=True, text=True, timeout=550, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip

    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert forebay.name in done.stdout
    assert "Every file on both nodes has the source's SHA-256" in done.stdout
    assert all(f"{node}: {what}" in done.stdout for node in cluster.nodes for what in ("directly from S3", "warm read"))
    check = [str(ROOT / "examples/01-minimal/check"), NAMESPACE]
    kubectl = cluster.kubectl_command()[0]
    path = f"{kubectl.rpartition('/')[0]}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "KUBECONFIG": str(cluster.kubeconfig)}
    subprocess.run(check, env=environment, timeout=60, check=True, capture_output=True)
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def test_the_replicated_example(workspace: Workspace, seed: Seed) -> None:
    """Applied in place of the minimal Runtime, it makes every worker hold everything."""
    seeded = seed(big_objects(count=2, size=5 << 20))
    runtime = yaml.safe_load((ROOT / "examples/03-replicated/runtime.yaml").read_text())
    runtime["metadata"]["namespace"] = workspace.namespace
    workspace.apply(workspace.dataset("demo", prefix=seeded.prefix), runtime, workspace.dataload(dataset="demo"))

    status = workspace.wait("dataload", "load", "Complete")

    assert status["totalBytes"] == status["loadedBytes"] == seeded.total_bytes
    eventually(
        lambda: workspace.status("runtime", "demo")["heldBytes"], timeout=30, what="both workers hold everything",
        until=lambda held: held == 2 * seeded.total_bytes,
    )  # fmt: skip
