"""Gather from the caches what a decision looks at. What the workers say is brought along by the caller."""

import base64
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from forebay_operator.desired import tls
from forebay_operator.desired.node_folders import runtimes_on_nodes
from forebay_operator.kube.cache import Cache
from forebay_operator.kube.client import Client
from forebay_operator.kube.credentials import CredentialsReader
from forebay_operator.kube.errors import NotFound
from forebay_operator.kube.kinds import KINDS
from forebay_operator.model import meta, names
from forebay_operator.model.certificates import Certificates, Pair, in_force
from forebay_operator.model.dataload import DataLoad
from forebay_operator.model.dataset import Dataset
from forebay_operator.model.keys import KeySet
from forebay_operator.model.resource import Object
from forebay_operator.model.runtime import Runtime
from forebay_operator.reconcile import dataload, dataset, membership, pods, provisioning, runtime
from forebay_protocol.control import LoadProgress, WorkerStatus
from forebay_protocol.dataset import AUTHORITY_FILE, DATA_KEY_FILE, KEYS_FILE
from forebay_protocol.ring import Member, MemberState

_PODS_TO_CONFIRM = 10
"""How many pods that hold a Dataset are asked for at one look; those that are gone make room for the next."""


class WorkerFacts(NamedTuple):
    """How to reach a Runtime's running workers: whose token, signed with what, and their addresses by name.

    ``authority`` is the certificate by which they are verified, empty where they speak no TLS.
    """

    dataset_uid: str
    key: bytes
    addresses: dict[str, str]
    host: str
    authority: str


class Observer:
    """Reads the caches."""

    def __init__(self, client: Client, cache: Cache) -> None:
        self._client = client
        self._cache = cache
        self._credentials = CredentialsReader(client, cache)

    def subject(self, kind: str, namespace: str, name: str) -> Object | None:
        """The custom resource as the API server shows it."""
        return self._cache.get(kind, namespace, name)

    def serves_nobody(self, volume: Object) -> bool:
        """Whether a volume of ours has lost its Dataset, or the claim that it was made for."""
        if provisioning.is_provisioned(volume):
            return provisioning.is_over(volume)
        labels = volume["metadata"].get("labels", {})
        namespace, name = labels.get(meta.LABEL_DATASET_NAMESPACE, ""), labels.get(meta.LABEL_DATASET, "")
        owner = self._cache.get("Dataset", namespace, name)
        return owner is None or owner["metadata"]["uid"] != labels.get(meta.LABEL_DATASET_UID)

    def _dataset(self, namespace: str, name: str) -> Dataset | None:
        raw = self._cache.get("Dataset", namespace, name)
        return Dataset.read(raw) if raw else None

    def _runtime(self, namespace: str, name: str) -> Runtime | None:
        raw = self._cache.get("Runtime", namespace, name)
        return Runtime.read(raw) if raw else None

    def claim(self, subject: Object) -> provisioning.Observed:
        """What a decision on a claim of a StorageClass looks at."""
        namespace, name = subject["metadata"]["namespace"], subject["spec"].get("storageClassName", "")
        claims = self._cache.tagged("PersistentVolumeClaim", namespace, f"class:{name}")
        return provisioning.Observed(
            claim=subject,
            storage_class=self._cache.get("StorageClass", "", name),
            datasets=self._datasets(namespace),
            siblings=tuple(claim for claim in claims if "deletionTimestamp" not in claim["metadata"]),
        )

    def _datasets(self, namespace: str) -> dict[str, Dataset]:
        found = (raw for raw in self._cache.all("Dataset") if raw["metadata"]["namespace"] == namespace)
        return {raw["metadata"]["name"]: Dataset.read(raw) for raw in found}

    def runtimes_on_nodes(self) -> Object:
        """Which Runtimes may have folders on nodes, as node plugins are told."""
        datasets = {(raw["metadata"]["namespace"], raw["metadata"]["name"]) for raw in self._cache.all("Dataset")}
        return runtimes_on_nodes(map(Runtime.read, self._cache.all("Runtime")), datasets)

    def _pods(self, namespace: str, name: str) -> tuple[pods.WorkerPod, ...]:
        return tuple(pods.read(raw) for raw in self._cache.tagged("Pod", namespace, f"worker:{name}"))

    def _using(self, namespace: str, name: str) -> list[Object]:
        """The pods that use a Dataset: by the claim of its name, by one that a volume was made for, or without any."""
        volumes = self._cache.tagged("PersistentVolume", "", f"dataset:{namespace}/{name}")
        claims = {name, *(volume["spec"]["claimRef"]["name"] for volume in volumes if volume["spec"].get("claimRef"))}
        tags = [*(f"claim:{claim}" for claim in sorted(claims)), f"inline:{name}"]
        found = [pod for tag in tags for pod in self._cache.tagged("Pod", namespace, tag)]
        # A pod that has several of them is one pod.
        return list({pod["metadata"]["name"]: pod for pod in found}.values())

    def _users(self, namespace: str, name: str) -> list[Object]:
        """The unfinished ones of them."""
        found = self._using(namespace, name)
        return [pod for pod in found if pod["status"].get("phase") not in ("Succeeded", "Failed")]

    def _reading_nodes(self, namespace: str, name: str) -> int:
        """How many nodes have pods that use a Dataset's claim."""
        return len({pod["spec"].get("nodeName", "") for pod in self._users(namespace, name)} - {""})

    def workers(self, namespace: str, name: str) -> WorkerFacts | None:
        """How to reach the running workers of a Runtime; None when there is no Dataset or key yet."""
        raw, secret = self._cache.get("Dataset", namespace, name), self._access(namespace, name)
        if raw is None or secret is None:
            return None
        addresses = {pod.name: pod.address for pod in self._pods(namespace, name) if pod.address and pod.running}
        key = _text(secret, KEYS_FILE).split()[0].encode()
        return WorkerFacts(
            dataset_uid=raw["metadata"]["uid"], key=key, addresses=addresses,
            host=names.worker_service_host(name, namespace), authority=_text(secret, AUTHORITY_FILE),
        )  # fmt: skip

    def _access(self, namespace: str, name: str) -> Object | None:
        secret = self._cache.get("Secret", namespace, names.access_secret(name))
        return secret if secret and KEYS_FILE in secret.get("data", {}) else None

    async def runtime(self, subject: Object, reports: Mapping[str, WorkerStatus], image: str) -> runtime.Observed:
        """What a decision on the Runtime looks at."""
        seen = Runtime.read(subject)
        namespace, name = seen.metadata.namespace, seen.metadata.name
        secret = self._access(namespace, name)
        return runtime.Observed(
            runtime=seen,
            dataset=self._dataset(namespace, name),
            worker_set=self._cache.get("StatefulSet", namespace, names.worker_set(name)),
            pods=self._pods(namespace, name),
            reports=reports,
            access_revision=secret["metadata"]["resourceVersion"] if secret else "",
            image=image,
            reading_nodes=self._reading_nodes(namespace, name),
        )

    async def dataset(self, subject: Object, reports: Mapping[str, WorkerStatus]) -> dataset.Observed:
        """What a decision on the Dataset looks at."""
        seen = Dataset.read(subject)
        namespace, name = seen.metadata.namespace, seen.metadata.name
        if seen.deleting:
            await self._confirm_what_holds(seen)
        credentials, problems = await self._credentials.of(seen)
        cached_by = self._runtime(namespace, name)
        return dataset.Observed(
            dataset=seen,
            runtime=cached_by,
            credentials=credentials,
            secret_problems=problems,
            keys=None if seen.deleting else await self._keys_of(seen),
            fresh_key=secrets.token_hex(32),
            data_key=await self._data_key_of(seen),
            fresh_data_key=secrets.token_hex(32),
            claim=self._cache.get("PersistentVolumeClaim", namespace, name),
            volume=self._cache.get("PersistentVolume", "", names.volume(seen.metadata.uid)),
            pods=tuple(pod["metadata"]["name"] for pod in self._users(namespace, name)),
            reading_nodes=self._reading_nodes(namespace, name),
            reports=reports,
            certificates=None if seen.deleting else await self._certificates_of(seen, cached_by),
            workers=tuple(pod.name for pod in self._pods(namespace, name) if pod.running and not pod.deleting),
        )

    async def _confirm_what_holds(self, seen: Dataset) -> None:
        """Ask the API server for what keeps a Dataset from going: a watch that only starts tells of no deletion."""
        namespace, name = seen.metadata.namespace, seen.metadata.name
        await self._confirm("PersistentVolumeClaim", self._cache.get("PersistentVolumeClaim", namespace, name))
        await self._confirm(
            "PersistentVolume", self._cache.get("PersistentVolume", "", names.volume(seen.metadata.uid))
        )
        for pod in self._using(namespace, name)[:_PODS_TO_CONFIRM]:
            await self._confirm("Pod", pod)

    async def _confirm(self, kind: str, known: Object | None) -> None:
        """Forget an object that is gone, and take over what is there in its place."""
        if known is None:
            return
        metadata = known["metadata"]
        try:
            live = await self._client.get(KINDS[kind].path(metadata.get("namespace", ""), metadata["name"]))
        except NotFound:
            self._cache.drop(kind, known)
            return
        if live["metadata"]["uid"] != metadata["uid"]:
            self._cache.drop(kind, known)
        self._cache.put(kind, live)

    async def _keys_of(self, seen: Dataset) -> KeySet | None:
        """The Dataset's keys."""
        secret = await self._owned_secret(seen, names.access_secret(seen.metadata.name))
        if secret is None or not _text(secret, KEYS_FILE):
            return None
        note = secret["metadata"].get("annotations", {}).get(meta.ANNOTATION_KEY_ROTATION, "")
        made = datetime.fromisoformat(secret["metadata"]["creationTimestamp"])
        return KeySet.read(_text(secret, KEYS_FILE), note, made)

    async def _data_key_of(self, seen: Dataset) -> str:
        """The key that encrypts tiers; once made it stays, for without it they are cold."""
        secret = None if seen.deleting else await self._owned_secret(seen, names.access_secret(seen.metadata.name))
        return "" if secret is None else _text(secret, DATA_KEY_FILE).strip()

    async def _certificates_of(self, seen: Dataset, cached_by: Runtime | None) -> Certificates | None:
        """What is held or must be made; without a Runtime, what its mounts were told goes on to hold."""
        name = seen.metadata.name
        if cached_by is not None and not cached_by.spec.encrypted:
            return None
        authority = await self._owned_secret(seen, names.authority(name))
        if cached_by is None and authority is None:
            return None
        worker = await self._owned_secret(seen, names.worker_tls(name))
        return in_force(
            _pair(authority, AUTHORITY_FILE, tls.AUTHORITY_KEY),
            _pair(worker, tls.CERTIFICATE, tls.KEY),
            names.worker_service_host(name, seen.metadata.namespace),
            datetime.now(UTC),
        )

    async def _owned_secret(self, seen: Dataset, name: str) -> Object | None:
        """A Secret of the Dataset's own. They are made once: who is asked last for one is the API server."""
        secret = self._cache.get("Secret", seen.metadata.namespace, name)
        if secret is None or "data" not in secret:
            try:
                secret = await self._client.get(KINDS["Secret"].path(seen.metadata.namespace, name))
                self._cache.put("Secret", secret)
            except NotFound:
                return None
        owners = secret["metadata"].get("ownerReferences", ())
        return secret if any(owner["uid"] == seen.metadata.uid for owner in owners) else None

    def dataload(
        self, subject: Object, progress: Mapping[str, LoadProgress], sample: dataload.Sample | None
    ) -> dataload.Observed:
        """What a decision on the DataLoad looks at."""
        seen = DataLoad.read(subject)
        namespace, name = seen.metadata.namespace, seen.spec.dataset
        return dataload.Observed(
            load=seen,
            dataset=self._dataset(namespace, name),
            runtime=self._runtime(namespace, name),
            members=tuple(member.id for member in self.active_members(namespace, name)),
            progress=progress,
            sample=sample,
        )

    def active_members(self, namespace: str, name: str) -> tuple[Member, ...]:
        """The active members of the ring that a Runtime has published."""
        seen = self._runtime(namespace, name)
        members = membership.published(seen).members if seen else ()
        return tuple(member for member in members if member.state is MemberState.ACTIVE)


def _text(secret: Object, name: str) -> str:
    """A part of a Secret; empty when it is not there."""
    return base64.b64decode(secret.get("data", {}).get(name, "")).decode()


def _pair(secret: Object | None, certificate: str, key: str) -> Pair | None:
    return None if secret is None else Pair(_text(secret, certificate), _text(secret, key))


_SHORTEST_SAMPLE = 2.0


def sample(seen: dataload.Observed, now: datetime) -> dataload.Sample | None:
    """The figures that the next look measures its speed against: not too fresh, or the speed would jump about."""
    former = seen.sample
    if not seen.progress:
        return None
    if former is not None and (now - former.at).total_seconds() < _SHORTEST_SAMPLE:
        return former
    return dataload.Sample(at=now, loaded_bytes=dataload.loaded(seen))
