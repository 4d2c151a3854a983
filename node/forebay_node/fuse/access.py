"""What a mount is given: the dataset, its credentials and its keys. All of it arrives as text, once."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from forebay.tls import ClientTls
from forebay.trust import Trust, TrustHolder
from forebay_protocol import auth
from forebay_protocol.dataset import (
    AUTHORITY_FILE,
    CREDENTIALS_FILE,
    DATASET_FILE,
    KEYS_FILE,
    READERS_FILE,
    Credentials,
    DatasetDocument,
    credentials_from_json,
)
from forebay_protocol.errors import InvalidRequest
from forebay_protocol.volume import worker_host


@dataclass(frozen=True, slots=True)
class Access:
    """A dataset and what opens it. Its repr shows nothing secret."""

    document: DatasetDocument
    credentials: dict[str, Credentials] = field(repr=False)
    trust: TrustHolder
    tls: ClientTls | None = None
    readers: int = 1
    """How many nodes read the dataset, as far as that was known."""

    @classmethod
    def parse(cls, texts: Mapping[str, str]) -> "Access":
        """Read the access Secret's content; InvalidRequest says which part is missing or malformed, no value."""
        for name in (DATASET_FILE, KEYS_FILE):
            if not texts.get(name):
                raise InvalidRequest(f"the access Secret has no {name} yet; the operator writes it")
        try:
            document = DatasetDocument.from_json(json.loads(texts[DATASET_FILE]))
            credentials = credentials_from_json(json.loads(texts.get(CREDENTIALS_FILE) or "{}"))
            keys = auth.parse_keys(texts[KEYS_FILE])
            readers = int(texts.get(READERS_FILE) or 1)
        except ValueError:
            # The parser's own message would quote the text.
            raise InvalidRequest("the access Secret's content cannot be parsed") from None
        authority = texts.get(AUTHORITY_FILE)
        tls = ClientTls.of(authority, worker_host(document.name, document.namespace)) if authority else None
        return cls(document, credentials, TrustHolder(document.uid, Trust(keys)), tls, readers)
