"""The test cluster's own promises, on a second cluster beside the one that other tests use."""

import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from testkit.cluster import Cluster
from testkit.processes import attempts
from testkit.progress import Progress
from testkit.s3client import signed_headers
from testkit.settings import from_environment
from testkit.store import PORT, Store

NAME = "tkproof"
NETWORK = "10.198.0.0/16"
ENVIRONMENT = {"FOREBAY_TESTKIT_NAME": NAME, "FOREBAY_TESTKIT_NETWORK": NETWORK}
MIB = 1 << 20

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def second() -> Iterator[Cluster]:
    """A cluster with another name and network; removed in the end, whatever happened."""
    one = Cluster(from_environment(ENVIRONMENT), Progress())
    yield one
    assert one.down() == []


def traces() -> list[str]:
    """What the machine shows of the second cluster, asked of the kernel and not of our own code."""
    questions = {
        "/proc/self/mountinfo": Path("/proc/self/mountinfo").read_text(),
        "interfaces": "\n".join(link.name for link in Path("/sys/class/net").iterdir()),
        "namespaces": subprocess.run(["ip", "netns"], capture_output=True, text=True, check=True).stdout,
        "firewall": subprocess.run(["iptables", "-w", "-S"], capture_output=True, text=True, check=True).stdout,
        "cgroups": "\n".join(str(folder) for folder in Path("/sys/fs/cgroup").glob(f"**/{NAME}")),
        "folders": "\n".join(str(folder) for folder in (Path("/run", NAME), Path("/var/lib", NAME)) if folder.exists()),
        "processes": subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout,
    }
    return [what for what, text in questions.items() if NAME in text]


def interrupted_up(lines: int) -> None:
    """Start `up` as a process of its own, and kill it without warning after so many lines of its output."""
    argv = [sys.executable, "-m", "testkit", "up"]
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(Path.home()), **ENVIRONMENT}
    environment["PYTHONPATH"] = str(Path(__file__).parents[1] / "support")
    with subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(lines):
            process.stdout.readline()
        process.kill()


def test_an_interrupted_start_is_repaired_or_removed(second: Cluster) -> None:
    """Killed while the control plane starts, then while the nodes start: `down` leaves nothing, `up` goes on."""
    interrupted_up(1)
    assert traces() != []
    assert second.down() == []
    assert traces() == []

    interrupted_up(4)
    second.up()

    assert second.healthy()


def test_what_was_killed_is_started_again(second: Cluster) -> None:
    """A dead API server, a stopped kubelet, a node without power."""
    second.up()
    second.stop_control_plane("kube-apiserver")
    second.nodes["node-1"].stop("kubelet", first=signal.SIGKILL)
    second.nodes["node-2"].kill()
    assert not second.healthy()

    second.up()

    assert second.healthy()
    assert set(second.nodes) == {"node-1", "node-2"}


def test_a_node_comes_and_goes(second: Cluster) -> None:
    """A third node becomes Ready; removed, it leaves neither namespace nor Node object."""
    second.up()
    node = second.add_node("node-3")

    assert "node-3" in second.kubectl("get", "nodes", "-o", "name").stdout
    assert str(node.address) in node.run(["ip", "-4", "address", "show", "eth0"]).stdout

    second.remove_node("node-3")

    assert "node-3" not in second.kubectl("get", "nodes", "-o", "name").stdout
    assert not Path("/run/netns", node.netns).exists()


def test_nodes_have_mounts_of_their_own(second: Cluster) -> None:
    """What is mounted on a node is not mounted on the host, nor on the other node."""
    second.up()
    one, other = second.nodes["node-1"], second.nodes["node-2"]
    one.run(["mkdir", "-p", "/var/lib/forebay/probe"])
    one.run(["mount", "-t", "tmpfs", "probe-mount", "/var/lib/forebay/probe"])

    assert "probe-mount" in one.run(["cat", "/proc/self/mountinfo"]).stdout
    assert "probe-mount" not in other.run(["cat", "/proc/self/mountinfo"]).stdout
    assert "probe-mount" not in Path("/proc/self/mountinfo").read_text()

    one.run(["umount", "/var/lib/forebay/probe"])


def test_the_store_logs_what_it_really_sent(second: Cluster) -> None:
    """Whole objects, ranges, and a client that goes away in the middle."""
    store = Store(second.settings, second.progress)
    store.up(mbit=200)
    store.create_bucket("proof")
    size = 32 * MIB
    store.put_bytes("proof", "a b/ü+%", b"x" * size)
    mark = store.mark()

    store.request("GET", "proof", "a b/ü+%", headers={"range": "bytes=5-14"})
    assert len(store.get("proof", "a b/ü+%")) == size
    _hang_up_early(store, MIB)

    for _ in attempts(20):
        requests = store.log_since(mark)
        if len(requests) == 3:
            break
    assert {request.key for request in requests} == {"a b/ü+%"}
    assert [request.bytes_sent for request in requests[:2]] == [10, size]
    assert requests[0].range == "bytes=5-14"
    assert MIB <= requests[2].bytes_sent < size


def test_nothing_is_left(second: Cluster) -> None:
    """The kernel shows no trace after `down`; the store is gone as well."""
    second.up()
    Store(second.settings, second.progress).up()

    assert second.down() == []
    assert traces() == []


def _hang_up_early(store: Store, size: int) -> None:
    """Ask for the whole object, read so much and close the connection."""
    path = "/proof/a%20b/%C3%BC%2B%25"
    headers = signed_headers(store.credentials, f"{store.address}:{PORT}", path, "")
    text = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection((store.address, PORT)) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\n{text}\r\n".encode())
        left = size
        while left > 0:
            left -= len(connection.recv(min(left, 1 << 16)))
