"""Install Forebay from `manifests/` into a cluster, with a given image."""

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Protocol

ROOT = Path(__file__).resolve().parents[3]
PLACEHOLDER_IMAGE = "forebay.local/forebay"
OPERATOR_NAMESPACE = "forebay-system"
NODE_NAMESPACE = "forebay-node"


class Kubectl(Protocol):
    """Whatever runs kubectl against a cluster: ours, or the one of the current kubeconfig."""

    def kubectl(
        self, *args: str, stdin: str | None = None, timeout: float = 60, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl; with `check` an exit code other than 0 is an error that shows standard error."""
        ...


def kustomization(image: str, manifests: str) -> dict[str, object]:
    """The overlay that replaces the image's placeholder; `manifests` is a relative path, as kustomize wants it."""
    name, _, tag = image.rpartition(":")
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [manifests],
        "images": [{"name": PLACEHOLDER_IMAGE, "newName": name, "newTag": tag}],
    }


def install(cluster: Kubectl, image: str) -> None:
    """Apply the manifests and wait until operator and node plugin are rolled out."""
    with tempfile.TemporaryDirectory() as folder:
        manifests = os.path.relpath(ROOT / "manifests", folder)
        (Path(folder) / "kustomization.yaml").write_text(json.dumps(kustomization(image, manifests)))
        cluster.kubectl("apply", "-k", folder, timeout=120)
    cluster.kubectl(
        "wait", "--for=condition=Established", "--timeout=60s",
        "crd/datasets.data.forebay.io", "crd/runtimes.data.forebay.io", "crd/dataloads.data.forebay.io", timeout=70,
    )  # fmt: skip
    for namespace, workload in ((OPERATOR_NAMESPACE, "deployment"), (NODE_NAMESPACE, "daemonset")):
        for name in cluster.kubectl("get", workload, "-n", namespace, "-o", "name").stdout.split():
            cluster.kubectl("rollout", "status", "-n", namespace, name, "--timeout=180s", timeout=200)


def installed_image(cluster: Kubectl) -> str:
    """The image of the operator that is installed, or nothing."""
    return cluster.kubectl(
        "get", "deployment", "-n", OPERATOR_NAMESPACE, "--ignore-not-found",
        "-o", "jsonpath={.items[*].spec.template.spec.containers[0].image}",
    ).stdout  # fmt: skip
