"""A minimal client of the API server for our own waiting: kubectl takes longer to start than most answers take."""

import http.client
import json
import ssl
from pathlib import Path
from typing import Any

from testkit.settings import Settings


class ApiUnavailable(RuntimeError):
    """The API server does not answer, or answers with an error."""


class Api:
    """Requests as the cluster's administrator."""

    def __init__(self, settings: Settings, certificates: Path) -> None:
        self._settings = settings
        self._certificates = certificates

    def request(self, method: str, path: str, *, timeout: float = 5.0) -> tuple[int, bytes]:
        """Send a request without a body; return status and answer."""
        s = self._settings
        try:
            context = ssl.create_default_context(cafile=str(self._certificates / "ca.crt"))
            context.load_cert_chain(self._certificates / "admin.crt", self._certificates / "admin.key")
            connection = http.client.HTTPSConnection(
                str(s.bridge_address), s.api_port, timeout=timeout, context=context
            )
            try:
                connection.request(
                    method, path, headers={"Accept": "application/json", "User-Agent": "forebay-testkit"}
                )
                answer = connection.getresponse()
                return answer.status, answer.read()
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as cause:
            raise ApiUnavailable(f"{s.api_url}{path}: {cause}") from cause

    def ready(self) -> bool:
        """Tell whether the API server says that it is ready."""
        try:
            return self.request("GET", "/readyz", timeout=2.0)[0] == 200
        except ApiUnavailable:
            return False

    def get(self, path: str) -> dict[str, Any]:
        """Read one object or list."""
        status, body = self.request("GET", path)
        if status != 200:
            raise ApiUnavailable(f"GET {path} gave {status}")
        document: dict[str, Any] = json.loads(body)
        return document

    def delete(self, path: str) -> None:
        """Delete an object; one that is gone is fine."""
        status, _ = self.request("DELETE", path)
        if status not in {200, 202, 404}:
            raise ApiUnavailable(f"DELETE {path} gave {status}")

    def ready_nodes(self) -> set[str]:
        """The names of the nodes that are Ready."""
        nodes = self.get("/api/v1/nodes")["items"]
        return {node["metadata"]["name"] for node in nodes if condition(node, "Ready")}


def condition(document: dict[str, Any], kind: str) -> bool:
    """Tell whether a condition of an object is True."""
    conditions = document.get("status", {}).get("conditions", [])
    return any(one["type"] == kind and one["status"] == "True" for one in conditions)
