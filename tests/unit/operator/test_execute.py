"""What a plan makes the operator write: only differences, only to what is ours."""

import asyncio
from typing import Any

from typing_extensions import override

from forebay_operator.kube.cache import Cache
from forebay_operator.kube.client import Client
from forebay_operator.kube.execute import Executor
from forebay_operator.reconcile.plan import Plan

SUBJECT: dict[str, Any] = {
    "metadata": {"name": "demo", "namespace": "ns", "uid": "d", "resourceVersion": "5", "finalizers": ["other/one"]},
    "status": {"phase": "Ready"},
}
CHILD = {
    "kind": "Service",
    "metadata": {"name": "demo", "namespace": "ns", "ownerReferences": [{"uid": "d"}]},
    "spec": {"clusterIP": "None"},
}


class Server(Client):
    """Answers as an API server that fills in what it does not get; ``writes`` are what was sent."""

    def __init__(self) -> None:
        super().__init__(None, lambda: True)
        self.writes: list[tuple[str, str, Any]] = []

    @override
    async def send(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        content: str = "application/json",
        query: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """Note the request."""
        self.writes.append((method, path, body))
        metadata = {**SUBJECT["metadata"], **body["metadata"]}
        return {**body, "metadata": metadata, "spec": {"mounts": [], "type": "ClusterIP", **body.get("spec", {})}}


def execute(server: Server, cache: Cache, plan: Plan) -> tuple[str, ...]:
    """Carry the plan out for a Dataset."""
    return asyncio.run(Executor(server, cache).execute(SUBJECT, "Dataset", plan))


def test_what_is_as_wanted_is_not_written() -> None:
    """The first pass writes; the second, with the API server's defaults in the objects, writes nothing."""
    server, cache = Server(), Cache()
    plan = Plan(apply=(CHILD,), status={"phase": "Ready"})

    execute(server, cache, plan)
    execute(server, cache, plan)

    assert [(method, path.rsplit("/", 2)[1]) for method, path, _ in server.writes] == [("PATCH", "services")]


def test_an_object_of_somebody_else_is_refused() -> None:
    """It is named, and nothing is sent."""
    server, cache = Server(), Cache()
    foreign = {"name": "demo", "namespace": "ns", "uid": "f", "resourceVersion": "1"}
    cache.put("Service", {"kind": "Service", "metadata": foreign})

    refused = execute(server, cache, Plan(apply=(CHILD,)))

    assert len(refused) == 1
    assert "Service demo: exists already" in refused[0]
    assert server.writes == []


def test_finalizers_of_others_stay() -> None:
    """Ours is added to theirs, and taken from among them, each time only in the version that was seen."""
    server, cache = Server(), Cache()

    execute(server, cache, Plan(hold=True))
    execute(server, cache, Plan(release=True))

    sent = [body["metadata"] for _, _, body in server.writes]
    assert [one["finalizers"] for one in sent] == [["other/one", "forebay.io/volume"], ["other/one"]]
    assert [one["resourceVersion"] for one in sent] == ["5", "5"]
