"""The conformance tests of the Container Storage Interface, at the socket of a real plugin before a real worker."""

import json
import re
import subprocess
from pathlib import Path

from forebay_node.paths import NodePaths
from forebay_protocol.dataset import CREDENTIALS_FILE, DATASET_FILE, KEYS_FILE
from testkit import binaries
from testkit.progress import Progress
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


def _secrets(cluster: WorkerCluster) -> dict[str, dict[str, str]]:
    """The access Secret, for the calls that Kubernetes gives it to."""
    names = (DATASET_FILE, CREDENTIALS_FILE, KEYS_FILE)
    texts = {name: (cluster.access / name).read_text() for name in names}
    return {f"{call}Secret": texts for call in SECRET_CALLS}


def _reason(name: str) -> str | None:
    return next((reason for pattern, reason in SKIPPED.items() if re.search(pattern, name)), None)


def test_csi_sanity(served_bucket: WorkerCluster, plugin: tuple[NodePaths, int], tmp_path: Path) -> None:
    """Every specification that applies is met; each that does not has its reason here."""
    paths, pid = plugin
    (tmp_path / "secrets.yaml").write_text(json.dumps(_secrets(served_bucket)))
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
