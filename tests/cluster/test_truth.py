"""Status follows what is really in the tiers, also when somebody deletes or corrupts it behind the worker's back."""

from collections.abc import Callable

import pytest

from testkit.cluster import Cluster
from testkit.proofs import Proof
from testkit.seeding import Seeded, big_objects
from testkit.waiting import eventually
from testkit.workspace import Workspace

pytestmark = pytest.mark.cluster

Seed = Callable[..., Seeded]
CHUNK = 4 << 20

_SPOIL = r"""
set -e
n=0
for file in $(find "$1"/objects -type f | sort); do
  case $((n % 3)) in
    0) rm "$file" ;;
    1) printf 'spoiled' | dd of="$file" bs=1 seek=100000 conv=notrunc status=none ;;
    2) truncate -s 0 "$file" ;;
  esac
  n=$((n + 1))
  [ $n -ge "$2" ] && break
done
echo $n
"""


def _tiers(workspace: Workspace, cluster: Cluster) -> list[tuple[str, str]]:
    """(node, folder on the node) of every worker's tiers."""
    found = []
    for pod in workspace.workers():
        node, uid = pod["spec"]["nodeName"], pod["metadata"]["uid"]
        volumes = f"/var/lib/kubelet/pods/{uid}/volumes/kubernetes.io~empty-dir"
        listed = cluster.nodes[node].run(["find", volumes, "-maxdepth", "3", "-name", "objects"]).stdout.split()
        found += [(node, path.removesuffix("/objects")) for path in listed]
    return found


def _allocated(cluster: Cluster, tiers: list[tuple[str, str]]) -> int:
    """Bytes that a full scan finds in the tiers: allocated, hence at least what is really there."""
    total = 0
    for node, folder in tiers:
        blocks = cluster.nodes[node].run(["find", f"{folder}/objects", "-type", "f", "-printf", "%b\n"]).stdout.split()
        total += sum(int(count) * 512 for count in blocks)
    return total


@pytest.mark.proof("status-truth", quick=1, full=10)
def test_cached_falls_with_what_is_spoiled(workspace: Workspace, cluster: Cluster, seed: Seed, proof: Proof) -> None:
    """Deleted, corrupted and truncated chunks leave the status within 60 s, and the pods' bytes stay right."""
    seeded = seed(big_objects(count=8, size=CHUNK - 64))
    workspace.reader_files(seeded.rows)
    for attempt in range(proof.rounds):
        load = f"load-{attempt}"
        workspace.apply(workspace.dataset(prefix=seeded.prefix), workspace.runtime(), workspace.dataload(load))
        workspace.wait("dataload", load, "Complete")
        full = eventually(
            lambda: workspace.status("dataset", "data"), timeout=30, what="all is cached",
            until=lambda status: status.get("cachedPercent") == 100,
        )  # fmt: skip
        assert full["cachedBytes"] == seeded.total_bytes
        tiers = _tiers(workspace, cluster)
        spoiled = sum(
            int(cluster.nodes[node].run(["sh", "-c", _SPOIL, "sh", folder, "2"]).stdout) for node, folder in tiers
        )
        assert spoiled > 1

        fallen = eventually(
            lambda: workspace.status("dataset", "data"), timeout=60, what=f"{spoiled} spoiled chunks leave the status",
            until=lambda status: status["cachedBytes"] <= seeded.total_bytes - spoiled * (CHUNK - 64),
        )  # fmt: skip

        assert fallen["cachedPercent"] < 100
        assert fallen["cachedBytes"] <= _allocated(cluster, tiers) + CHUNK * len(tiers)
        proof.counts["chunks spoiled"] += spoiled
        pod = workspace.reader(f"verify-{attempt}", "node-1", ("verify",))
        pod.start(cluster)
        assert pod.results(cluster)["verify"]["wrong"] == []
        pod.delete(cluster)
        proof.counts["files verified after"] += len(seeded.rows)
