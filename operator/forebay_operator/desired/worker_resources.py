"""What a worker pod asks of its node: its own needs plus the tiers that live in its memory and on the node's disk."""

from typing import Any

from forebay_operator.model import quantity
from forebay_operator.model.runtime import RuntimeSpec

_DEFAULT_REQUESTS: dict[str, str | int] = {"cpu": "100m", "memory": "512Mi", "ephemeral-storage": "256Mi"}
_DEFAULT_LIMITS: dict[str, str | int] = {"memory": "512Mi", "ephemeral-storage": "256Mi"}


def _tier_bytes(spec: RuntimeSpec) -> dict[str, int]:
    memory = sum(tier.size_limit_bytes for tier in spec.tiers if tier.medium == "Memory")
    disk = sum(tier.size_limit_bytes for tier in spec.tiers if tier.medium != "Memory" and not tier.lasts)
    return {"memory": memory, "ephemeral-storage": disk}


def _raised(amounts: dict[str, str | int], tiers: dict[str, int]) -> dict[str, str]:
    return {
        name: str(quantity.to_bytes(amount) + tiers[name]) if name in tiers else str(amount)
        for name, amount in amounts.items()
    }


def resources(spec: RuntimeSpec) -> dict[str, Any]:
    """Requests and limits of the worker container."""
    given = spec.resources
    limits = {**_DEFAULT_LIMITS, **((given and given.limits) or {})}
    requests = {**_DEFAULT_REQUESTS, **((given and given.requests) or {})}
    for name in _DEFAULT_LIMITS:
        # A user who gives only one of the pair means both: a default must not contradict it.
        if not (given and given.limits and name in given.limits):
            limits[name] = max(limits[name], requests[name], key=quantity.parse)
        if not (given and given.requests and name in given.requests):
            requests[name] = min(limits[name], requests[name], key=quantity.parse)
    tiers = _tier_bytes(spec)
    return {"requests": _raised(requests, tiers), "limits": _raised(limits, tiers)}
