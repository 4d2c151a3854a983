"""Fill the cache from lists: before the first decision, and now and then to find what a watch has missed."""

from forebay_operator.kube.cache import Cache, version
from forebay_operator.kube.client import Client
from forebay_operator.kube.kinds import KINDS
from forebay_operator.model.resource import Object

_PAGE = "500"


async def synchronise(client: Client, cache: Cache) -> list[tuple[str, Object]]:
    """Make the cache agree with the API server; answers what had gone unnoticed, kind and object."""
    missed: list[tuple[str, Object]] = []
    for kind in KINDS:
        missed += [(kind, raw) for raw in await _synchronise_kind(client, cache, kind)]
    return missed


async def _synchronise_kind(client: Client, cache: Cache, kind: str) -> list[Object]:
    before = list(cache.all(kind))
    seen: set[str] = set()
    newest, token = 0, ""
    while True:
        query = {"limit": _PAGE, **({"continue": token} if token else {})}
        if KINDS[kind].selector:
            query["labelSelector"] = KINDS[kind].selector
        page = await client.get(KINDS[kind].path(), **query)
        newest = newest or int(page["metadata"]["resourceVersion"])
        for item in page["items"]:
            seen.add(item["metadata"]["uid"])
            # Items of a list do not say what they are; the list does.
            cache.put(kind, {"apiVersion": page["apiVersion"], "kind": kind, **item})
        token = page["metadata"].get("continue", "")
        if not token:
            break
    # An object that is newer than the list may have been created since.
    gone = [raw for raw in before if raw["metadata"]["uid"] not in seen and version(raw) <= newest]
    for raw in gone:
        cache.drop(kind, raw)
    return gone
