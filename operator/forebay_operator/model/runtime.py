"""The Runtime, as crds/runtime.yaml defines it."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from forebay_operator.model import quantity
from forebay_operator.model.conditions import Condition
from forebay_operator.model.resource import Model, Resource, Toleration


class EmptyDir(Model):
    """A folder that lives as long as the pod."""

    size_limit: str | None = None


class HostPath(Model):
    """Folders of the node."""

    paths: tuple[str, ...]


class VolumeClaimTemplate(Model):
    """A claim per worker."""

    storage_class_name: str | None = None
    storage: str


class TierVolume(Model):
    """Where a tier lives: exactly one of the three."""

    empty_dir: EmptyDir | None = None
    host_path: HostPath | None = None
    volume_claim_template: VolumeClaimTemplate | None = None


class Tier(Model):
    """One tier of every worker."""

    medium: Literal["Memory", "SSD", "HDD"]
    quota: str
    volume: TierVolume | None = None
    high_watermark: int = 95
    low_watermark: int = 85
    encryption: Literal["Disabled", "Required"] = "Disabled"

    @property
    def quota_bytes(self) -> int:
        """The quota in bytes."""
        return quantity.to_bytes(self.quota)

    @property
    def host_path(self) -> HostPath | None:
        """The node's folders, when the tier lives in such."""
        return self.volume.host_path if self.volume else None

    @property
    def claim(self) -> VolumeClaimTemplate | None:
        """The claim template, when the tier lives in claims."""
        return self.volume.volume_claim_template if self.volume else None

    @property
    def shares_the_nodes_disk(self) -> bool:
        """Whether it lives where the kubelet watches the free space."""
        return self.medium != "Memory" and not self.lasts

    @property
    def lasts(self) -> bool:
        """Whether it outlives its pod."""
        return self.host_path is not None or self.claim is not None

    @property
    def size_limit_bytes(self) -> int:
        """The size of an emptyDir: the user's, else the quota and room for what a file system adds."""
        if self.volume and self.volume.empty_dir and self.volume.empty_dir.size_limit:
            return quantity.to_bytes(self.volume.empty_dir.size_limit)
        return self.quota_bytes + self.quota_bytes // 32 + (16 << 20)


class Resources(Model):
    """Requests and limits without the tiers."""

    requests: dict[str, str | int] | None = None
    limits: dict[str, str | int] | None = None


class PodMetadata(Model):
    """Labels and annotations for worker pods."""

    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class RuntimeSpec(Model):
    """How many workers, on what."""

    replicas: int = 1
    layout: Literal["Sharded", "Replicated"] = "Sharded"
    tls: Literal["Disabled", "Required"] = "Disabled"
    tiers: tuple[Tier, ...]
    resources: Resources | None = None
    pod_metadata: PodMetadata | None = None
    node_selector: dict[str, str] | None = None
    affinity: dict[str, Any] | None = None
    tolerations: tuple[Toleration, ...] | None = None
    priority_class_name: str | None = None
    service_account_name: str | None = None

    @property
    def encrypted(self) -> bool:
        """Whether workers speak TLS."""
        return self.tls == "Required"

    @property
    def needs_data_key(self) -> bool:
        """Whether a tier is encrypted."""
        return any(tier.encryption == "Required" for tier in self.tiers)

    @property
    def uses_node_folders(self) -> bool:
        """Whether any tier lives in a folder of the node."""
        return any(tier.host_path for tier in self.tiers)

    @property
    def quota_bytes(self) -> int:
        """What one worker may store."""
        return sum(tier.quota_bytes for tier in self.tiers)


class WorkerRow(Model):
    """A member of the ring. The rows are the published ring, so that a restarted operator knows it."""

    id: str
    address: str
    pod_uid: Annotated[str, Field(alias="podUID")]
    node: str | None = None
    zone: str | None = None
    state: Literal["joining", "active", "draining"]
    capacity: int | None = None
    epoch: int | None = None
    cached_bytes: int | None = None


class RuntimeStatus(Model):
    """What is so now."""

    observed_generation: int | None = None
    phase: str | None = None
    replicas: int | None = None
    ready_replicas: int | None = None
    selector: str | None = None
    ring_epoch: int | None = None
    layout: str | None = None
    readers: int | None = None
    cache_capacity_bytes: int | None = None
    cache_capacity: str | None = None
    held_bytes: int | None = None
    held_size: str | None = None
    workers: tuple[WorkerRow, ...] | None = None
    conditions: tuple[Condition, ...] | None = None


class Runtime(Resource):
    """A Runtime."""

    KIND: ClassVar[str] = "Runtime"
    spec: RuntimeSpec
    status: RuntimeStatus = Field(default_factory=RuntimeStatus)
