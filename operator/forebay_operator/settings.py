"""Settings of the operator, read once from the environment at the edge."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseSettings:
    """Leader election. A holder that was killed is replaced after ``duration`` and at most one ``retry``."""

    name: str = "forebay-operator"
    duration: float = 10.0
    """Seconds for which a renewal gives the right to write."""
    renew: float = 2.0
    """Seconds between renewals."""
    retry: float = 2.0
    """Seconds between looks of one who waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the operator is told at its start."""

    identity: str
    """Who holds the Lease: the pod's name."""
    namespace: str
    """Namespace of the Lease."""
    worker_image: str
    """Image of the worker pods; empty for the operator's own."""
    health_port: int = 8080
    """TCP port of the liveness endpoint; 0 for none."""
    concurrency: int = 8
    """How many objects are reconciled at the same time."""
    first_resync: float = 15.0
    """Seconds from the lead to the first comparison of the caches with the API server: the watches begin after the
    caches were filled, and tell nothing of what was deleted in between."""
    resync: float = 300.0
    """Seconds between comparisons of the caches with the API server."""
    lease: LeaseSettings = LeaseSettings()


def from_environment(environment: Mapping[str, str] = os.environ) -> Settings:
    """Read POD_NAME, POD_NAMESPACE, FOREBAY_WORKER_IMAGE and FOREBAY_HEALTH_PORT; ValueError says what is wrong."""
    image = environment.get("FOREBAY_WORKER_IMAGE", "")
    if not image and not environment.get("POD_NAME"):
        raise ValueError("neither FOREBAY_WORKER_IMAGE nor POD_NAME is set: one of them tells the workers' image")
    return Settings(
        identity=environment.get("POD_NAME") or f"{socket.gethostname()}-{os.getpid()}",
        namespace=environment.get("POD_NAMESPACE") or "default",
        worker_image=image,
        health_port=int(environment.get("FOREBAY_HEALTH_PORT") or 8080),
    )
