"""The worker's tiers as volumes, mounts and command-line arguments.

A tier in a claim or on the node outlives the pod, so the worker's state lives beside the first such tier: a
catalogue without its chunks, or chunks without their catalogue, would be of no use.
"""

from dataclasses import dataclass
from typing import Any

from forebay_operator.model.runtime import Runtime, Tier
from forebay_protocol.volume import DRIVER_NAME, RUNTIME_UID, TIER_FOLDERS, TIER_PATH

TIERS = "/var/lib/forebay/tiers"
STATE = "/var/lib/forebay/state"
ACCESS = "/etc/forebay/access"
TLS = "/etc/forebay/tls"
_CHUNKS_FOLDER, _STATE_FOLDER = TIER_FOLDERS


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """What the pod template needs for its tiers."""

    volumes: tuple[dict[str, Any], ...]
    mounts: tuple[dict[str, Any], ...]
    claims: tuple[dict[str, Any], ...]
    arguments: tuple[str, ...]


def _argument(index: int, tier: Tier) -> str:
    return (
        f"medium={tier.medium},path={TIERS}/{index},quota={tier.quota_bytes},"
        f"high={tier.high_watermark / 100:g},low={tier.low_watermark / 100:g}"
    )


def _volume(runtime: Runtime, index: int, tier: Tier) -> dict[str, Any] | None:
    name = f"tier-{index}"
    if tier.claim is not None:
        return None
    if tier.host_path is not None:
        # Not a hostPath of the pod: the node plugin makes the folder, hands it to the worker's user, and removes it.
        attributes = {TIER_PATH: tier.host_path.path, RUNTIME_UID: runtime.metadata.uid}
        return {"name": name, "csi": {"driver": DRIVER_NAME, "volumeAttributes": attributes}}
    empty_dir: dict[str, Any] = {"sizeLimit": str(tier.size_limit_bytes)}
    if tier.medium == "Memory":
        empty_dir["medium"] = "Memory"
    return {"name": name, "emptyDir": empty_dir}


def _claim(index: int, tier: Tier) -> dict[str, Any]:
    assert tier.claim is not None
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": tier.claim.storage}},
    }
    if tier.claim.storage_class_name is not None:
        spec["storageClassName"] = tier.claim.storage_class_name
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": f"tier-{index}"}, "spec": spec}


def _mount(index: int, tier: Tier, folder: str, path: str) -> dict[str, Any]:
    mount = {"name": f"tier-{index}", "mountPath": path}
    return {**mount, "subPath": folder} if tier.lasts else mount


def storage(runtime: Runtime) -> Storage:
    """The pod template's share of the tiers."""
    tiers = tuple(enumerate(runtime.spec.tiers))
    lasting = next(((i, tier) for i, tier in tiers if tier.lasts), None)
    volumes = [volume for i, tier in tiers if (volume := _volume(runtime, i, tier)) is not None]
    mounts = [_mount(i, tier, _CHUNKS_FOLDER, f"{TIERS}/{i}") for i, tier in tiers]
    if lasting is None:
        volumes.append({"name": "state", "emptyDir": {}})
        mounts.append({"name": "state", "mountPath": STATE})
    else:
        mounts.append(_mount(*lasting, _STATE_FOLDER, STATE))
    return Storage(
        volumes=tuple(volumes),
        mounts=tuple(mounts),
        claims=tuple(_claim(i, tier) for i, tier in tiers if tier.claim),
        arguments=tuple(word for i, tier in tiers for word in ("--tier", _argument(i, tier))),
    )
