"""A namespace of a test's own: a Dataset and its friends, made, watched and removed as a user does it."""

import json
from dataclasses import dataclass, field
from typing import Any

from testkit import workloads
from testkit.install import Kubectl
from testkit.waiting import eventually

API = "data.forebay.io/v1alpha1"
SECRET = "bucket-credentials"


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """A bucket as pods reach it, and the keys to it."""

    name: str
    endpoint: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """One namespace. Methods take and give plain manifests."""

    cluster: Kubectl
    namespace: str
    bucket: Bucket
    image: str

    def create(self) -> None:
        """Make the namespace (Pod Security: restricted) and the bucket's Secret."""
        workloads.apply(self.cluster, workloads.namespace(self.namespace), self.secret())

    def secret(self, **changes: str) -> dict[str, Any]:
        """The bucket's Secret, or one with other values."""
        data = {"accessKeyId": self.bucket.access_key, "secretAccessKey": self.bucket.secret_key, **changes}
        return workloads.secret(SECRET, self.namespace, data)

    def dataset(
        self, name: str = "data", *, prefix: str = "", mount: dict[str, Any] | None = None, **spec: Any
    ) -> dict[str, Any]:
        """A Dataset with one mount at the root; `mount` and `spec` add to or replace fields."""
        one = {
            "name": "data",
            "source": f"s3://{self.bucket.name}/{prefix}".rstrip("/"),
            "path": "/",
            "endpoint": self.bucket.endpoint,
            "credentialsSecretRef": {"name": SECRET},
            **(mount or {}),
        }
        return self._object("Dataset", name, {"mounts": [one], "refresh": {"interval": "2s"}, **spec})

    def runtime(self, name: str = "data", **spec: Any) -> dict[str, Any]:
        """A Runtime with two workers and a memory tier; `spec` adds to or replaces fields."""
        tiers = [{"medium": "Memory", "quota": "256Mi"}]
        return self._object("Runtime", name, {"replicas": 2, "tiers": tiers, **spec})

    def dataload(self, name: str = "load", dataset: str = "data", **spec: Any) -> dict[str, Any]:
        """A DataLoad of everything; `spec` adds fields."""
        return self._object("DataLoad", name, {"dataset": dataset, **spec})

    def _object(self, kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        return {"apiVersion": API, "kind": kind, "metadata": {"name": name, "namespace": self.namespace}, "spec": spec}

    def apply(self, *objects: dict[str, Any]) -> None:
        """`kubectl apply` them."""
        items = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(items))

    def get(self, kind: str, name: str) -> dict[str, Any]:
        """The object, or an empty dict when there is none."""
        text = self.cluster.kubectl("get", kind, name, "-n", self.namespace, "--ignore-not-found", "-o", "json").stdout
        found: dict[str, Any] = json.loads(text) if text.strip() else {}
        return found

    def find(self, kind: str, selector: str = "") -> list[dict[str, Any]]:
        """All objects of a kind in the namespace."""
        text = self.cluster.kubectl("get", kind, "-n", self.namespace, "-l", selector, "-o", "json").stdout
        items: list[dict[str, Any]] = json.loads(text)["items"]
        return items

    def status(self, kind: str, name: str) -> dict[str, Any]:
        """The object's status, empty while it has none."""
        status: dict[str, Any] = self.get(kind, name).get("status", {})
        return status

    def condition(self, kind: str, name: str, wanted: str) -> dict[str, Any]:
        """One condition of an object, empty while it has none of that type."""
        conditions = self.status(kind, name).get("conditions", [])
        return next((one for one in conditions if one["type"] == wanted), {})

    def wait(self, kind: str, name: str, condition: str = "Ready", timeout: float = 90) -> dict[str, Any]:
        """Wait until the condition is True and give the status; the failure shows the last conditions."""
        eventually(
            lambda: self.status(kind, name).get("conditions", []),
            timeout=timeout, what=f"{kind} {name} is {condition}",
            until=lambda all_: any(one["type"] == condition and one["status"] == "True" for one in all_),
        )  # fmt: skip
        return self.status(kind, name)

    def workers(self, name: str = "data") -> list[dict[str, Any]]:
        """The Runtime's worker pods, by ordinal."""
        selector = self.status("runtime", name)["selector"]
        return sorted(self.find("pods", selector), key=lambda pod: str(pod["metadata"]["name"]))

    def metrics(self, pod: str) -> dict[str, float]:
        """A worker's metrics: series with its labels as Prometheus writes it, to value."""
        path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}:7070/proxy/metrics"
        lines = self.cluster.kubectl("get", "--raw", path).stdout.splitlines()
        return {
            name: float(value)
            for name, _, value in (line.rpartition(" ") for line in lines if not line.startswith("#"))
        }

    def reader(
        self, name: str, node: str, steps: tuple[str, ...], config: str = "reader", claim: str = "data"
    ) -> workloads.ReaderPod:
        """A reader pod, not yet started."""
        return workloads.ReaderPod(
            name=name, namespace=self.namespace, node=node, image=self.image, claim=claim, config=config, steps=steps,
            credentials="",
        )  # fmt: skip

    def holder(self, name: str, node: str, claim: str = "data") -> workloads.ReaderPod:
        """A pod that has the volume mounted and does nothing, running."""
        self.reader_files([], "holder")
        pod = self.reader(name, node, ("hold",), config="holder", claim=claim)
        pod.start(self.cluster)
        eventually(
            lambda: pod.phase(self.cluster), timeout=90, what=f"pod {name} runs", until=lambda phase: phase == "Running"
        )
        return pod

    def eventually_no_workers(self, name: str = "data", timeout: float = 60) -> None:
        """Wait until the Runtime has no pods left."""
        eventually(lambda: self.workers(name), timeout=timeout, what="no workers", until=lambda pods: not pods)

    def eventually_listed(self, files: int, name: str = "data", timeout: float = 30) -> None:
        """Wait until the Dataset's index has so many files."""
        eventually(
            lambda: self.status("dataset", name).get("fileCount"),
            timeout=timeout, what=f"{files} files are listed", until=lambda count: count == files,
        )  # fmt: skip

    def reader_files(self, files: list[list[Any]], name: str = "reader", threads: int = 4) -> None:
        """What readers check: `[path, key, size, sha256]` rows."""
        config = {
            "root": "/data", "bucket": self.bucket.name, "endpoint": self.bucket.endpoint, "threads": threads,
            "files": files,
        }  # fmt: skip
        workloads.apply(self.cluster, workloads.reader_files(self.namespace, name, config))

    def abandon(self) -> None:
        """Delete the namespace with everything in it, without waiting for the end."""
        self.cluster.kubectl("delete", "namespace", self.namespace, "--ignore-not-found", "--wait=false")

    def delete(self, timeout: float = 120) -> None:
        """Delete the namespace with everything in it and wait until it is gone."""
        self.abandon()
        eventually(
            lambda: self.cluster.kubectl("get", "namespace", self.namespace, "--ignore-not-found", "-o", "name").stdout,
            timeout=timeout, what=f"namespace {self.namespace} is gone", until=lambda name: not name.strip(),
        )  # fmt: skip
