"""The store's client, its log, and the data."""

import hashlib
import json
from typing import Any

import pytest

from testkit import dataset
from testkit.pip_settings import parse, pip_conf
from testkit.rootfs import mirror
from testkit.s3client import Credentials, sign
from testkit.safetensors import Tensor, header, layer
from testkit.store_log import condense


def test_a_signature_is_the_published_example() -> None:
    """The example `GET Object` of the S3 documentation on Signature Version 4."""
    headers = {
        "host": "examplebucket.s3.amazonaws.com",
        "range": "bytes=0-9",
        "x-amz-content-sha256": hashlib.sha256(b"").hexdigest(),
        "x-amz-date": "20130524T000000Z",
    }
    keys = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")

    signed = sign(keys, "GET", "/test.txt", "", headers)

    assert signed.endswith("f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41")


def test_credentials_do_not_show_themselves() -> None:
    """They may end up in a failure's output."""
    assert "secret" not in repr(Credentials("access", "secret"))


def record(path: str) -> dict[str, Any]:
    """A record as MinIO publishes it."""
    return {
        "funcname": "s3.GetObject",
        "http": {
            "request": {
                "method": "GET",
                "path": path,
                "client": "10.0.0.1",
                "headers": {"Range": ["bytes=0-9"], "Authorization": ["AWS4-HMAC-SHA256 Credential=x"]},
            },
            "response": {"time": "2026-01-01T00:00:00Z", "statuscode": 206},
            "stats": {"inputbytes": 0, "outputbytes": 10},
        },
    }


def test_the_log_keeps_no_header_but_those_that_tests_ask_about() -> None:
    """Signatures stay out of the file."""
    kept = condense(record("/b/k"))

    assert kept["range"] == "bytes=0-9"
    assert kept["bytes_sent"] == 10
    assert "Credential" not in json.dumps(kept)


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/b/deep/plain.txt", "deep/plain.txt"),
        ("/b/with space%.txt", "with space%.txt"),
        ("/b/%2F is not a slash", "%2F is not a slash"),
        ("/b/a%2Bb", "a+b"),
        ("/b/a%3Bb%2Cc", "a;b,c"),
        ("/b/%C3%A9%2B", "\u00e9+"),
        ("/b/日本語", "日本語"),
    ],
)
def test_the_key_is_read_in_both_ways_that_the_record_writes_it(path: str, key: str) -> None:
    """Decoded as a rule; as sent where the client encoded more than Go does."""
    assert condense(record(path))["key"] == key


def test_a_safetensors_header_describes_the_bytes_behind_it() -> None:
    """Eight bytes of length, JSON padded to eight, offsets without gaps."""
    tensors = [Tensor("a", (3, 5)), Tensor("b", (7,))]
    raw = header(tensors)
    length = int.from_bytes(raw[:8], "little")
    document = json.loads(raw[8:])

    assert len(raw) == 8 + length
    assert length % 8 == 0
    assert document["a"]["data_offsets"] == [0, 30]
    assert document["b"]["data_offsets"] == [30, 44]


def test_the_data_is_the_same_every_time() -> None:
    """Seeded from names, so that a store which holds it need not be seeded again."""
    first, again = dict(dataset.small_files()), dict(dataset.small_files())

    assert first == again
    assert len(first) >= 1000


def test_the_model_is_large_enough() -> None:
    """At least 512 MiB, by its own arithmetic."""
    layers = dataset.SHARDS * dataset.LAYERS_PER_SHARD
    per_layer = sum(tensor.size for tensor in layer(0, dataset.WIDTH))

    assert layers * per_layer >= 512 << 20


def test_awkward_names_are_unique_and_legal() -> None:
    """At most 255 bytes a part and 1,024 in all, as S3 and file systems allow; both forms of é are there."""
    names = [name for name, _ in dataset.awkward_files()]

    assert len(names) == len(set(names))
    assert all(len(part.encode()) <= 255 for name in names for part in name.split("/"))
    assert max(len(part.encode()) for name in names for part in name.split("/")) == 255
    assert all(len(name.encode()) <= 1024 for name in names)


def test_pip_settings_of_this_machine_lose_its_paths() -> None:
    """Folders of this machine mean nothing in a build; the environment wins over files, as it does for pip."""
    listing = (
        "global.index-url='https://one/simple'\nglobal.find-links='/wheels'\n:env:.index-url='https://two/simple'\n"
    )

    settings = parse(listing)

    assert settings == {"index-url": "https://two/simple"}
    assert pip_conf(settings, with_ca=True) == (
        "[global]\nindex-url = https://two/simple\ncert = /run/secrets/ca.pem\n"
    )


def test_the_machine_s_own_mirror_is_used() -> None:
    """In apt's new format and in its old one, with other suites and vendors around it."""
    vendor = "Types: deb\nURIs: http://vendor/apt\nSuites: nodistro\n"
    new = f"{vendor}\nTypes: deb\nURIs: http://mirror/debian\nSuites: x x-updates\n"
    old = "# a comment\ndeb [arch=amd64] http://mirror/old y main\n"

    assert mirror([new, old], "x") == "http://mirror/debian"
    assert mirror([new, old], "y") == "http://mirror/old"
    assert mirror([new, old], "z") is None
