"""In steady state nothing of ours writes, and workers and node plugins do not talk to the API server at all."""

import json
from collections.abc import Callable

import pytest

from testkit.cluster import Cluster
from testkit.seeding import Seeded, big_objects
from testkit.waiting import eventually
from testkit.workspace import Workspace

pytestmark = pytest.mark.cluster

Seed = Callable[..., Seeded]
WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


def _settled(workspace: Workspace, kinds: tuple[str, ...]) -> dict[str, str]:
    """The resourceVersion of everything of ours in the namespace."""
    return {
        f"{kind}/{one['metadata']['name']}": one["metadata"]["resourceVersion"]
        for kind in kinds
        for one in workspace.find(kind)
    }


def test_steady_state_is_quiet(workspace: Workspace, cluster: Cluster, seed: Seed) -> None:
    """While pods read for a while: no write by the operator, no call by workers or node plugins, a clean diff."""
    seeded = seed(big_objects(count=2, size=9 << 20))
    workspace.reader_files(seeded.rows)
    wanted = [workspace.dataset(prefix=seeded.prefix), workspace.runtime(), workspace.dataload()]
    workspace.apply(*wanted)
    workspace.wait("dataload", "load", "Complete")
    total = workspace.wait("dataset", "data")["totalBytes"]
    # The last news after a load: until then all may stand still between two looks at the workers.
    eventually(
        lambda: workspace.status("runtime", "data").get("heldBytes"), timeout=30,
        what="the workers have told what they hold", until=lambda held: held is not None and held >= total,
    )  # fmt: skip
    kinds = ("datasets", "runtimes", "dataloads", "statefulsets", "services", "secrets", "persistentvolumeclaims")
    before = eventually(
        lambda: (_settled(workspace, kinds), _settled(workspace, kinds)), timeout=60, interval=5,
        what="resourceVersions stand still", until=lambda pair: pair[0] == pair[1],
    )[0]  # fmt: skip
    mark = cluster.audit_log.stat().st_size

    for attempt in range(5):
        pod = workspace.reader(f"reader-{attempt}", "node-1", ("read", "again"))
        pod.start(cluster)
        pod.results(cluster)
        pod.delete(cluster)

    with cluster.audit_log.open("rb") as log:
        log.seek(mark)
        calls = [json.loads(line) for line in log if line.endswith(b"\n")]
    data_path = [
        call["requestURI"]
        for call in calls
        if call["user"]["username"].startswith(
            ("system:serviceaccount:forebay-node:", f"system:serviceaccount:{workspace.namespace}:")
        )
    ]
    assert data_path == []
    writes = [
        call["requestURI"]
        for call in calls
        if call["user"]["username"].startswith("system:serviceaccount:forebay-system:")
        and call["verb"] in WRITES
        and f"/namespaces/{workspace.namespace}/" in call["requestURI"]
        and "/pods/" not in call["requestURI"]
    ]
    assert [uri for uri in writes if "/datasets/data/status" not in uri] == []
    assert {name: version for name, version in _settled(workspace, kinds).items() if "datasets" not in name} == {
        name: version for name, version in before.items() if "datasets" not in name
    }
    items = {"apiVersion": "v1", "kind": "List", "items": wanted}
    assert cluster.kubectl("diff", "-f", "-", stdin=json.dumps(items)).stdout == ""


def test_workers_and_readers_fit_restricted_namespaces(workspace: Workspace) -> None:
    """Pod Security `restricted` is enforced where everything but the node plugin runs."""
    for name in (workspace.namespace, "forebay-system"):
        labels = json.loads(workspace.cluster.kubectl("get", "namespace", name, "-o", "json").stdout)["metadata"][
            "labels"
        ]

        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
