"""The demo's stage in a cluster that is there already: the one of the current kubeconfig.

The image is pushed to where the cluster can pull it; the S3 server runs in the cluster, without a limited link.
"""

import base64
import json
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from typing_extensions import override

from testkit import binaries, dataset, image, workloads
from testkit.commands import run
from testkit.demo import Stage
from testkit.oci import ProgramImage, write_archive
from testkit.progress import Progress
from testkit.s3client import Credentials, S3Client
from testkit.settings import MINIO_VERSION, cache_folder
from testkit.store import PORT, Store
from testkit.waiting import eventually

NAMESPACE = "forebay-demo-store"
BUCKET = "demo"
_DATA = "/data"


class ExistingCluster:
    """The cluster of the current kubeconfig."""

    def __init__(self, progress: Progress) -> None:
        """Use the machine's kubectl, or get one."""
        self._program = shutil.which("kubectl") or str(binaries.fetch(progress).kubectl)

    def kubectl(
        self, *args: str, stdin: str | None = None, timeout: float = 60, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl with the current kubeconfig."""
        return run([self._program, *args], stdin=stdin, timeout=timeout, check=check)

    def nodes(self) -> tuple[str, ...]:
        """Up to two nodes that are Ready and take pods."""
        found = json.loads(self.kubectl("get", "nodes", "-o", "json").stdout)["items"]
        fit = [
            node["metadata"]["name"]
            for node in found
            if not node["spec"].get("unschedulable")
            and not any(taint["effect"] != "PreferNoSchedule" for taint in node["spec"].get("taints", ()))
        ]
        if not fit:
            raise RuntimeError("no node of the cluster takes pods: see kubectl get nodes")
        return tuple(sorted(fit)[:2])

    @contextmanager
    def forwarded(self, target: str, port: int) -> Iterator[int]:
        """A local port that leads to a port of a pod, for as long as the context lasts."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            local: int = free.getsockname()[1]
        argv = [self._program, "port-forward", "-n", NAMESPACE, target, f"{local}:{port}"]
        forward = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            eventually(lambda: _listens(local), timeout=20, what=f"kubectl port-forward to {target} listens")
            yield local
        finally:
            forward.terminate()
            forward.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class ForwardedStore(Store):
    """The store in the cluster, through a local port."""

    def __init__(self, port: int, credentials: Credentials, progress: Progress) -> None:
        """Talk to the local port as the store's owner."""
        super().__init__(progress=progress)
        self._port = port
        self._owner = credentials

    @property
    @override
    def client(self) -> S3Client:
        """A client of the local port."""
        return S3Client("127.0.0.1", self._port, self._owner)


def store_objects(store_image: str, credentials: Credentials) -> list[dict[str, Any]]:
    """The S3 server in a namespace of its own, fit for Pod Security restricted."""
    labels = {"app": "store"}
    keys = {"MINIO_ROOT_USER": credentials.access_key, "MINIO_ROOT_PASSWORD": credentials.secret_key}
    container = {
        "name": "minio",
        "image": store_image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["server", "--quiet", f"--address=:{PORT}", _DATA],
        "envFrom": [{"secretRef": {"name": "owner"}}],
        "env": [{"name": "MINIO_BROWSER", "value": "off"}, {"name": "MINIO_CI_CD", "value": "on"}],
        "readinessProbe": {"httpGet": {"path": "/minio/health/ready", "port": PORT}, "periodSeconds": 1},
        "securityContext": workloads.SECURITY,
        "volumeMounts": [{"name": "data", "mountPath": _DATA}, {"name": "tmp", "mountPath": "/tmp"}],  # noqa: S108
    }
    pod = {
        "automountServiceAccountToken": False,
        "securityContext": {"fsGroup": 65532},
        "containers": [container],
        "volumes": [{"name": name, "emptyDir": {"sizeLimit": "4Gi"}} for name in ("data", "tmp")],
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "store", "namespace": NAMESPACE},
        "spec": {
            "strategy": {"type": "Recreate"},
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
    return [workloads.namespace(NAMESPACE), workloads.secret("owner", NAMESPACE, keys), deployment]


def _owner(cluster: ExistingCluster) -> Credentials:
    """The store's keys: those that an earlier demo made, else new ones."""
    text = cluster.kubectl("get", "secret", "owner", "-n", NAMESPACE, "--ignore-not-found", "-o", "json").stdout
    if text.strip():
        data = {name: base64.b64decode(value).decode() for name, value in json.loads(text)["data"].items()}
        return Credentials(data["MINIO_ROOT_USER"], data["MINIO_ROOT_PASSWORD"])
    return Credentials(f"owner-{secrets.token_hex(6)}", secrets.token_urlsafe(30))


def _store_archive(name: str, progress: Progress) -> Path:
    program = ProgramImage(
        name=name, program=binaries.fetch(progress).minio, entrypoint=("/minio",), user="65532",
        architecture=binaries.architecture(),
    )  # fmt: skip
    return write_archive(program, cache_folder() / "store-image.tar")


def set_stage(progress: Progress, name: str, *, push: bool) -> Stage:
    """Push the images, start the store and fill it."""
    if not name:
        raise RuntimeError(
            "say where the cluster can pull the image from: make demo CLUSTER=existing IMAGE=registry/name:tag"
        )
    cluster = ExistingCluster(progress)
    nodes = cluster.nodes()
    store_image = f"{name.rpartition(':')[0] or name}:minio-{MINIO_VERSION}"
    if push:
        with progress.step(f"pushing {name} and {store_image}"):
            image.publish(image.build(progress).archive, name)
            image.publish(_store_archive(store_image, progress), store_image)
    owner = _owner(cluster)
    with progress.step(f"S3 server in namespace {NAMESPACE}"):
        workloads.apply(cluster, *store_objects(store_image, owner))
        cluster.kubectl("rollout", "status", "-n", NAMESPACE, "deployment/store", "--timeout=180s", timeout=200)
    with progress.step(f"demo data in s3://{BUCKET}"), cluster.forwarded("deployment/store", PORT) as port:
        data = dataset.seed(ForwardedStore(port, owner, progress), BUCKET, progress=progress)
    address = cluster.kubectl(
        "get", "pods", "-n", NAMESPACE, "-l", "app=store", "-o", "jsonpath={.items[0].status.podIP}"
    ).stdout
    return Stage(
        cluster=cluster,
        nodes=nodes,
        image=name,
        store_address=address,
        store_port=PORT,
        bucket=BUCKET,
        access_key=owner.access_key,
        secret_key=owner.secret_key,
        data=data,
        link="The store runs in the cluster; no limit is set on the way to it.",
        kubectl_hint="kubectl",
        removal_hint=f"kubectl delete namespace forebay-demo {NAMESPACE} && kubectl delete -k manifests",
    )
