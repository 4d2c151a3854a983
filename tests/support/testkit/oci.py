"""Write an OCI image archive with one layer by hand: for images that hold one static program, no builder is needed."""

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramImage:
    """An image of one static program."""

    name: str
    program: Path
    entrypoint: Sequence[str]
    """Begins with the program's path in the image."""
    user: str
    architecture: str


def write_archive(image: ProgramImage, target: Path) -> Path:
    """Write the archive; the same program gives the same bytes."""
    layer = _layer(image)
    packed = gzip.compress(layer, compresslevel=1, mtime=0)
    config = {
        "architecture": image.architecture,
        "os": "linux",
        "config": {"Entrypoint": list(image.entrypoint), "User": image.user, "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }
    config_bytes = _encode(config)
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _descriptor("application/vnd.oci.image.config.v1+json", config_bytes),
        "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar+gzip", packed)],
    }
    manifest_bytes = _encode(manifest)
    entry = _descriptor("application/vnd.oci.image.manifest.v1+json", manifest_bytes)
    entry["annotations"] = {"io.containerd.image.name": image.name, "org.opencontainers.image.ref.name": image.name}
    files = {
        "oci-layout": _encode({"imageLayoutVersion": "1.0.0"}),
        "index.json": _encode({"schemaVersion": 2, "manifests": [entry]}),
        **{f"blobs/sha256/{_digest(blob)[7:]}": blob for blob in (packed, config_bytes, manifest_bytes)},
    }
    fresh = target.with_name(f"{target.name}.new")
    with tarfile.open(fresh, "w") as tar:
        for name, data in files.items():
            _add(tar, name, data, 0o644)
    fresh.rename(target)
    return target


def _layer(image: ProgramImage) -> bytes:
    """The file system: the program, and a /tmp to write to."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        folder = tarfile.TarInfo("tmp")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(folder)
        _add(tar, image.entrypoint[0].lstrip("/"), image.program.read_bytes(), 0o755)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    """Add a file with no time and no owner, so that equal content gives equal bytes."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(data), mode
    tar.addfile(member, io.BytesIO(data))


def _encode(document: Mapping[str, Any]) -> bytes:
    """JSON with a stable order."""
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def _digest(data: bytes) -> str:
    """The digest of a blob as OCI writes it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    """A reference to a blob."""
    return {"mediaType": media_type, "digest": _digest(data), "size": len(data)}
