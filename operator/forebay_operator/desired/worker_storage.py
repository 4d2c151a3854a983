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


NODE_RESERVE = 0.18
"""Share of the node's disk that a tier there leaves free: below 15 % the kubelet evicts pods, as it comes."""


def _folders(index: int, tier: Tier) -> list[str]:
    """The names of the tier's volumes: one for each of its folders."""
    more = len(tier.host_path.paths) - 1 if tier.host_path is not None else 0
    return [f"tier-{index}", *(f"tier-{index}-{number + 1}" for number in range(more))]


def _path(name: str) -> str:
    return f"{TIERS}/{name.removeprefix('tier-')}"


def _argument(index: int, tier: Tier) -> str:
    parts = [
        f"medium={tier.medium}",
        *(f"path={_path(name)}" for name in _folders(index, tier)),
        f"quota={tier.quota_bytes}",
        f"high={tier.high_watermark / 100:g}",
        f"low={tier.low_watermark / 100:g}",
        *([f"reserve={NODE_RESERVE:g}"] if tier.shares_the_nodes_disk else []),
        *(["encrypted=yes"] if tier.encryption == "Required" else []),
    ]
    return ",".join(parts)


def _volumes(runtime: Runtime, index: int, tier: Tier) -> list[dict[str, Any]]:
    if tier.claim is not None:
        return []
    if tier.host_path is not None:
        # Not hostPaths of the pod: the node plugin makes the folders for the worker's user, and removes them.
        return [
            {
                "name": name,
                "csi": {
                    "driver": DRIVER_NAME,
                    "volumeAttributes": {TIER_PATH: path, RUNTIME_UID: runtime.metadata.uid},
                },
            }
            for name, path in zip(_folders(index, tier), tier.host_path.paths, strict=True)
        ]
    empty_dir: dict[str, Any] = {"sizeLimit": str(tier.size_limit_bytes)}
    if tier.medium == "Memory":
        empty_dir["medium"] = "Memory"
    return [{"name": f"tier-{index}", "emptyDir": empty_dir}]


def _claim(index: int, tier: Tier) -> dict[str, Any]:
    assert tier.claim is not None
    spec: dict[str, Any] = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": tier.claim.storage}},
    }
    if tier.claim.storage_class_name is not None:
        spec["storageClassName"] = tier.claim.storage_class_name
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": f"tier-{index}"}, "spec": spec}


def _mount(name: str, tier: Tier, folder: str, path: str) -> dict[str, Any]:
    mount = {"name": name, "mountPath": path}
    return {**mount, "subPath": folder} if tier.lasts else mount


def storage(runtime: Runtime) -> Storage:
    """The pod template's share of the tiers."""
    tiers = tuple(enumerate(runtime.spec.tiers))
    lasting = next(((f"tier-{i}", tier) for i, tier in tiers if tier.lasts), None)
    volumes = [volume for i, tier in tiers for volume in _volumes(runtime, i, tier)]
    mounts = [_mount(name, tier, _CHUNKS_FOLDER, _path(name)) for i, tier in tiers for name in _folders(i, tier)]
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
