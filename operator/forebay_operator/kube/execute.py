"""Carry out a plan: the only code that writes to the cluster. A write that would change nothing is not made."""

from datetime import UTC, datetime
from typing import Any

import structlog

from forebay_operator.kube.cache import Cache
from forebay_operator.kube.client import APPLY, MERGE, Client
from forebay_operator.kube.difference import contains, stamped
from forebay_operator.kube.errors import Conflict, NamespaceEnding, NotFound, Refused
from forebay_operator.kube.kinds import CONFIG_MAPS, EVENTS, KINDS
from forebay_operator.model import meta
from forebay_operator.model.resource import Object
from forebay_operator.reconcile.plan import Event, Patch, Plan, Ref

_log = structlog.get_logger()
_MESSAGE_LIMIT = 1000


class Executor:
    """Writes plans, and tells the cache what came of it."""

    def __init__(self, client: Client, cache: Cache) -> None:
        self._client = client
        self._cache = cache

    async def execute(self, subject: Object, kind: str, plan: Plan) -> tuple[str, ...]:
        """Make the plan's writes for the custom resource ``subject``; answers what the API server refused."""
        if plan.hold:
            subject = await self._finalizers(kind, subject, add=True)
        refused = []
        for manifest in plan.apply:
            try:
                await self._apply(manifest)
            except Refused as error:
                refused.append(f"{manifest['kind']} {manifest['metadata']['name']}: {error.message}"[:_MESSAGE_LIMIT])
            except NamespaceEnding:
                return ()
        for patch in plan.patches:
            await self._patch(patch)
        for ref in plan.delete:
            await self.delete(ref)
        await self._status(kind, subject, plan.status)
        for event in plan.events:
            await self.tell(kind, subject, event)
        if plan.release:
            await self._finalizers(kind, subject, add=False)
        return tuple(refused)

    async def _apply(self, manifest: Object) -> None:
        kind, metadata = manifest["kind"], manifest["metadata"]
        live = self._cache.get(kind, metadata.get("namespace", ""), metadata["name"])
        wanted = stamped(manifest)
        if live is not None and contains(live, wanted):
            return
        _refuse_foreign(live, manifest)
        path = KINDS[kind].path(metadata.get("namespace", ""), metadata["name"])
        answer = await self._client.write("PATCH", path, wanted, APPLY, fieldManager=meta.FIELD_MANAGER, force="true")
        self._cache.put(kind, answer)
        _log.info("applied", kind=kind, namespace=metadata.get("namespace", ""), name=metadata["name"])

    async def announce(self, config_map: Object) -> None:
        """Apply a ConfigMap for others to read. We watch none, so the caller knows whether it says anything new."""
        metadata = config_map["metadata"]
        path = CONFIG_MAPS.path(metadata["namespace"], metadata["name"])
        await self._client.write("PATCH", path, config_map, APPLY, fieldManager=meta.FIELD_MANAGER, force="true")

    async def _patch(self, patch: Patch) -> None:
        path = KINDS[patch.ref.kind].path(patch.ref.namespace, patch.ref.name)
        try:
            answer = await self._client.write("PATCH", path, patch.body, MERGE, fieldManager=meta.FIELD_MANAGER)
        except (NotFound, Conflict):
            return  # The object was replaced: its successor is looked at when the watch tells of it.
        self._cache.put(patch.ref.kind, answer)

    async def delete(self, ref: Ref) -> None:
        """Delete an object; that it is gone already is as good."""
        try:
            answer = await self._client.write("DELETE", KINDS[ref.kind].path(ref.namespace, ref.name))
        except NotFound:
            known = self._cache.get(*ref)
            if known is not None:
                self._cache.drop(ref.kind, known)
            return
        if answer.get("kind") == ref.kind:
            self._cache.put(ref.kind, answer)
        _log.info("deleted", kind=ref.kind, namespace=ref.namespace, name=ref.name)

    async def _status(self, kind: str, subject: Object, status: dict[str, Any] | None) -> None:
        if status is None or subject.get("status", {}) == status:
            return
        metadata = subject["metadata"]
        path = KINDS[kind].path(metadata["namespace"], metadata["name"]) + "/status"
        body = {
            "apiVersion": meta.API_VERSION,
            "kind": kind,
            "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
            "status": status,
        }
        try:
            answer = await self._client.write("PATCH", path, body, APPLY, fieldManager=meta.FIELD_MANAGER, force="true")
        except (NotFound, Conflict):
            return  # Deleted or replaced meanwhile; the watch tells.
        self._cache.put(kind, answer)

    async def _finalizers(self, kind: str, subject: Object, *, add: bool) -> Object:
        metadata, ours = subject["metadata"], meta.FINALIZERS[kind]
        others = [name for name in metadata.get("finalizers", ()) if name != ours]
        body = {
            "metadata": {
                # Finalizers of others may come and go: the version guards the list that we replace.
                "resourceVersion": metadata["resourceVersion"],
                "finalizers": [*others, ours] if add else others,
            }
        }
        path = KINDS[kind].path(metadata["namespace"], metadata["name"])
        try:
            answer = await self._client.write("PATCH", path, body, MERGE, fieldManager=meta.FIELD_MANAGER)
        except NotFound:
            return subject
        if add or others:
            self._cache.put(kind, answer)
        return answer

    async def tell(self, kind: str, subject: Object, event: Event) -> None:
        """Write an event about an object."""
        metadata, now = subject["metadata"], datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{metadata['name']}.", "namespace": metadata["namespace"]},
            "involvedObject": {
                "apiVersion": KINDS[kind].api_version, "kind": kind, "name": metadata["name"],
                "namespace": metadata["namespace"], "uid": metadata["uid"],
            },
            "type": event.type,
            "reason": event.reason,
            "message": event.message[:_MESSAGE_LIMIT],
            "source": {"component": meta.FIELD_MANAGER},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }  # fmt: skip
        try:
            await self._client.write("POST", EVENTS.path(metadata["namespace"]), body)
        except NamespaceEnding:
            return


def _refuse_foreign(live: Object | None, manifest: Object) -> None:
    """An object of the name that belongs to someone else is not taken over."""
    owners = [owner["uid"] for owner in manifest["metadata"].get("ownerReferences", ())]
    if live is None or not owners:
        return
    if not any(owner["uid"] in owners for owner in live["metadata"].get("ownerReferences", ())):
        raise Refused(409, "NameTaken", "exists already and belongs to someone else: delete it, or choose another name")
