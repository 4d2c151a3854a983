"""A Runtime whose workers speak TLS only: pods read, and certificates are replaced, as if nothing was."""

import base64
from collections.abc import Callable

import pytest

from testkit.cluster import Cluster
from testkit.seeding import Seeded, big_objects
from testkit.waiting import eventually
from testkit.workspace import Workspace

pytestmark = pytest.mark.cluster

Seed = Callable[..., Seeded]
WORKER_TLS = "data-worker-tls"


def certificate(workspace: Workspace) -> str:
    """What the workers show, as PEM; empty while there is none."""
    return base64.b64decode(workspace.get("secret", WORKER_TLS).get("data", {}).get("tls.crt", "")).decode()


def test_a_runtime_speaks_tls_only(workspace: Workspace, cluster: Cluster, seed: Seed) -> None:
    """Probes, ring, index, status and reads on both nodes; a certificate that is lost is made anew and taken up."""
    seeded = seed(big_objects(count=2, size=8 << 20))
    workspace.reader_files(seeded.rows)
    workspace.apply(workspace.dataset(prefix=seeded.prefix), workspace.runtime(tls="Required"), workspace.dataload())
    workspace.wait("dataset", "data")
    workspace.wait("dataload", "load", "Complete")
    worker = workspace.workers()[0]["metadata"]["name"]

    plain = cluster.kubectl("get", "--raw", _metrics(workspace, worker), check=False)
    secured = cluster.kubectl("get", "--raw", _metrics(workspace, f"https:{worker}")).stdout
    assert "forebay_worker_" not in plain.stdout
    assert "forebay_worker_cached_bytes" in secured
    for pod in workspace.workers():
        volumes = [volume.get("secret", {}).get("secretName") for volume in pod["spec"]["volumes"]]
        assert "data-forebay-ca" not in volumes

    before = certificate(workspace)
    cluster.kubectl("delete", "secret", WORKER_TLS, "-n", workspace.namespace)
    eventually(
        lambda: certificate(workspace), timeout=60, what="a new certificate", until=lambda pem: pem not in {"", before}
    )
    for node in ("node-1", "node-2"):
        reader = workspace.reader(f"reader-{node}", node, ("verify",))
        reader.start(cluster)
        assert reader.results(cluster)["verify"]["wrong"] == []
        reader.delete(cluster)
    assert workspace.status("dataset", "data")["cachedPercent"] == 100
    assert workspace.condition("runtime", "data", "Ready")["status"] == "True"


def _metrics(workspace: Workspace, worker: str) -> str:
    return f"/api/v1/namespaces/{workspace.namespace}/pods/{worker}:7070/proxy/metrics"
