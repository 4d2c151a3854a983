"""What tests and the demo run in the cluster: namespaces, bucket credentials, reader pods."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from testkit.install import Kubectl

READER = Path(__file__).with_name("reader.py")
RESTRICTED = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn", "audit")}
SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}


def namespace(name: str) -> dict[str, Any]:
    """A namespace that admits only restricted pods."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}}


def secret(name: str, where: str, data: dict[str, str]) -> dict[str, Any]:
    """A Secret; it goes to kubectl's standard input, never into an argument."""
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": where}, "stringData": data}


def config_map(name: str, where: str, data: dict[str, str]) -> dict[str, Any]:
    """A ConfigMap."""
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": where}, "data": data}


def apply(cluster: Kubectl, *objects: dict[str, Any]) -> None:
    """Apply objects, created or changed; server-side, since a large ConfigMap does not fit an annotation."""
    items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(items))


@dataclass(frozen=True, kw_only=True)
class ReaderPod:
    """A pod that runs steps of `reader.py` on a node and ends.

    ``claim`` is the PVC to read, mounted at /data; ``config`` the name of the ConfigMap with reader.py and config.json;
    ``credentials`` the Secret whose keys become environment variables for the direct read.
    """

    name: str
    namespace: str
    node: str
    image: str
    claim: str
    config: str
    steps: tuple[str, ...]
    credentials: str = ""
    labels: dict[str, str] = field(default_factory=dict)

    def manifest(self) -> dict[str, Any]:
        """The pod, fit for a restricted namespace."""
        container = {
            "name": "reader",
            "image": self.image,
            "imagePullPolicy": "IfNotPresent",
            "command": ["python3", "/reader/reader.py", "/reader/config.json", *self.steps],
            "env": [
                {"name": "PYTHONDONTWRITEBYTECODE", "value": "1"},
                {"name": "AWS_DEFAULT_REGION", "value": "us-east-1"},
            ],
            "envFrom": [{"secretRef": {"name": self.credentials}}] if self.credentials else [],
            "securityContext": SECURITY,
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
            "volumeMounts": [
                {"name": "data", "mountPath": "/data", "readOnly": True},
                {"name": "reader", "mountPath": "/reader", "readOnly": True},
            ],
        }
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": self.name, "namespace": self.namespace, "labels": self.labels},
            "spec": {
                "restartPolicy": "Never",
                "terminationGracePeriodSeconds": 1,
                "automountServiceAccountToken": False,
                "nodeSelector": {"kubernetes.io/hostname": self.node},
                "containers": [container],
                "volumes": [
                    {"name": "data", "persistentVolumeClaim": {"claimName": self.claim, "readOnly": True}},
                    {"name": "reader", "configMap": {"name": self.config}},
                ],
            },
        }

    def start(self, cluster: Kubectl) -> None:
        """Create the pod."""
        apply(cluster, self.manifest())

    def phase(self, cluster: Kubectl) -> str:
        """Pending, Running, Succeeded or Failed."""
        return cluster.kubectl(
            "get", "pod", "-n", self.namespace, self.name, "--ignore-not-found", "-o", "jsonpath={.status.phase}"
        ).stdout

    def results(self, cluster: Kubectl, timeout: float = 180) -> dict[str, dict[str, Any]]:
        """Wait for the pod's end and give what each step printed; RuntimeError with its log when it failed."""
        deadline = time.monotonic() + timeout
        while (phase := self.phase(cluster)) not in {"Succeeded", "Failed"}:
            if time.monotonic() > deadline:
                described = cluster.kubectl("describe", "pod", "-n", self.namespace, self.name).stdout
                raise RuntimeError(f"pod {self.name} did not end in {timeout:.0f} s:\n{described[-3000:]}")
            time.sleep(0.2)
        log = cluster.kubectl("logs", "-n", self.namespace, self.name).stdout
        if phase == "Failed":
            raise RuntimeError(f"pod {self.name} failed:\n{log[-4000:]}")
        lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
        return {line["step"]: line for line in lines}

    def delete(self, cluster: Kubectl) -> None:
        """Delete the pod and wait until it is gone."""
        cluster.kubectl("delete", "pod", "-n", self.namespace, self.name, "--ignore-not-found", "--wait", timeout=90)


def reader_files(where: str, name: str, config: dict[str, Any]) -> dict[str, Any]:
    """The ConfigMap that a ReaderPod needs; `config` as reader.py describes it."""
    return config_map(name, where, {"reader.py": READER.read_text(), "config.json": json.dumps(config)})
