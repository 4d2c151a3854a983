"""The FUSE server through a real mount: the kernel's own view, with workers that fail on request."""

import errno
import os
import random
import socket
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from forebay.index.naming import names_of
from forebay_protocol import wire
from forebay_protocol.errors import ObjectChanged
from forebay_protocol.keys import CHUNK_SIZE
from testkit.fuse_mount import AWKWARD_FILES as FILES
from testkit.fuse_mount import MountedDataset
from testkit.waiting import eventually

LARGE = "model/a b.safetensors"


def path_of(mounted: MountedDataset, key: str) -> Path:
    """Where a key is shown."""
    return mounted.target.joinpath(*names_of(key))


def names_in(folder: Path) -> list[str]:
    """What a folder lists."""
    return sorted(path.name for path in folder.iterdir())


def drop_caches() -> None:
    """Make the kernel forget cached pages and names."""
    Path("/proc/sys/vm/drop_caches").write_text("3")


def test_every_file_is_there_cold_and_warm(dataset: MountedDataset) -> None:
    """Bytes and sizes of all names, the second time from the kernel's cache."""
    for _ in range(2):
        for key, data in FILES.items():
            path = path_of(dataset, key)
            if key.endswith("/"):
                assert path.is_dir()
            else:
                assert path.read_bytes() == data, key
                assert path.stat().st_size == len(data)


def test_folders_list_exactly_what_there_is(dataset: MountedDataset) -> None:
    """No name twice, none missing, over many pages; and the inodes of listing and stat agree."""
    expected = {names_of(key) for key in FILES}
    found = {
        (Path(folder) / name).relative_to(dataset.target).parts
        for folder, folders, names in os.walk(dataset.target)
        for name in (*names, *(one for one in folders if (one,) == ("folder",)))
    }

    assert found == expected
    listed = {entry.name: entry.inode() for entry in os.scandir(dataset.target / "many")}
    assert len(listed) == 1500
    assert listed["0007"] == (dataset.target / "many/0007").stat().st_ino


def test_attributes_and_refusals(dataset: MountedDataset) -> None:
    """Modes and times as documented; nothing can be written; a missing name is missing."""
    path = path_of(dataset, LARGE)
    seen = path.stat()

    assert stat.S_IMODE(seen.st_mode) == 0o444
    assert seen.st_mtime_ns == 1_700_000_000_123_456_789
    assert os.statvfs(dataset.target).f_files == len(FILES) - 1
    for refused in (path.unlink, (dataset.target / "new").touch, (dataset.target / "folder").rmdir):
        with pytest.raises(OSError, match="Read-only"):
            refused()
    with pytest.raises(FileNotFoundError):
        (dataset.target / "missing").stat()
    with pytest.raises(OSError, match=r"supported|No data"):
        os.getxattr(path, "user.anything")


def test_random_and_concurrent_readers(dataset: MountedDataset) -> None:
    """Eight threads read at random with and without the page cache, while others read from end to end."""
    data, path = FILES[LARGE], path_of(dataset, LARGE)
    wrong: list[str] = []

    def at_random(seed: int) -> None:
        chance = random.Random(seed)
        descriptor = os.open(path, os.O_RDONLY)
        for _ in range(100):
            offset, length = chance.randrange(len(data)), chance.choice((1, 4096, 70_000, 1 << 20))
            if os.pread(descriptor, length, offset) != data[offset : offset + length]:
                wrong.append(f"{offset}+{length}")
        os.close(descriptor)

    def whole(_: int) -> None:
        if path.read_bytes() != data:
            wrong.append("whole")

    threads = [threading.Thread(target=at_random if n % 2 else whole, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_direct_reads(dataset: MountedDataset) -> None:
    """O_DIRECT asks the server for every byte, also across chunk borders and past the end."""
    data = FILES[LARGE]
    descriptor = os.open(path_of(dataset, LARGE), os.O_RDONLY | os.O_DIRECT)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        for offset in (0, CHUNK_SIZE - 4096, 2 * CHUNK_SIZE - 512, len(data) - len(data) % 4096):
            assert os.pread(file.fileno(), 1 << 20, offset) == data[offset : offset + (1 << 20)]


def test_mapped_memory(dataset: MountedDataset) -> None:
    """The way in which safetensors reads; in a process of its own, for a page fault holds the interpreter's lock."""
    child = os.fork()
    if child == 0:
        import mmap

        with path_of(dataset, LARGE).open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            os._exit(0 if mapped[:] == FILES[LARGE] else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_worker_dies_while_files_are_read(dataset: MountedDataset) -> None:
    """Readers see no error and no wrong byte when one of two workers is killed under them."""
    started = threading.Event()
    results: list[bool] = []

    def read_all() -> None:
        for _ in range(5):
            drop_caches()
            results.append(path_of(dataset, LARGE).read_bytes() == FILES[LARGE])
            started.set()

    readers = [threading.Thread(target=read_all) for _ in range(2)]
    for reader in readers:
        reader.start()
    assert started.wait(20)
    dataset.workers[1].close()
    for reader in readers:
        reader.join()

    assert results == [True] * 10


def corrupt(connection: socket.socket, honest: bytes) -> bool:
    """Flip one bit of the payload."""
    connection.sendall(honest[:-9] + bytes([honest[-9] ^ 4]) + honest[-8:])
    return True


def silence(_connection: socket.socket, _honest: bytes) -> bool:
    """Take the request and say nothing."""
    return True


def cut(connection: socket.socket, honest: bytes) -> bool:
    """Break off in the middle."""
    connection.sendall(honest[: len(honest) // 3])
    connection.shutdown(socket.SHUT_RDWR)
    return True


@pytest.mark.parametrize("fault", [corrupt, cut])
def test_faults_on_the_way_never_reach_a_reader(
    dataset: MountedDataset, fault: Callable[[socket.socket, bytes], bool]
) -> None:
    """One worker damages everything that it sends."""
    dataset.workers[0].faults.extend([fault] * 200)

    assert path_of(dataset, LARGE).read_bytes() == FILES[LARGE]
    for number in range(0, 1500, 50):
        assert path_of(dataset, f"many/{number:04}").read_bytes() == FILES[f"many/{number:04}"]


def test_a_new_generation_shows(dataset: MountedDataset) -> None:
    """Changed, new and deleted names within the refresh interval; an open handle keeps its version or says ESTALE."""
    held = path_of(dataset, LARGE).open("rb")
    assert held.read(10) == FILES[LARGE][:10]
    assert path_of(dataset, "model/tiny").read_bytes() == b"x"
    assert not path_of(dataset, "model/new").exists()
    assert "new" not in names_in(dataset.target / "model")
    after = {key: (data, "v1") for key, data in FILES.items() if key != "empty"}
    after |= {"model/tiny": (b"changed", "v2"), "model/new": (b"new", "v1"), LARGE: (b"short now", "v2")}

    dataset.publish(after)
    eventually(lambda: path_of(dataset, "model/new").exists(), timeout=8, what="the new file shows")

    assert path_of(dataset, "model/tiny").read_bytes() == b"changed"
    assert path_of(dataset, LARGE).read_bytes() == b"short now"
    assert names_in(dataset.target / "model") == ["a b.safetensors", "new", "tiny"]
    assert not path_of(dataset, "empty").exists()
    assert os.fstat(held.fileno()).st_size == len(FILES[LARGE])
    held.close()


def test_a_changed_object_is_stale(dataset: MountedDataset) -> None:
    """The store no longer has the version that was opened."""

    def changed(connection: socket.socket, honest: bytes) -> bool:
        number = wire.decode_response(honest[: wire.RESPONSE.size]).id
        connection.sendall(wire.encode_response(wire.ResponseHead(ObjectChanged.code, 0, number, 2, 1, 0)))
        return True

    for worker in dataset.workers:
        worker.faults.extend([changed] * 50)

    with pytest.raises(OSError, match="tale") as caught:
        path_of(dataset, LARGE).read_bytes()
    assert caught.value.errno == errno.ESTALE


def test_silent_workers_hang_nobody(tmp_path: Path) -> None:
    """With nothing answering, reads fail in the stated time, and names and sizes are answered meanwhile."""
    files = {f"large{number}": os.urandom(CHUNK_SIZE + 1) for number in range(12)}
    with MountedDataset(tmp_path, files) as mounted:
        for worker in mounted.workers:
            worker.faults.extend([silence] * 500)
        mounted.mount("--answer-within=4")
        failures: list[int | None] = []

        def read(name: str) -> None:
            with pytest.raises(OSError, match="Input/output") as caught:
                (mounted.target / name).read_bytes()
            failures.append(caught.value.errno)

        began = time.monotonic()
        readers = [threading.Thread(target=read, args=(name,)) for name in files]
        for reader in readers:
            reader.start()
        eventually(
            lambda: sum(len(worker.requests) for worker in mounted.workers) > 4,
            timeout=15,
            interval=0.02,
            what="requests are under way",
        )
        asked = time.monotonic()
        assert names_in(mounted.target) == sorted(files)
        assert not (mounted.target / "missing").exists()
        assert os.statvfs(mounted.target).f_files == len(files)
        assert time.monotonic() - asked < 1
        for reader in readers:
            reader.join()

        assert failures == [errno.EIO] * len(files)
        assert time.monotonic() - began < 15


def test_unmounting_leaves_nothing(dataset: MountedDataset) -> None:
    """The process ends by itself and the mount is gone."""
    assert dataset.process is not None
    dataset.process.terminate()

    assert dataset.process.wait(timeout=15) == 0
    assert not dataset.is_mounted()


def test_no_worker_has_an_index(tmp_path: Path) -> None:
    """The server gives up in time and says why; nothing is mounted."""
    with MountedDataset(tmp_path, {"a": b"a"}) as mounted:
        for worker in mounted.workers:
            worker.index = (0, b"")
        with pytest.raises(AssertionError, match="no index of the dataset"):
            mounted.mount("--patience=1")


def test_the_kept_index_serves_without_workers(tmp_path: Path) -> None:
    """A mount comes up again from the last generation on the node, though no worker answers."""
    kept = tmp_path / "kept"
    kept.mkdir()
    with MountedDataset(tmp_path, {"a": b"a"}) as mounted:
        mounted.mount(f"--index-dir={kept}")
        assert mounted.process is not None
        mounted.process.terminate()
        mounted.process.wait(timeout=15)
        for worker in mounted.workers:
            worker.close()
        mounted.mount(f"--index-dir={kept}", "--patience=1")

        assert names_in(mounted.target) == ["a"]
