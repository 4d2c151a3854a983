"""What we know of the cluster, fed by watches and by the answers to our own writes.

An answer to a write may arrive before the watch tells of it and a watch may tell of the past, so a newer
resourceVersion always wins; a deleted object's UID is remembered, so that a late answer does not revive it.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Iterable

from forebay_operator.model import meta
from forebay_operator.model.resource import Object
from forebay_protocol.volume import DATASET

Place = tuple[str, str]
_REMEMBERED = 10_000


def claims_of(pod: Object) -> list[str]:
    """Names of the claims that a pod uses."""
    volumes = pod.get("spec", {}).get("volumes", ())
    return [v["persistentVolumeClaim"]["claimName"] for v in volumes if v.get("persistentVolumeClaim")]


def inline_datasets_of(pod: Object) -> list[str]:
    """Names of the Datasets that a pod mounts without a claim."""
    sources = [volume.get("csi") or {} for volume in pod.get("spec", {}).get("volumes", ())]
    ours = [source.get("volumeAttributes") or {} for source in sources if source.get("driver") == meta.CSI_DRIVER]
    return [attributes[DATASET] for attributes in ours if DATASET in attributes]


def _is_worker(raw: Object) -> bool:
    labels = raw["metadata"].get("labels") or {}
    return labels.get(meta.LABEL_COMPONENT) == meta.WORKER_COMPONENT and meta.LABEL_DATASET in labels


def _trimmed(kind: str, raw: Object) -> Object | None:
    """The part of an object that is worth its memory; None when nothing of it is."""
    metadata = {key: value for key, value in raw["metadata"].items() if key != "managedFields"}
    if kind == "Secret" and metadata.get("labels", {}).get(meta.LABEL_MANAGED_BY) != meta.MANAGED_BY:
        # Other people's secrets are not kept; only that they change is.
        return {"metadata": {k: metadata[k] for k in ("name", "namespace", "uid", "resourceVersion")}}
    if kind == "Pod" and not _is_worker(raw):
        volumes: list[Object] = [{"persistentVolumeClaim": {"claimName": name}} for name in claims_of(raw)]
        named = [{DATASET: name} for name in inline_datasets_of(raw)]
        volumes += [{"csi": {"driver": meta.CSI_DRIVER, "volumeAttributes": attributes}} for attributes in named]
        if not volumes:
            return None
        kept = {k: metadata[k] for k in ("name", "namespace", "uid", "resourceVersion")}
        spec = {"volumes": volumes, "nodeName": raw["spec"].get("nodeName", "")}
        return {"metadata": kept, "spec": spec, "status": {"phase": raw["status"].get("phase")}}
    return {**raw, "metadata": metadata}


def _tags(kind: str, raw: Object) -> list[str]:
    """What an object can be found by, within its namespace."""
    if kind == "Pod":
        workers = [f"worker:{raw['metadata']['labels'][meta.LABEL_DATASET]}"] if _is_worker(raw) else []
        inline = [f"inline:{name}" for name in inline_datasets_of(raw)]
        return workers + inline + [f"claim:{name}" for name in claims_of(raw)]
    if kind == "PersistentVolume":
        labels = raw["metadata"].get("labels") or {}
        return [f"dataset:{labels.get(meta.LABEL_DATASET_NAMESPACE)}/{labels.get(meta.LABEL_DATASET)}"]
    if kind == "PersistentVolumeClaim":
        return [f"class:{raw['spec'].get('storageClassName')}"]
    if kind == "DataLoad":
        return [f"dataset:{raw['spec']['dataset']}"]
    if kind == "Dataset":
        references = [mount.get("credentialsSecretRef") for mount in raw["spec"]["mounts"]]
        return [f"secret:{reference['name']}" for reference in references if reference]
    return []


def version(raw: Object) -> int:
    """The resourceVersion as the number that it is."""
    return int(raw["metadata"].get("resourceVersion") or 0)


class Cache:
    """Objects by kind, namespace and name."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[Place, Object]] = defaultdict(dict)
        self._index: dict[tuple[str, str, str], set[str]] = defaultdict(set)
        self._gone: OrderedDict[str, None] = OrderedDict()

    def put(self, kind: str, raw: Object) -> None:
        """Remember an object, unless something newer is known of it."""
        metadata = raw["metadata"]
        place = (metadata.get("namespace", ""), metadata["name"])
        known = self._objects[kind].get(place)
        if metadata["uid"] in self._gone or (known is not None and version(known) > version(raw)):
            return
        kept = _trimmed(kind, raw)
        self._forget(kind, place)
        if kept is not None:
            self._objects[kind][place] = kept
            for tag in _tags(kind, kept):
                self._index[kind, place[0], tag].add(place[1])

    def drop(self, kind: str, raw: Object) -> None:
        """Forget an object that was deleted."""
        metadata = raw["metadata"]
        self._gone[metadata["uid"]] = None
        if len(self._gone) > _REMEMBERED:
            self._gone.popitem(last=False)
        place = (metadata.get("namespace", ""), metadata["name"])
        known = self._objects[kind].get(place)
        if known is not None and known["metadata"]["uid"] == metadata["uid"]:
            self._forget(kind, place)

    def _forget(self, kind: str, place: Place) -> None:
        known = self._objects[kind].pop(place, None)
        if known is None:
            return
        for tag in _tags(kind, known):
            names = self._index[kind, place[0], tag]
            names.discard(place[1])
            if not names:
                del self._index[kind, place[0], tag]

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """The object, if it is known."""
        return self._objects[kind].get((namespace, name))

    def all(self, kind: str) -> Iterable[Object]:
        """All known objects of a kind."""
        return list(self._objects[kind].values())

    def datasets_of(self, pod: Object) -> list[str]:
        """Names of the Datasets that a pod uses, as far as their claims are told from others."""
        namespace = pod["metadata"]["namespace"]
        found = inline_datasets_of(pod)
        for name in claims_of(pod):
            claim = self.get("PersistentVolumeClaim", namespace, name) or {"spec": {}}
            volume = self.get("PersistentVolume", "", claim["spec"].get("volumeName", "")) or {"metadata": {}}
            found.append((volume["metadata"].get("labels") or {}).get(meta.LABEL_DATASET, name))
        return found

    def tagged(self, kind: str, namespace: str, tag: str) -> list[Object]:
        """The objects of a namespace that can be found by ``tag``, in the order of their names."""
        names = sorted(self._index.get((kind, namespace, tag), ()))
        return [self._objects[kind][namespace, name] for name in names]
