"""One event, one entry of the cache."""

from typing import Any

import kopf

from forebay_operator.app import App
from forebay_operator.kube.kinds import KINDS


def watch(registry: kopf.OperatorRegistry, kind: str, handler: Any) -> None:
    """Call the handler for every event of a kind."""
    about = KINDS[kind]
    kopf.on.event(about.group, about.version, about.plural, id=kind.lower(), registry=registry)(handler)


def remember(memo: App, kind: str, event: Any) -> dict[str, Any]:
    """Bring the cache up to date; the object as the API server shows it."""
    raw = dict(event["object"])
    if event["type"] == "DELETED":
        memo.cache.drop(kind, raw)
    else:
        memo.cache.put(kind, raw)
    return raw
