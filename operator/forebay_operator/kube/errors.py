"""What the API server refuses, as errors of our own."""

import json
from typing import Any


class KubeError(Exception):
    """Base of all answers that are not success; ``status`` is the HTTP status, 0 when there was no answer."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        """Keep the API server's own words."""
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class NotFound(KubeError):
    """There is no such object."""


class Conflict(KubeError):
    """The object has changed, or exists already."""


class Refused(KubeError):
    """The object as written is not acceptable: invalid or forbidden. Writing it again will not help."""


class NamespaceEnding(KubeError):
    """The namespace is being deleted: nothing can be created in it, and nothing needs to be."""


class NotLeader(Exception):
    """We do not hold the Lease any more: nothing may be written."""


def from_response(status: int, body: bytes) -> KubeError:
    """The error that a response stands for."""
    reason, message, causes = "", body[:500].decode("utf-8", "replace"), []
    try:
        answer: Any = json.loads(body)
        reason, message = str(answer.get("reason", "")), str(answer.get("message", ""))
        causes = [str(cause.get("reason", "")) for cause in (answer.get("details") or {}).get("causes", ())]
    except (ValueError, AttributeError, TypeError):
        pass  # A proxy's answer is no Status object; its text is kept as the message.
    if "NamespaceTerminating" in causes:
        return NamespaceEnding(status, reason, message)
    kinds: dict[int, type[KubeError]] = {403: Refused, 404: NotFound, 409: Conflict, 422: Refused, 400: Refused}
    return kinds.get(status, KubeError)(status, reason, message)
