"""Which Runtimes node plugins are told of."""

import json
from typing import Any

from forebay_operator.desired.node_folders import runtimes_on_nodes
from forebay_operator.model.runtime import Runtime
from forebay_protocol.volume import RUNTIMES_FILE


def runtime(name: str, *, host_path: bool = True, replicas: int = 2, **metadata: Any) -> Runtime:
    """A Runtime whose UID is its name."""
    volume = {"volume": {"hostPath": {"paths": ["/ssd"]}}} if host_path else {}
    return Runtime.read(
        {
            "metadata": {"name": name, "namespace": "ml", "uid": name, "generation": 1, **metadata},
            "spec": {"replicas": replicas, "tiers": [{"medium": "SSD", "quota": "1Gi", **volume}]},
        }
    )


def test_who_may_have_folders() -> None:
    """Runtimes with hostPath tiers and a Dataset; neither those on their way out nor those without either."""
    runtimes = [
        runtime("kept", replicas=3),
        runtime("asleep", replicas=0),
        runtime("elsewhere", host_path=False),
        runtime("leaving", deletionTimestamp="2026-01-01T00:00:00Z"),
        runtime("bare"),
    ]
    datasets = {("ml", name) for name in ("kept", "asleep", "elsewhere", "leaving")} | {("other", "bare")}

    told = runtimes_on_nodes(runtimes, datasets)

    assert json.loads(told["data"][RUNTIMES_FILE]) == {"kept": 3, "asleep": 0}
    assert told["metadata"]["namespace"] == "forebay-node"
