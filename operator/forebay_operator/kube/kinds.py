"""Which kinds of objects we deal with and where the API server keeps them."""

from typing import NamedTuple

from forebay_operator.model import meta


class Kind(NamedTuple):
    """A kind's group, version and plural; ``selector`` narrows lists and watches to what concerns us."""

    group: str
    version: str
    plural: str
    namespaced: bool = True
    selector: str = ""

    @property
    def api_version(self) -> str:
        """The group and version, as objects have them."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def prefix(self) -> str:
        """The path of the group and version."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str = "", name: str = "") -> str:
        """The path of an object, or of all objects of a namespace or the cluster."""
        place = f"/namespaces/{namespace}" if self.namespaced and namespace else ""
        return f"{self.prefix}{place}/{self.plural}" + (f"/{name}" if name else "")


_OURS = f"{meta.LABEL_MANAGED_BY}={meta.MANAGED_BY}"

KINDS: dict[str, Kind] = {
    "Dataset": Kind(meta.GROUP, meta.VERSION, "datasets"),
    "Runtime": Kind(meta.GROUP, meta.VERSION, "runtimes"),
    "DataLoad": Kind(meta.GROUP, meta.VERSION, "dataloads"),
    "StatefulSet": Kind("apps", "v1", "statefulsets", selector=_OURS),
    "Service": Kind("", "v1", "services", selector=_OURS),
    "ServiceAccount": Kind("", "v1", "serviceaccounts", selector=_OURS),
    "NetworkPolicy": Kind("networking.k8s.io", "v1", "networkpolicies", selector=_OURS),
    "PodDisruptionBudget": Kind("policy", "v1", "poddisruptionbudgets", selector=_OURS),
    "PersistentVolume": Kind("", "v1", "persistentvolumes", namespaced=False, selector=_OURS),
    "StorageClass": Kind("storage.k8s.io", "v1", "storageclasses", namespaced=False),
    # Claims, Secrets and pods of users concern us too: names that are taken, credentials, who uses a volume.
    "PersistentVolumeClaim": Kind("", "v1", "persistentvolumeclaims"),
    "Secret": Kind("", "v1", "secrets"),
    "Pod": Kind("", "v1", "pods"),
}
CONFIG_MAPS = Kind("", "v1", "configmaps")
EVENTS = Kind("", "v1", "events")
LEASES = Kind("coordination.k8s.io", "v1", "leases")
