"""The kopf edge: an event becomes an entry of the cache and a key in the queue. No logic here."""

import kopf

from forebay_operator.handlers import children, lifecycle, resources


def register(registry: kopf.OperatorRegistry) -> None:
    """Register all handlers."""
    lifecycle.register(registry)
    resources.register(registry)
    children.register(registry)
