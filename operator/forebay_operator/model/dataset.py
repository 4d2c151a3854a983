"""The Dataset, as crds/dataset.yaml defines it, and the document that the data path gets of it."""

import re
from typing import ClassVar, Literal

from pydantic import Field

from forebay_operator.model import quantity
from forebay_operator.model.conditions import Condition
from forebay_operator.model.resource import Model, NodeAffinity, Resource, Toleration
from forebay_protocol.dataset import DatasetDocument, MountSpec, SourceLimits

_UNITS = {"h": 3600, "m": 60, "s": 1}


_ON_OPEN_SECONDS = 60.0
"""Between listings where each open asks for its file anyway: for files that are new."""


class SecretRef(Model):
    """A Secret of the same namespace."""

    name: str


class Limits(Model):
    """What workers and nodes together may ask of a store."""

    bandwidth: str | None = None
    requests_per_second: int | None = None
    connections: int | None = None

    def of_source(self) -> SourceLimits:
        """The limits as the data path reads them."""
        return SourceLimits(
            bandwidth=quantity.to_bytes(self.bandwidth) if self.bandwidth else 0,
            requests_per_second=self.requests_per_second or 0,
            connections=self.connections or 0,
        )


class Mount(Model):
    """One source of the Dataset."""

    name: str
    source: str
    path: str | None = None
    endpoint: str | None = None
    region: str | None = None
    addressing: Literal["path", "virtual"] = "path"
    ca_bundle: str | None = None
    requester_pays: bool = False
    manifest: str | None = None
    credentials_secret_ref: SecretRef | None = None
    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] | None = None
    limits: Limits | None = None

    @property
    def effective_path(self) -> str:
        """Where the source shows in the volume."""
        return self.path or f"/{self.name}"

    @property
    def claim(self) -> str | None:
        """The claim of the Dataset's namespace that the source is, if it is one."""
        scheme, _, rest = self.source.partition("://")
        return rest.partition("/")[0] if scheme == "pvc" else None


class Refresh(Model):
    """How the listing follows the source."""

    interval: str = "60s"

    @property
    def on_open(self) -> bool:
        """Whether each open asks the source."""
        return self.interval == "OnOpen"

    @property
    def seconds(self) -> float | None:
        """The interval between listings; None for Never."""
        if self.interval == "Never":
            return None
        if self.on_open:
            return _ON_OPEN_SECONDS
        return float(sum(int(n) * _UNITS[unit] for n, unit in re.findall(r"([0-9]+)([hms])", self.interval)))


class Owner(Model):
    """Owner and permissions that files show."""

    uid: int = 0
    gid: int = 0
    file_mode: int = 0o444
    dir_mode: int = 0o555


class DatasetSpec(Model):
    """What the user wants to see."""

    mounts: tuple[Mount, ...]
    refresh: Refresh = Refresh()
    node_affinity: NodeAffinity | None = None
    tolerations: tuple[Toleration, ...] | None = None
    placement: Literal["Shared", "Exclusive"] = "Shared"
    owner: Owner = Owner()

    @property
    def claims(self) -> tuple[str, ...]:
        """The claims that mounts are read from, each once."""
        return tuple(dict.fromkeys(mount.claim for mount in self.mounts if mount.claim))


class MountStatus(Model):
    """A mount as it is served."""

    name: str
    source: str
    path: str
    problem: str | None = None


class DatasetStatus(Model):
    """What is so now."""

    observed_generation: int | None = None
    phase: str | None = None
    total_bytes: int | None = None
    total_size: str | None = None
    file_count: int | None = None
    cached_bytes: int | None = None
    cached_size: str | None = None
    cached_percent: int | None = None
    cache_capacity_bytes: int | None = None
    cache_capacity: str | None = None
    hit_ratio: int | None = None
    generation: int | None = None
    indexed_at: str | None = None
    bound_runtime: str | None = None
    mounts: tuple[MountStatus, ...] | None = None
    conditions: tuple[Condition, ...] | None = None


class Dataset(Resource):
    """A Dataset."""

    KIND: ClassVar[str] = "Dataset"
    spec: DatasetSpec
    status: DatasetStatus = Field(default_factory=DatasetStatus)

    @property
    def limited(self) -> bool:
        """Whether any mount has limits."""
        return any(mount.limits for mount in self.spec.mounts)

    def document(self) -> DatasetDocument:
        """What workers and node plugins need to know."""
        spec, owner = self.spec, self.spec.owner
        return DatasetDocument(
            uid=self.metadata.uid,
            namespace=self.metadata.namespace,
            name=self.metadata.name,
            mounts=tuple(
                MountSpec(
                    name=mount.name, source=mount.source, path=mount.effective_path, endpoint=mount.endpoint or "",
                    region=mount.region or "", addressing=mount.addressing, ca_bundle=mount.ca_bundle or "",
                    requester_pays=mount.requester_pays, manifest=mount.manifest or "",
                    include=mount.include or (), exclude=mount.exclude or (),
                    limits=(mount.limits or Limits()).of_source(),
                )
                for mount in spec.mounts
            ),
            refresh_seconds=spec.refresh.seconds,
            on_open=spec.refresh.on_open,
            owner_uid=owner.uid,
            owner_gid=owner.gid,
            file_mode=owner.file_mode,
            dir_mode=owner.dir_mode,
        )  # fmt: skip
