"""What a Dataset means to the data path: where its bytes are and how they appear.

The operator writes these documents as files that workers mount and that the kubelet hands to the node
plugin; the standalone mount writes them itself. Credentials travel in a document of their own.
"""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from forebay_protocol.errors import InvalidRequest

DATASET_FILE = "dataset.json"
CREDENTIALS_FILE = "credentials.json"
KEYS_FILE = "keys"
AUTHORITY_FILE = "ca.crt"
DATA_KEY_FILE = "data-key"
"""Names of the files in a worker's access folder, and of the keys of the Secret that fills it. The authority's
certificate is there when workers speak TLS; who finds it speaks nothing else. The data key is 64 hex digits."""

READERS_FILE = "readers"
"""A key of the same Secret where a mount has limits: how many nodes read the Dataset, for mounts that know no ring."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLimits:
    """What workers and nodes together may ask of one mount's store; 0 is no limit. Falsy when there is none at all."""

    bandwidth: int = 0
    """Bytes per second."""
    requests_per_second: int = 0
    connections: int = 0
    """Requests at the same time."""

    def __bool__(self) -> bool:
        return bool(self.bandwidth or self.requests_per_second or self.connections)

    def to_json(self) -> dict[str, int]:
        """The limits as the dataset document shows them."""
        return {
            "bandwidth": self.bandwidth,
            "requestsPerSecond": self.requests_per_second,
            "connections": self.connections,
        }

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> "SourceLimits":
        """Read limits; TypeError or ValueError where they are malformed."""
        return cls(
            bandwidth=int(raw.get("bandwidth", 0)),
            requests_per_second=int(raw.get("requestsPerSecond", 0)),
            connections=int(raw.get("connections", 0)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MountSpec:
    """One source, shown under ``path`` (absolute, ``/`` for the root of the volume).

    ``endpoint`` and ``region`` may be empty (the store's defaults); ``addressing`` is ``path`` or ``virtual``;
    ``ca_bundle``: certificates in PEM that the store's is checked against, empty for the system's;
    ``requester_pays``: tell an S3 store that the reader pays; ``manifest``: path, below an HTTP source, of the list
    of its files; ``include`` and ``exclude`` are globs over the path within the mount, exclude wins.
    """

    name: str
    source: str
    path: str
    endpoint: str = ""
    region: str = ""
    addressing: str = "path"
    ca_bundle: str = field(default="", repr=False)
    requester_pays: bool = False
    manifest: str = ""
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    limits: SourceLimits = SourceLimits()


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """Static keys of one mount. Its repr shows nothing."""

    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetDocument:
    """A Dataset as workers and clients see it. Modes are permission bits; ``refresh_seconds`` None is never.

    ``on_open``: whoever opens a file asks the source for its version first.
    """

    uid: str
    namespace: str
    name: str
    mounts: tuple[MountSpec, ...]
    refresh_seconds: float | None = 60.0
    on_open: bool = False
    owner_uid: int = 0
    owner_gid: int = 0
    file_mode: int = 0o444
    dir_mode: int = 0o555

    def to_json(self) -> dict[str, Any]:
        """The document; ``from_json`` reads it back."""
        return {
            "uid": self.uid,
            "namespace": self.namespace,
            "name": self.name,
            "mounts": [
                {
                    "name": m.name, "source": m.source, "path": m.path, "endpoint": m.endpoint, "region": m.region,
                    "addressing": m.addressing, "caBundle": m.ca_bundle, "requesterPays": m.requester_pays,
                    "manifest": m.manifest, "include": list(m.include), "exclude": list(m.exclude),
                    **({"limits": m.limits.to_json()} if m.limits else {}),
                }
                for m in self.mounts
            ],
            "refreshSeconds": self.refresh_seconds,
            **({"onOpen": True} if self.on_open else {}),
            "owner": {
                "uid": self.owner_uid, "gid": self.owner_gid, "fileMode": self.file_mode, "dirMode": self.dir_mode,
            },
        }  # fmt: skip

    def revision(self) -> str:
        """16 hex digits that change with the content; workers report the one they act on."""
        canonical = json.dumps(self.to_json(), sort_keys=True).encode()
        return hashlib.blake2b(canonical, digest_size=8).hexdigest()

    @classmethod
    def from_json(cls, raw: Any) -> "DatasetDocument":
        """Read a document; InvalidRequest says what is wrong with it."""
        try:
            refresh, owner = raw["refreshSeconds"], raw["owner"]
            return cls(
                uid=str(raw["uid"]),
                namespace=str(raw["namespace"]),
                name=str(raw["name"]),
                mounts=tuple(_mount(mount) for mount in raw["mounts"]),
                refresh_seconds=None if refresh is None else float(refresh),
                on_open=bool(raw.get("onOpen", False)),
                owner_uid=int(owner["uid"]),
                owner_gid=int(owner["gid"]),
                file_mode=int(owner["fileMode"]),
                dir_mode=int(owner["dirMode"]),
            )
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise InvalidRequest(f"malformed dataset document: {error!r}") from error


def _mount(raw: dict[str, Any]) -> MountSpec:
    return MountSpec(
        name=str(raw["name"]),
        source=str(raw["source"]),
        path=str(raw["path"]),
        endpoint=str(raw.get("endpoint", "")),
        region=str(raw.get("region", "")),
        addressing=str(raw.get("addressing", "path")),
        ca_bundle=str(raw.get("caBundle", "")),
        requester_pays=bool(raw.get("requesterPays", False)),
        manifest=str(raw.get("manifest", "")),
        include=tuple(str(glob) for glob in raw.get("include", ())),
        exclude=tuple(str(glob) for glob in raw.get("exclude", ())),
        limits=SourceLimits.from_json(raw.get("limits", {})),
    )


def credentials_to_json(credentials: dict[str, Credentials]) -> dict[str, Any]:
    """The credentials document: keys by mount name. It is a secret as a whole."""
    return {
        name: {
            "accessKeyId": one.access_key_id,
            "secretAccessKey": one.secret_access_key,
            "sessionToken": one.session_token,
        }
        for name, one in credentials.items()
    }


def credentials_from_json(raw: Any) -> dict[str, Credentials]:
    """Read the credentials document; InvalidRequest names no value of it."""
    try:
        return {
            str(name): Credentials(
                access_key_id=str(one["accessKeyId"]),
                secret_access_key=str(one["secretAccessKey"]),
                session_token=str(one.get("sessionToken", "")),
            )
            for name, one in raw.items()
        }
    except (KeyError, TypeError, AttributeError):
        raise InvalidRequest("malformed credentials document") from None
