"""Two real workers before a real store that fail, or whose store, disk or files do."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from forebay.reader import ChunkReader
from forebay_protocol import control
from forebay_protocol.control import IndexState, WorkerStatus
from forebay_protocol.dataset import Credentials
from forebay_protocol.errors import ForebayError, SourceUnavailable
from forebay_protocol.keys import CHUNK_SIZE
from testkit.buckets import Bucket
from testkit.data_client import client_of
from testkit.sample_cluster import OBJECTS, TOTAL, Make, read_all, versions
from testkit.store_proxy import Fault, StoreAnswer, StoreProxy
from testkit.waiting import eventually
from testkit.worker_processes import MIB, TierFolder


def test_a_dead_worker_costs_no_error(make: Make) -> None:
    """The other worker answers for chunks that the dead one owns."""
    cluster = make().start(2)
    snapshot = cluster.wait_for_index()
    cluster.workers[1].end(signal.SIGKILL)
    survivor = cluster.workers[0]

    for one in versions(snapshot).values():
        assert survivor.read(one) == OBJECTS[one.key]


def _flip(file: Path) -> None:
    with file.open("r+b") as opened:
        first = opened.read(1)
        opened.seek(0)
        opened.write(bytes([first[0] ^ 0xFF]))


def _truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def test_damage_behind_the_workers_back_is_found(make: Make, proxy: StoreProxy) -> None:
    """Flipped, cut and deleted cache files: the status falls within 45 s, and no reader ever gets a wrong byte."""
    cluster = make().start(1)
    snapshot = cluster.wait_for_index()
    worker = cluster.workers[0]
    cluster.load_all()
    small, *_, large, largest = sorted(worker.cache_files(), key=lambda file: file.stat().st_size)
    lost = CHUNK_SIZE + small.stat().st_size

    _flip(largest)
    _truncate(large)
    small.unlink()

    def told(least: int, chunks: int) -> WorkerStatus:
        return eventually(
            worker.status, timeout=45, interval=0.5, what="the status tells of the damage",
            until=lambda seen: seen.cached_bytes <= TOTAL - least and seen.corrupt_chunks == chunks,
        )  # fmt: skip

    status = told(lost + CHUNK_SIZE, 3)
    assert status.cached_bytes == TOTAL - lost - CHUNK_SIZE
    assert worker.load("load").present_bytes == status.cached_bytes
    read_all(cluster, snapshot)
    assert worker.status().cached_bytes == TOTAL
    assert sum(proxy.object_bytes().values()) == TOTAL + lost + CHUNK_SIZE


def test_damage_is_found_by_the_first_use_after_a_restart(make: Make) -> None:
    """A byte that flipped while the worker was down is never served."""
    cluster = make().start(1)
    snapshot = cluster.wait_for_index()
    cluster.load_all()
    worker = cluster.workers[0]
    worker.end(signal.SIGKILL)
    _flip(max(worker.cache_files(), key=lambda file: file.stat().st_size))

    worker.start(cluster.document.uid)

    read_all(cluster, snapshot)
    assert worker.status().corrupt_chunks == 1


def test_wrong_credentials_are_told_and_mended_without_a_restart(make: Make) -> None:
    """The status names reason and mount within 15 s; new credentials in the folder are enough."""
    cluster = make()
    good = cluster.credentials
    cluster.credentials = {"data": Credentials(access_key_id="nobody", secret_access_key="never-told")}
    cluster.start(1)
    worker = cluster.workers[0]
    index = eventually(
        lambda: worker.status().index, timeout=15, what="the problem is told",
        until=lambda seen: seen.state is IndexState.FAILED,
    )  # fmt: skip
    assert [(problem.reason, problem.mount) for problem in index.problems] == [("InvalidCredentials", "data")]

    cluster.credentials = good
    cluster.write_access()

    cluster.wait_for_index(timeout=10)
    assert worker.status().index.problems == ()
    assert "never-told" not in worker.log.read_text()


def _unavailable(_: str, answer: StoreAnswer) -> None:
    answer.status, answer.headers = 503, {"Content-Type": "application/xml"}
    answer.body = b"<Error><Code>ServiceUnavailable</Code></Error>"


def test_a_store_that_is_down_is_told_and_cached_bytes_go_on(make: Make, proxy: StoreProxy) -> None:
    """Reads from the tiers work without the store; the status says that it cannot be reached, until it can."""
    cluster = make(refresh=1.0).start(1)
    snapshot = cluster.wait_for_index()
    cluster.load_all()

    proxy.break_answers(_unavailable)

    worker = cluster.workers[0]
    eventually(
        lambda: [problem.reason for problem in worker.status().index.problems], timeout=15, what="the problem is told",
        until=lambda seen: seen == ["EndpointUnreachable"],
    )  # fmt: skip
    read_all(cluster, snapshot)
    proxy.break_answers(None)
    eventually(lambda: not worker.status().index.problems, timeout=10, what="the problem is gone")


def test_a_failing_store_is_told_without_a_listing(make: Make, proxy: StoreProxy) -> None:
    """With refresh Never the reads are what notices; the problem goes without a further read."""
    cluster = make(refresh=None).start(1)
    snapshot = cluster.wait_for_index()
    worker = cluster.workers[0]
    proxy.break_answers(_unavailable)

    with pytest.raises(SourceUnavailable):
        worker.read(versions(snapshot)["model/one chunk"])

    assert [(one.reason, one.mount) for one in worker.status().problems] == [("EndpointUnreachable", "data")]
    proxy.break_answers(None)
    eventually(lambda: not worker.status().problems, timeout=10, what="the problem is gone")


def test_an_outage_that_nobody_reads_into_is_told(make: Make, proxy: StoreProxy) -> None:
    """Without a read and long before the next listing; and so is its end."""
    cluster = make(refresh=None).start(2)
    cluster.wait_for_index()

    proxy.break_answers(_unavailable)

    def told() -> set[str]:
        return {problem.reason for worker in cluster.workers for problem in worker.status().problems}

    eventually(told, timeout=15, what="the outage is told", until=lambda seen: seen == {"EndpointUnreachable"})
    proxy.break_answers(None)
    eventually(told, timeout=15, what="the problem is gone", until=lambda seen: not seen)


def test_a_quota_above_the_disk_is_told_and_clipped(make: Make) -> None:
    """The capacity in force is what the file system has; the worker serves all the same."""
    cluster = make(tiers=(TierFolder(medium="SSD", quota=1 << 60),)).start(1)
    snapshot = cluster.wait_for_index()

    read_all(cluster, snapshot)

    (tier,) = cluster.workers[0].status().tiers
    assert tier.problem is not None
    assert tier.problem.reason == "QuotaExceedsDisk"
    assert tier.capacity_bytes < 1 << 60


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB."""
    if os.geteuid() != 0:
        pytest.skip("a file system of its own needs root")
    folder = tmp_path / "small-disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_reads_through_and_recovers(make: Make, small_disk: Path) -> None:
    """Somebody else fills the disk: the bytes stay right, the status says so, and it mends itself."""
    cluster = make(tiers=(TierFolder(medium="SSD", quota=22 * MIB, path=small_disk / "tier"),)).start(1)
    snapshot = cluster.wait_for_index()
    worker = cluster.workers[0]
    filler = small_disk / "filler"
    with filler.open("wb") as file:
        room = os.statvfs(small_disk)
        os.posix_fallocate(file.fileno(), 0, room.f_bavail * room.f_frsize)

    read_all(cluster, snapshot)

    (tier,) = worker.status().tiers
    assert tier.problem is not None
    assert tier.problem.reason == "TierWriteFailed"
    filler.unlink()
    eventually(lambda: worker.status().tiers[0].problem is None, timeout=40, what="the tier is used again")
    cluster.load_all()
    assert worker.status().cached_bytes == TOTAL


@pytest.mark.parametrize("noise", [b"GET / HTTP/1.1\r\n\r\n", b"FBH1\xff\xff\xff\xff", os.urandom(100), b"FBH1"])
def test_noise_on_the_data_port_ends_the_connection(make: Make, noise: bytes) -> None:
    """Nothing is answered to what is no hello, and the worker goes on."""
    worker = make().start(1).workers[0]
    with socket.create_connection(("127.0.0.1", worker.data_port), timeout=20) as stream:
        stream.sendall(noise)
        stream.shutdown(socket.SHUT_WR)

        # A reset is what closing with unread bytes looks like from here.
        with contextlib.suppress(ConnectionResetError):
            assert stream.recv(100) == b""

    assert worker.call("GET", control.HEALTH)[0] == 200


def test_memory_stays_within_bounds_while_many_read_cold(make: Make, bucket: Bucket) -> None:
    """32 readers of 128 MiB that nobody has yet, with room for four chunks on their way: slower, but no larger."""
    big = {f"cold/{number}": os.urandom(8 * MIB) for number in range(16)}
    bucket.put(big)
    cluster = make(flags=("--fill-bytes", str(16 * MIB))).start(1)
    worker = cluster.workers[0]
    objects = versions(cluster.wait_for_index())
    idle = worker.resident_bytes()

    def read(number: int) -> bool:
        key = f"cold/{number % len(big)}"
        return worker.read(objects[key]) == big[key]

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(read, range(32)))

    # The peak holds the chunks, the copies that the library makes of them, and the stacks of the threads.
    assert worker.resident_bytes(peak=True) - idle < 80 * MIB


def _at_random(seed: int) -> Fault:
    """Breaks half of all answers of objects, in one way or another."""
    chance = random.Random(seed)

    def fault(_: str, answer: StoreAnswer) -> None:
        size = len(answer.body)
        if answer.status != 206 or chance.random() < 0.5:
            return
        match chance.randrange(5):
            case 0:
                answer.cut = chance.randrange(size)
            case 1:
                answer.headers["Content-Range"] = f"bytes 1-{size}/{size + 1}"
            case 2:
                answer.status = 200
                del answer.headers["Content-Range"]
                answer.body = os.urandom(size)
                answer.headers["ETag"] = '"0"'
            case 3:
                _unavailable("", answer)
            case _:
                answer.body = answer.body[: size // 2]
                answer.headers["Content-Length"] = str(len(answer.body))

    return fault


def test_a_store_that_answers_wrong_half_of_the_time_never_gives_wrong_bytes(make: Make, proxy: StoreProxy) -> None:
    """Every read is right or an error; once the store answers well again, all of them are right."""
    cluster = make(refresh=None).start(2)
    snapshot = cluster.wait_for_index()
    objects = [one for one in versions(snapshot).values() if one.size]
    proxy.break_answers(_at_random(7))
    outcomes: list[str] = []

    def read(number: int) -> None:
        one = objects[number % len(objects)]
        try:
            right = cluster.workers[number % 2].read(one) == OBJECTS[one.key]
        except ForebayError as error:
            outcomes.append(error.reason)
        else:
            outcomes.append("right" if right else "WRONG")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(3 * len(objects))))

    assert "WRONG" not in outcomes
    assert outcomes.count("right") > len(outcomes) / 2
    proxy.break_answers(None)
    read_all(cluster, snapshot)


def test_readers_notice_neither_a_killed_worker_nor_a_new_ring(make: Make) -> None:
    """Four readers go on while a worker is killed, comes back, leaves the ring and another one joins."""
    cluster = make().start(2)
    objects = list(versions(cluster.wait_for_index()).values())
    stop = threading.Event()
    wrong: list[str] = []
    rounds: list[int] = []

    def read_on(reader: ChunkReader) -> None:
        while not stop.is_set():
            wrong.extend(one.key for one in objects if reader.read(one, 0, one.size) != OBJECTS[one.key])
            rounds.append(1)

    def a_round_ends() -> None:
        begun = len(rounds)
        eventually(lambda: len(rounds) > begun + 4, timeout=60, what="the readers go on")

    with client_of(cluster) as reader, ThreadPoolExecutor(4) as pool:
        readers = [pool.submit(read_on, reader) for _ in range(4)]
        try:
            a_round_ends()
            cluster.workers[1].end(signal.SIGKILL)
            a_round_ends()
            cluster.workers[1].start(cluster.document.uid)
            cluster.start(1)
            a_round_ends()
            cluster.publish([cluster.workers[0].member, cluster.workers[2].member])
            a_round_ends()
        finally:
            stop.set()
        for future in readers:
            future.result()

    assert wrong == []
