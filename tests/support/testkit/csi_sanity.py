"""The conformance tests of the Container Storage Interface (csi-sanity), run at a plugin's socket."""

import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from forebay_node.paths import NodePaths
from testkit import binaries
from testkit.progress import Progress

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
    r"GroupController": "volumes are independent of each other",
}
"""Which conformance tests may be skipped, by their name, and why."""

_SECRET_CALLS = ("CreateVolume", "NodeStageVolume", "NodePublishVolume")
_TARGETS = 'mkdir -p "$1" && shift && exec "$@"'


def conform(
    entering: Sequence[str], paths: NodePaths, dataset: str, access: Mapping[str, str], folder: Path
) -> list[str]:
    """Run all tests as the kubelet of these paths would call; the names of those that passed.

    ``entering`` is the command that enters the plugin's mount namespace, ``access`` the Dataset's access Secret,
    ``folder`` a private one for files. AssertionError when a test fails, or is skipped without a reason of ours.
    """
    (folder / "secrets.yaml").write_text(json.dumps({f"{call}Secret": dict(access) for call in _SECRET_CALLS}))
    (folder / "parameters.yaml").write_text(json.dumps({"dataset": dataset}))
    targets, report = paths.kubelet / "plugins/csi-sanity", folder / "report.json"
    ran = subprocess.run(
        [
            *entering, "sh", "-c", _TARGETS, "sh", str(targets), str(binaries.fetch(Progress()).csi_sanity),
            f"--csi.endpoint={paths.socket}", f"--csi.mountdir={targets}/pod", f"--csi.stagingdir={targets}/staging",
            f"--csi.secrets={folder}/secrets.yaml", f"--csi.testvolumeparameters={folder}/parameters.yaml",
            f"--ginkgo.json-report={report}", "--ginkgo.no-color", "--ginkgo.timeout=4m",
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
    unexplained = [name for name in not_run if _reason(name) is None]
    assert not unexplained, f"skipped without a reason: {unexplained}"
    print(f"{len(results['passed'])} specifications are met")
    return results["passed"]


def _reason(name: str) -> str | None:
    return next((reason for pattern, reason in SKIPPED.items() if re.search(pattern, name)), None)
