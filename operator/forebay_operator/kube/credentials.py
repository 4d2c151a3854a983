"""Credentials of mounts from the Secrets that users name, read again only when they have changed."""

import base64
import binascii
from collections.abc import Mapping
from typing import Any

from forebay_operator.kube.cache import Cache
from forebay_operator.kube.client import Client
from forebay_operator.kube.errors import NotFound
from forebay_operator.kube.kinds import KINDS
from forebay_operator.model.dataset import Dataset
from forebay_protocol.control import Problem
from forebay_protocol.dataset import Credentials

_SPELLINGS = {
    "access_key_id": ("accessKeyId", "AWS_ACCESS_KEY_ID"),
    "secret_access_key": ("secretAccessKey", "AWS_SECRET_ACCESS_KEY"),
    "session_token": ("sessionToken", "AWS_SESSION_TOKEN"),
}


def parse(data: Mapping[str, str]) -> Credentials:
    """Credentials of a Secret's data; ValueError names the key that is missing, and no value."""
    values: dict[str, str] = {}
    for field, keys in _SPELLINGS.items():
        key = next((key for key in keys if data.get(key)), None)
        if key is None:
            if field != "session_token":
                raise ValueError(f"has no key {keys[0]} (or {keys[1]})")
            continue
        try:
            values[field] = base64.b64decode(data[key], validate=True).decode().strip()
        except (binascii.Error, UnicodeDecodeError):
            raise ValueError(f"has a key {key} that is not text") from None
    return Credentials(**values)


class CredentialsReader:
    """Reads the Secrets of Datasets."""

    def __init__(self, client: Client, cache: Cache) -> None:
        self._client = client
        self._cache = cache
        self._read: dict[tuple[str, str], tuple[str, Credentials | str]] = {}

    async def of(self, dataset: Dataset) -> tuple[dict[str, Credentials], tuple[Problem, ...]]:
        """Credentials by mount, and what is wrong with those that have none although they name a Secret."""
        found: dict[str, Credentials] = {}
        problems = []
        for mount in dataset.spec.mounts:
            if mount.credentials_secret_ref is None:
                continue
            name = mount.credentials_secret_ref.name
            answer = await self._of_secret(dataset.metadata.namespace, name)
            if isinstance(answer, Credentials):
                found[mount.name] = answer
            elif answer is None:
                message = f"there is no Secret {name} in this namespace: create it with accessKeyId and secretAccessKey"
                problems.append(Problem(reason="SecretNotFound", message=message, mount=mount.name))
            else:
                message = f"the Secret {name} {answer}: add it"
                problems.append(Problem(reason="InvalidSecret", message=message, mount=mount.name))
        return found, tuple(problems)

    async def _of_secret(self, namespace: str, name: str) -> Credentials | str | None:
        known = self._cache.get("Secret", namespace, name)
        if known is None:
            self._read.pop((namespace, name), None)
            return None
        revision = known["metadata"]["resourceVersion"]
        former = self._read.get((namespace, name))
        if former is not None and former[0] == revision:
            return former[1]
        try:
            raw: dict[str, Any] = await self._client.get(KINDS["Secret"].path(namespace, name))
        except NotFound:
            return None
        try:
            answer: Credentials | str = parse(raw.get("data") or {})
        except ValueError as error:
            answer = str(error)
        self._read[namespace, name] = (raw["metadata"]["resourceVersion"], answer)
        return answer
