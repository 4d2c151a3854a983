"""Files that others read: ledger, cgroup mounts, node configuration, images, certificates' neighbours."""

import json
import tarfile
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path, PurePosixPath

from testkit.cgroups import parse_mounts, with_controllers
from testkit.cluster import dns
from testkit.cluster.node import archive_images
from testkit.cluster.node_files import NodeFiles
from testkit.ledger import Entry, Kind, Ledger
from testkit.oci import ProgramImage, write_archive
from testkit.settings import Settings

FILES = NodeFiles(
    address=IPv4Address("10.199.0.11"),
    pod_cidr=IPv4Network("10.199.129.0/24"),
    dns_address=IPv4Address("10.199.64.10"),
    cgroup=PurePosixPath("/forebay-testkit/node-1"),
    client_ca="/run/ca.crt",
    runc=Path("/cache/runc"),
    cni_plugins=Path("/cache/cni"),
    cni_config=Path("/run/cni"),
)


def test_the_ledger_survives_a_line_that_was_cut_short(tmp_path: Path) -> None:
    """A crash in the middle of a write loses that line only."""
    ledger = Ledger(tmp_path)
    ledger.record(Kind.NETNS, "one")
    ledger.record(Kind.NETNS, "one")
    with (tmp_path / "ledger.jsonl").open("a") as file:
        file.write('{"kind": "netns", "na\n')
    ledger.record(Kind.INTERFACE, "two")

    assert ledger.entries() == [Entry(Kind.NETNS, "one"), Entry(Kind.INTERFACE, "two")]
    assert ledger.entries(Kind.INTERFACE) == [Entry(Kind.INTERFACE, "two")]


def test_version_1_controllers_leave_the_empty_cgroup2_out() -> None:
    """A hybrid machine mounts cgroup2 as well, without any controller in it."""
    found = parse_mounts(
        "30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n"
        "31 30 0:27 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids\n"
        "32 30 0:28 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
    )

    assert [one.root.name for one in found] == ["pids", "unified"]
    assert [one.root.name for one in with_controllers(found)] == ["pids"]
    assert "pids" in found[0].controllers


def test_version_2_alone_is_one_hierarchy() -> None:
    """As current distributions mount it."""
    found = parse_mounts("31 24 0:27 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n")

    assert [(one.root, one.unified) for one in found] == [(Path("/sys/fs/cgroup"), True)]


def test_the_kubelet_knows_its_cgroup_and_the_cluster_dns() -> None:
    """What pods depend on."""
    kubelet = json.loads(FILES.kubelet())

    assert kubelet["cgroupRoot"] == "/forebay-testkit/node-1"
    assert kubelet["clusterDNS"] == ["10.199.64.10"]
    assert kubelet["enforceNodeAllocatable"] == []


def test_pods_get_addresses_of_their_node() -> None:
    """The network plugin hands out the node's range, and routes everything."""
    cni = json.loads(FILES.cni())

    assert cni["plugins"][0]["ipam"]["ranges"] == [[{"subnet": "10.199.129.0/24"}]]
    assert "/cache/runc" in FILES.containerd()


def test_dns_answers_at_the_address_that_the_kubelets_hand_out() -> None:
    """Service address and kubelet configuration come from the same setting."""
    settings = Settings()
    items = dns.objects(settings, "image:1")["items"]
    service = next(item for item in items if item["kind"] == "Service")

    assert service["spec"]["clusterIP"] == str(settings.dns_address)


def test_the_same_program_gives_the_same_image(tmp_path: Path) -> None:
    """The archive names the image, and its digest depends on the content only."""
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF" * 100)
    image = ProgramImage(
        name="forebay.local/probe:1", program=program, entrypoint=("/program",), user="65532", architecture="amd64"
    )
    first = write_archive(image, tmp_path / "first.tar")
    second = write_archive(image, tmp_path / "second.tar")

    assert first.read_bytes() == second.read_bytes()
    assert archive_images(first).keys() == {"forebay.local/probe:1"}
    with tarfile.open(first) as tar:
        digest = archive_images(first)["forebay.local/probe:1"].removeprefix("sha256:")
        assert f"blobs/sha256/{digest}" in tar.getnames()
