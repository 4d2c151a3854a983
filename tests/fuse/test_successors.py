"""What the server that follows a killed one knows, and what happens when none follows."""

import errno
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from forebay_node.mounts import detach
from forebay_protocol.keys import CHUNK_SIZE
from testkit.fuse_mount import MountedDataset
from testkit.supervised import IMPATIENT, OLD_KERNEL, Supervised
from testkit.waiting import eventually

FILES = {
    "folder/large": os.urandom(3 * CHUNK_SIZE),
    "folder/gone": b"gone",
    **{f"many/{number:04}": b"x" for number in range(3000)},
}


@pytest.fixture
def dataset(tmp_path: Path) -> Iterator[MountedDataset]:
    """The files on two workers."""
    with MountedDataset(tmp_path, FILES) as made:
        yield made


@pytest.fixture
def mount(dataset: MountedDataset, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Supervised]:
    """A supervised mount."""
    made = Supervised(dataset, tmp_path / "kept", getattr(request, "param", ()))
    yield made
    made.close()


def test_an_open_file_keeps_its_version(mount: Supervised, dataset: MountedDataset) -> None:
    """Through a kill, a newer generation, and another kill after which the index no longer has the version."""
    path = mount.dataset.target / "folder/large"
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    mount.kill()
    dataset.publish({key: (data, "v2" if key == "folder/large" else "v1") for key, data in FILES.items()})
    eventually(
        lambda: path.stat().st_ino != os.fstat(descriptor).st_ino,
        timeout=20,
        interval=0.02,
        what="the new version shows",
    )
    mount.kill()
    for worker in dataset.workers:
        worker.requests.clear()

    assert os.pread(descriptor, 4096, CHUNK_SIZE) == FILES["folder/large"][CHUNK_SIZE : CHUNK_SIZE + 4096]
    assert {one.object.version for worker in dataset.workers for one in worker.requests} == {"v1"}
    os.close(descriptor)


def test_handles_are_of_one_server(mount: Supervised) -> None:
    """What a successor opens leaves what its predecessor opened alone; each is closed by itself."""
    folder = mount.dataset.target / "folder"
    before = os.open(folder / "large", os.O_RDONLY | os.O_DIRECT)
    mount.kill()
    after = os.open(folder / "gone", os.O_RDONLY)

    assert os.read(after, 100) == b"gone"
    assert os.pread(before, 4096, CHUNK_SIZE) == FILES["folder/large"][CHUNK_SIZE : CHUNK_SIZE + 4096]
    os.close(after)
    assert os.pread(before, 4096, 0) == FILES["folder/large"][:4096]
    os.close(before)


def test_what_changes_after_a_kill_shows(mount: Supervised, dataset: MountedDataset) -> None:
    """The successor tells the kernel of folders into which only its predecessor looked."""
    folder = mount.dataset.target / "folder"
    assert (folder / "gone").exists()
    assert not (folder / "new").exists()
    mount.kill()

    after = {key: data for key, data in FILES.items() if key != "folder/gone"} | {"folder/new": b"new"}
    dataset.publish({key: (data, "v1") for key, data in after.items()})

    eventually(
        lambda: (folder / "new").exists() and not (folder / "gone").exists(),
        timeout=20,
        interval=0.02,
        what="the next generation shows",
    )


def test_a_change_that_the_kernel_was_not_told_of_is_told_by_the_successor(
    mount: Supervised, dataset: MountedDataset, tmp_path: Path
) -> None:
    """The server ends after it has kept a new generation and before it has spoken of it."""
    folder = mount.dataset.target / "folder"
    assert (folder / "gone").exists()
    os.kill(mount.pids[-1], signal.SIGSTOP)
    dataset.publish({key: (data, "v1") for key, data in FILES.items() if key != "folder/gone"})
    kept = tmp_path / "kept"
    (kept / "index.before").hardlink_to(kept / "index")
    (kept / "index.new").write_bytes((dataset.folder / "index.tmp").read_bytes())
    (kept / "index.new").replace(kept / "index")

    mount.kill()

    eventually(lambda: not (folder / "gone").exists(), timeout=15, what="the deleted file is gone")
    eventually(lambda: not (kept / "index.before").exists(), timeout=15, what="all changes are told")


def test_a_folder_is_listed_to_its_end_over_a_kill(mount: Supervised) -> None:
    """No name twice, none missing."""
    found = []
    with os.scandir(mount.dataset.target / "many") as entries:
        found.append(next(entries).name)
        mount.kill()
        found += [entry.name for entry in entries]

    assert sorted(found) == [f"{number:04}" for number in range(3000)]


@pytest.mark.parametrize("mount", [(), (OLD_KERNEL,)], indirect=True, ids=["resent", "old-kernel"])
def test_a_read_that_was_under_way(mount: Supervised, dataset: MountedDataset) -> None:
    """It is answered by the successor; where the kernel cannot send it again it fails, and the next one works."""
    release = threading.Event()
    outcome: list[bytes | int | None] = []
    descriptor = os.open(mount.dataset.target / "folder/large", os.O_RDONLY | os.O_DIRECT)

    def hold(connection: socket.socket, honest: bytes) -> bool:
        release.wait(60)
        connection.sendall(honest)
        return True

    def read() -> None:
        try:
            outcome.append(os.pread(descriptor, 4096, 0))
        except OSError as error:
            outcome.append(error.errno)

    for worker in dataset.workers:
        worker.faults.extend([hold] * 100)
    reader = threading.Thread(target=read)
    reader.start()
    eventually(
        lambda: any(worker.requests for worker in dataset.workers), timeout=15, interval=0.02, what="a worker is asked"
    )
    for worker in dataset.workers:
        worker.faults.clear()
    mount.kill()
    reader.join(20)
    release.set()

    expected = FILES["folder/large"][:4096]
    assert outcome == [errno.ECONNABORTED if OLD_KERNEL in mount.disturbances else expected]
    assert os.pread(descriptor, 4096, 0) == expected
    os.close(descriptor)


@pytest.mark.parametrize("mount", [(IMPATIENT,)], indirect=True, ids=["impatient"])
def test_a_mount_that_gets_no_server_is_given_up(mount: Supervised) -> None:
    """Whoever waits gets an error, and so does who comes later; the reason can be had."""
    mount.start_servers_with("/bin/false")
    mount.kill(wait=False)

    for _ in range(2):
        with pytest.raises(OSError, match=r"not connected|abort") as caught:
            os.statvfs(mount.dataset.target)
        assert caught.value.errno in {errno.ENOTCONN, errno.ECONNABORTED}

    def is_given_up() -> bool:
        mount.ask()
        return not mount.is_live

    eventually(is_given_up, timeout=15, what="the mount is given up")
    assert "had no server for" in mount.problem


def test_a_server_that_ends_again_and_again_is_reported(mount: Supervised) -> None:
    """While it is tried with pauses; once it serves again the mount works as before."""
    mount.start_servers_with("/bin/false")
    mount.kill(wait=False)

    def is_reported() -> bool:
        mount.ask()
        return "again and again" in mount.problem

    eventually(is_reported, timeout=15, what="the crash loop is reported")
    mount.start_servers_with(sys.executable)

    assert (mount.dataset.target / "folder/gone").read_bytes() == b"gone"
    assert mount.is_live


DEAF_HOLDER = """
import os, sys, threading
from pathlib import Path
from forebay_node.connection import Connection
from forebay_node.fuse import protocol
from forebay_node.mounts import statvfs_apart

def serve(channel):
    while True:
        request = protocol.parse_request(memoryview(os.read(channel, 1 << 20)))
        if request.opcode == protocol.Opcode.INIT:
            answer = protocol.init_reply(request.body, readahead=4096, max_pages=1)
            os.writev(channel, (protocol.reply_header(request.unique, len(answer)), answer))
        else:
            asked.set()
            print("asked", flush=True)

asked = threading.Event()
target = Path(sys.argv[1])
connection = Connection()
connection.mount("forebay:deaf", target)
for channel in connection.channels:
    threading.Thread(target=serve, args=(channel,), daemon=True).start()
while not asked.is_set():
    # On a busy machine the process that asks may take longer to start than it is given.
    try:
        statvfs_apart(target, float(sys.argv[2]))
    except TimeoutError:
        pass
print("silence", flush=True)
"""


@pytest.mark.parametrize("is_killed", [False, True])
def test_who_holds_a_mount_that_does_not_answer_can_end(tmp_path: Path, is_killed: bool) -> None:
    """By itself or by a kill while it asks how large the mount is; the kernel then ends the mount."""
    target = tmp_path / "mnt"
    target.mkdir()
    holder = subprocess.Popen(
        [sys.executable, "-c", DEAF_HOLDER, str(target), "60" if is_killed else "0.5"], stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )  # fmt: skip
    assert holder.stdout is not None
    try:
        with holder.stdout as output:
            assert output.readline() == b"asked\n"
            if is_killed:
                holder.kill()
            assert is_killed or b"silence" in output.read()
        holder.wait(20)

        with pytest.raises(OSError, match=r"not connected|abort"):
            os.statvfs(target)
    finally:
        holder.kill()
        holder.wait(20)
        detach(target)
