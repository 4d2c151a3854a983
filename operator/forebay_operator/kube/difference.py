"""Whether an object already is as we ask for, seen through the defaults that the API server fills in."""

import hashlib
import json
from typing import Any

from forebay_operator.model import meta, quantity


def fingerprint(manifest: dict[str, Any]) -> str:
    """16 hex digits of the manifest: shows that a field has disappeared from it."""
    return hashlib.blake2b(json.dumps(manifest, sort_keys=True).encode(), digest_size=8).hexdigest()


def stamped(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest with its own fingerprint."""
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), meta.ANNOTATION_APPLIED: fingerprint(manifest)}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def contains(live: Any, wanted: Any) -> bool:
    """Whether ``live`` has all that ``wanted`` asks for; lists must agree element by element."""
    if isinstance(wanted, dict):
        if not isinstance(live, dict):
            return not wanted and live is None
        return all(contains(live.get(key), value) for key, value in wanted.items())
    if isinstance(wanted, list):
        if live is None:
            return not wanted
        return isinstance(live, list) and len(live) == len(wanted) and all(map(contains, live, wanted))
    return bool(live == wanted) or quantity.same(live, wanted) or (not wanted and live is None)
