"""What the observer asks the API server itself, because no watch may have told."""

import asyncio
from typing import Any, cast

from forebay_operator.kube.cache import Cache
from forebay_operator.kube.client import Client
from forebay_operator.kube.errors import NotFound
from forebay_operator.kube.observe import Observer

PLACE = {"namespace": "ns", "name": "data"}


class ApiServer:
    """Knows the objects by path; counts what it is asked for."""

    def __init__(self, *objects: tuple[str, dict[str, Any]]) -> None:
        self.objects = dict(objects)
        self.asked: list[str] = []

    async def get(self, path: str) -> dict[str, Any]:
        """An object, or what the API server says when there is none."""
        self.asked.append(path)
        if path not in self.objects:
            raise NotFound(404, "NotFound", path)
        return self.objects[path]


def dataset(**metadata: Any) -> dict[str, Any]:
    """A Dataset without credentials."""
    return {
        "metadata": {**PLACE, "uid": "u", "generation": 1, "finalizers": ["forebay.io/volume"], **metadata},
        "spec": {"mounts": [{"name": "m", "source": "s3://bucket", "path": "/"}]},
    }


def pod(name: str, uid: str) -> dict[str, Any]:
    """A pod that uses the Dataset's claim."""
    return {
        "metadata": {"name": name, "namespace": "ns", "uid": uid, "resourceVersion": "5"},
        "spec": {"volumes": [{"persistentVolumeClaim": {"claimName": "data"}}]},
        "status": {"phase": "Running"},
    }


def filled() -> Cache:
    """All that can hold a Dataset, on its way out."""
    cache = Cache()
    ending = {"resourceVersion": "5", "deletionTimestamp": "2026-01-01T00:00:00Z"}
    cache.put("PersistentVolumeClaim", {"metadata": {**PLACE, "uid": "c", **ending}, "spec": {}})
    cache.put("PersistentVolume", {"metadata": {"name": "forebay-u", "uid": "v", **ending}})
    for name, uid in (("gone", "1"), ("replaced", "2"), ("there", "3")):
        cache.put("Pod", pod(name, uid))
    return cache


def test_deletions_that_no_watch_told_of_are_found() -> None:
    """Claim, volume and pods that are gone hold nobody for longer than one look; those that are there still do."""
    server = ApiServer(
        ("/api/v1/namespaces/ns/pods/there", pod("there", "3")),
        ("/api/v1/namespaces/ns/pods/replaced", {**pod("replaced", "new"), "spec": {"volumes": []}}),
    )
    observer = Observer(cast(Client, server), filled())

    seen = asyncio.run(observer.dataset(dataset(deletionTimestamp="2026-01-01T00:00:00Z"), {}))

    assert (seen.claim, seen.volume, seen.pods) == (None, None, ("there",))


def test_a_dataset_that_stays_costs_no_questions() -> None:
    """The caches are good enough for it."""
    secret = {"metadata": {**PLACE, "uid": "s", "resourceVersion": "5"}}
    server = ApiServer(("/api/v1/namespaces/ns/secrets/data-forebay-access", secret))
    observer = Observer(cast(Client, server), filled())

    seen = asyncio.run(observer.dataset(dataset(), {}))

    assert len(seen.pods) == 3
    assert all("secrets" in path for path in server.asked)
