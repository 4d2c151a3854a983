"""The demo's data: a sharded model, a thousand small files, awkward names. Always the same bytes, from a seed."""

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from testkit.progress import Progress, silent
from testkit.s3client import S3Error
from testkit.safetensors import Tensor, header, layer
from testkit.store import Store

RECIPE = 1
"""Raise it when the data changes: stores that hold an older recipe are seeded anew."""
SHARDS = 4
LAYERS_PER_SHARD = 3
WIDTH = 1408
SMALL_FILES = 1000
_THREADS = 4
_PIECE = 16 << 20


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file as readers must find it."""

    path: str
    """In the mount, from its root: `/model/config.json`."""
    key: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What lies in a bucket under a prefix."""

    bucket: str
    prefix: str
    files: tuple[SourceFile, ...]

    @property
    def total_bytes(self) -> int:
        """The sum of all sizes."""
        return sum(file.size for file in self.files)


def pseudorandom(seed_text: str, size: int) -> bytes:
    """Bytes that depend on the seed only; made in pieces, since `randbytes` has a limit."""
    source = random.Random(seed_text)
    return b"".join(source.randbytes(min(_PIECE, size - begin)) for begin in range(0, size, _PIECE))


def small_text(number: int) -> bytes:
    """A small file of 100 to 4,100 bytes."""
    source = random.Random(f"small {number}")
    return source.randbytes(source.randrange(100, 4100))


def model() -> Iterator[tuple[str, bytes]]:
    """A model in shards with its index and configuration: names and bytes, one shard in memory at a time."""
    weight_map: dict[str, str] = {}
    total = 0
    for shard in range(SHARDS):
        name = f"model-{shard + 1:05}-of-{SHARDS:05}.safetensors"
        first = shard * LAYERS_PER_SHARD
        tensors = [tensor for number in range(first, first + LAYERS_PER_SHARD) for tensor in layer(number, WIDTH)]
        if shard == 0:
            tensors.insert(0, Tensor("model.embed_tokens.weight", (4096, WIDTH)))
        size = sum(tensor.size for tensor in tensors)
        weight_map.update({tensor.name: name for tensor in tensors})
        total += size
        yield f"model/{name}", header(tensors) + pseudorandom(name, size)
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    yield "model/model.safetensors.index.json", json.dumps(index, indent=1).encode()
    config = {"architectures": ["DemoForCausalLM"], "hidden_size": WIDTH, "torch_dtype": "bfloat16"}
    yield "model/config.json", json.dumps(config, indent=1).encode()


def small_files() -> Iterator[tuple[str, bytes]]:
    """A thousand small files in ten folders."""
    for number in range(SMALL_FILES):
        yield f"small/{number % 10}/sample-{number:04}.txt", small_text(number)


def awkward_files() -> Iterator[tuple[str, bytes]]:
    """Names that S3 allows and that programs get wrong; `folder object/` is no file."""
    names = (
        "with space.txt",
        " begins and ends with a space ",
        "composed-caf\u00e9.txt",
        "decomposed-cafe\u0301.txt",
        "日本語/ファイル.txt",
        "emoji-\U0001f680.bin",
        "100%.txt",
        "%2F is not a slash",
        "%41 is not A",
        "a+b",
        "a&b=c;d,e",
        "question?mark#hash",
        "quotes'\"`",
        "$(command) ${variable} *.txt",
        "back\\slash",
        "tab\there",
        "new\nline",
        "-rf",
        ".hidden",
        "...",
        "case",
        "CASE",
        "long-" + "n" * 250,
        "/".join(f"level-{level:02}" for level in range(40)) + "/deep.txt",
        "empty",
        "folder object/",
        "folder object 2/",
        "folder object 2/inside.txt",
    )
    for name in names:
        size = 0 if name.endswith(("empty", "/")) else 1 + len(name.encode()) * 37
        yield f"awkward/{name}", pseudorandom(name, size)


def everything() -> Iterator[tuple[str, bytes]]:
    """All objects, by key below the prefix."""
    yield from model()
    yield from small_files()
    yield from awkward_files()


def seed(store: Store, bucket: str, prefix: str = "", progress: Progress | None = None) -> Manifest:
    """Put the data into the bucket under the prefix (empty, or ending in `/`), unless it is there already.

    The manifest is an object of a bucket beside it, so that the data's own bucket holds nothing else.
    """
    progress = progress or silent()
    place = f"{bucket}-manifest"
    for name in (bucket, place):
        store.create_bucket(name)
    key = f"{prefix}recipe-{RECIPE}.json"
    known = _read(store, place, key)
    if known is not None and _present(store, known):
        return known
    with progress.step(f"seeding s3://{bucket}/{prefix}"):
        manifest = _put_everything(store, bucket, prefix, progress)
        store.put_bytes(place, key, json.dumps(asdict(manifest)).encode())
    return manifest


def _put_everything(store: Store, bucket: str, prefix: str, progress: Progress) -> Manifest:
    """Put each object while the next is made; return what was put."""
    files: list[SourceFile] = []

    def noted() -> Iterator[tuple[str, bytes]]:
        for name, body in everything():
            if not name.endswith("/"):
                files.append(SourceFile(f"/{name}", prefix + name, len(body), hashlib.sha256(body).hexdigest()))
            if len(body) > 1 << 20:
                progress.say(f"  {name}: {len(body) >> 20} MiB")
            yield prefix + name, body

    store.put_many(bucket, noted(), threads=_THREADS)
    return Manifest(bucket, prefix, tuple(files))


def _read(store: Store, bucket: str, key: str) -> Manifest | None:
    """The manifest of an earlier seeding, if there is one."""
    try:
        document: dict[str, Any] = json.loads(store.get(bucket, key))
    except S3Error as error:
        if error.status == 404:
            return None
        raise
    return Manifest(document["bucket"], document["prefix"], tuple(SourceFile(**file) for file in document["files"]))


def _present(store: Store, manifest: Manifest) -> bool:
    """Tell whether the largest objects are still what the manifest says: tests may have changed the bucket."""
    for file in sorted(manifest.files, key=lambda one: one.size)[-SHARDS:]:
        answer = store.request("HEAD", manifest.bucket, file.key)
        if answer.status != 200 or int(answer.headers["content-length"]) != file.size:
            return False
    return True
