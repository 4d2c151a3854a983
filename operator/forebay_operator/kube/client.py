"""A thin client: plain dictionaries over the Kubernetes library's connection and authentication."""

import json
import os
from collections.abc import Callable
from typing import Any, cast

import aiohttp
from kubernetes.aio import client as kubernetes
from kubernetes.aio import config

from forebay_operator.kube.errors import KubeError, NotLeader, from_response
from forebay_operator.metrics import WRITES

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
_TIMEOUT = aiohttp.ClientTimeout(total=30, connect=10)


async def connect() -> Any:
    """A connection by KUBECONFIG if that is set, else by the pod's service account."""
    # The library's types are partial; nothing of it leaves this module.
    configuration, loader = kubernetes.Configuration(), cast(Any, config)
    if os.environ.get("KUBECONFIG"):
        await loader.load_kube_config(os.environ["KUBECONFIG"], client_configuration=configuration)
    else:
        loader.load_incluster_config(client_configuration=configuration)
    return kubernetes.ApiClient(configuration)


async def image_of(client: "Client", namespace: str, pod: str) -> str:
    """The image of a pod's first container."""
    raw = await client.get(f"/api/v1/namespaces/{namespace}/pods/{pod}")
    return str(raw["spec"]["containers"][0]["image"])


class Client:
    """Requests to the API server. ``may_write`` is asked before each one that changes something."""

    def __init__(self, connection: Any, may_write: Callable[[], bool]) -> None:
        self._connection = connection
        self._may_write = may_write

    async def close(self) -> None:
        """Close the connections."""
        await self._connection.close()

    async def get(self, path: str, **query: str) -> dict[str, Any]:
        """Read an object or a list."""
        return await self.send("GET", path, query=query)

    async def write(
        self, method: str, path: str, body: Any = None, content: str = "application/json", **query: str
    ) -> dict[str, Any]:
        """Change something; NotLeader when we must not any more."""
        if not self._may_write():
            raise NotLeader("the Lease is lost")
        WRITES.labels(method).inc()
        return await self.send(method, path, body=body, content=content, query=query)

    async def send(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        content: str = "application/json",
        query: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """One request; every answer but success becomes a KubeError."""
        request = await self._connection.param_serialize(
            method,
            path,
            query_params=list((query or {}).items()),
            header_params={"Accept": "application/json", "Content-Type": content},
            auth_settings=["BearerToken"],
        )
        method, url, headers, _, _ = request
        try:
            answer = await self._connection.rest_client.request(
                method, url, headers=headers, body=body, _request_timeout=_TIMEOUT
            )
            data = await answer.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise KubeError(0, "Unreachable", f"the API server does not answer: {error!r}") from error
        if not 200 <= answer.status < 300:
            raise from_response(answer.status, data)
        result: dict[str, Any] = json.loads(data)
        return result
