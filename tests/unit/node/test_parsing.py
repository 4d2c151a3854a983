"""Texts from outside: mountinfo, endpoints, the access Secret, the kubelet's paths; and the generated code."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from forebay_node.fuse.__main__ import parse_endpoint
from forebay_node.fuse.access import Access
from forebay_node.fuse.generations import poll_interval
from forebay_node.mounts import mounted_at, parse_mountinfo
from forebay_node.paths import NodePaths
from forebay_protocol import auth
from forebay_protocol.dataset import DatasetDocument
from forebay_protocol.errors import InvalidRequest

ROOT = Path(__file__).resolve().parents[3]
MOUNTINFO = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
80 22 0:50 / /mnt/a\040b ro,nosuid shared:7 master:2 - fuse.forebay forebay:ns/d ro,user_id=0
81 80 0:51 / /mnt/a\040b ro - tmpfs tmpfs rw
"""


def test_mountinfo_is_read_in_stacking_order() -> None:
    """Escaped names, optional fields, and two mounts on one folder."""
    found = mounted_at(Path("/mnt/a b/"), parse_mountinfo(MOUNTINFO))

    assert [(entry.fstype, entry.source, entry.device) for entry in found] == [
        ("fuse.forebay", "forebay:ns/d", "0:50"),
        ("tmpfs", "tmpfs", "0:51"),
    ]


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("w.ns.svc", ("w.ns.svc", 7070)), ("w:1", ("w", 1)), ("::1", ("::1", 7070)), ("[::1]:5", ("::1", 5)),
        ("[::1]", ("::1", 7070)),
    ],
)  # fmt: skip
def test_endpoints(text: str, endpoint: tuple[str, int]) -> None:
    """Names and addresses of both families, with and without a port."""
    assert parse_endpoint(text) == endpoint


def test_access_never_quotes_what_it_cannot_read() -> None:
    """Malformed parts are named, their content is not."""
    document = json.dumps(DatasetDocument(uid="u", namespace="n", name="d", mounts=()).to_json())
    good = {"dataset.json": document, "keys": "new\nold\n"}

    access = Access.parse(good)
    auth.verify((b"new",), access.trust.token(), "u", time.time())
    assert access.credentials == {}
    for broken in ({"dataset.json": "topsecret"}, {"credentials.json": '{"m": "topsecret"}'}, {"keys": " \n"}):
        with pytest.raises(InvalidRequest) as caught:
            Access.parse(good | broken)
        assert "topsecret" not in str(caught.value)
    assert "new" not in repr(access)


def test_paths_of_requests_stay_below_the_kubelets_folder(tmp_path: Path) -> None:
    """Symlinks, dots and relative paths do not lead out; the kubelet's own folder may be behind a symlink."""
    real, link = tmp_path / "real", tmp_path / "kubelet"
    (real / "pods").mkdir(parents=True)
    link.symlink_to(real)
    (real / "pods/out").symlink_to(tmp_path)
    paths = NodePaths(link)

    assert paths.checked(f"{link}/pods/x") == link / "pods/x"
    for refused in ("", "pods/x", "/", f"{link}", f"{link}/../x", f"{link}/pods/out/x", "/etc"):
        with pytest.raises(InvalidRequest):
            paths.checked(refused)
    assert paths.state("../../x/\n").parent == paths.volumes


def test_polling_leaves_most_of_the_refresh_interval_to_the_workers() -> None:
    """A quarter of it, within bounds."""
    assert [poll_interval(seconds) for seconds in (None, 1.0, 20.0, 3600.0)] == [15.0, 1.0, 5.0, 15.0]


def test_generated_code_is_what_its_source_generates(tmp_path: Path) -> None:
    """Nobody edits it, and nobody forgets to generate it anew."""
    sources = sorted(path.relative_to(ROOT / "node") for path in (ROOT / "node").rglob("*.proto"))
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    subprocess.run([*command, *map(str, sources)], cwd=ROOT / "node", check=True)

    generated = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.py*"))
    assert len(generated) == 2 * len(sources)
    for path in generated:
        assert (tmp_path / path).read_text() == (ROOT / "node" / path).read_text(), path
