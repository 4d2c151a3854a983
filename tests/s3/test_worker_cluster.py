"""Two real workers before a real store: every byte right, fetched once, and honest about what is cached."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from forebay.index import Snapshot
from forebay_protocol import control, wire
from forebay_protocol.control import IndexState, LoadRequest, LoadState, WorkerStatus
from forebay_protocol.dataset import Credentials, DatasetDocument
from forebay_protocol.errors import ForebayError, InvalidRequest, NotCached, ObjectChanged, Unauthorized
from forebay_protocol.keys import BLOCK_SIZE, CHUNK_SIZE, ObjectVersion
from forebay_protocol.ring import Layout
from forebay_protocol.wire import Flag
from testkit.buckets import Bucket
from testkit.store_proxy import Fault, StoreAnswer, StoreProxy
from testkit.waiting import eventually
from testkit.worker_processes import MIB, TierFolder, WorkerCluster, draining

OBJECTS = {
    "model/big.safetensors": os.urandom(3 * CHUNK_SIZE + 12345),
    "model/one chunk": os.urandom(CHUNK_SIZE),
    "ünï/çødé %2F+.txt": "ü".encode() * 5000,
    "empty": b"",
    **{f"small/{number:03}": os.urandom(100 + number) for number in range(60)},
}
TOTAL = sum(map(len, OBJECTS.values()))

Make = Callable[..., WorkerCluster]


def document(bucket: Bucket, endpoint: str, refresh: float | None = 2.0) -> DatasetDocument:
    """The whole bucket as a dataset."""
    mount = bucket.mount(endpoint=endpoint)
    return DatasetDocument(uid="uid-1", namespace="team", name="data", mounts=(mount,), refresh_seconds=refresh)


@pytest.fixture
def make(bucket: Bucket, proxy: StoreProxy, keys: Credentials, tmp_path: Path) -> Iterator[Make]:
    """Makes clusters over OBJECTS and ends them."""
    bucket.put(OBJECTS)
    made: list[WorkerCluster] = []

    def build(refresh: float | None = 2.0, **options: object) -> WorkerCluster:
        folder = tmp_path / f"cluster{len(made)}"
        folder.mkdir()
        made.append(
            WorkerCluster(folder, document(bucket, proxy.url, refresh), {"data": keys}, **options)  # type: ignore[arg-type]
        )
        return made[-1]

    yield build
    for cluster in made:
        cluster.__exit__()


def versions(snapshot: Snapshot) -> dict[str, ObjectVersion]:
    """All objects of an index, by key."""
    return {entry.key: snapshot.object(entry) for _, entry in snapshot.files()}


def read_all(cluster: WorkerCluster, snapshot: Snapshot) -> None:
    """Read everything through every worker and compare."""
    for one in versions(snapshot).values():
        for worker in cluster.workers:
            assert worker.read(one) == OBJECTS[one.key], one.key


def test_every_byte_is_right_and_fetched_once(make: Make, proxy: StoreProxy) -> None:
    """Both workers are read cold, at the same time, by several readers; the proxy saw each byte once."""
    cluster = make().start(2)
    snapshot = cluster.wait_for_index()
    threads = [threading.Thread(target=read_all, args=(cluster, snapshot)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    read_all(cluster, snapshot)

    fetched = {path.split("/", 2)[2]: count for path, count in proxy.object_bytes().items()}
    assert fetched == {key: len(body) for key, body in OBJECTS.items() if body}
    assert (snapshot.file_count, snapshot.total_bytes) == (len(OBJECTS), TOTAL)
    assert cluster.cached_bytes() == TOTAL
    assert sum(worker.status().origin_bytes for worker in cluster.workers) == TOTAL


def test_a_load_brings_everything_and_says_so(make: Make, proxy: StoreProxy) -> None:
    """Each worker loads its own share; the bit maps agree; reading afterwards asks the store for nothing."""
    cluster = make().start(2)
    snapshot = cluster.wait_for_index()

    reports = cluster.load_all()

    assert control.loaded_files(tuple(reports)) == len(OBJECTS)
    assert sum(report.present_bytes for report in reports) == sum(report.own_bytes for report in reports) == TOTAL
    before = proxy.object_bytes()
    read_all(cluster, snapshot)
    assert proxy.object_bytes() == before
    assert cluster.workers[0].call("DELETE", f"{control.LOADS}/load")[0] == 204
    assert cluster.workers[0].call("GET", f"{control.LOADS}/load")[0] == 404


def test_a_load_takes_only_what_its_globs_select(make: Make) -> None:
    """Two globs; nothing else is fetched."""
    cluster = make().start(2)
    cluster.wait_for_index()

    reports = cluster.load_all(paths=("/small/00*", "/model/*.safetensors"))

    selected = [key for key in OBJECTS if key.startswith("small/00") or key.endswith(".safetensors")]
    assert reports[0].total_files == len(selected)
    assert cluster.cached_bytes() == sum(len(OBJECTS[key]) for key in selected)


def test_replicated_workers_hold_everything_and_it_counts_once(make: Make, proxy: StoreProxy) -> None:
    """Every worker has all bytes after a load; the second copy came from the peer, not from the store."""
    cluster = make()
    cluster.start(2, layout=Layout.REPLICATED)
    cluster.wait_for_index()

    cluster.load_all()

    assert [worker.status().held_bytes for worker in cluster.workers] == [TOTAL, TOTAL]
    assert cluster.cached_bytes() == TOTAL
    assert sum(proxy.object_bytes().values()) == TOTAL


def test_memory_ssd_and_eviction_give_the_same_bytes(make: Make) -> None:
    """A memory tier that holds two chunks overflows into a small SSD tier, which evicts; bytes stay right."""
    tiers = (
        TierFolder(medium="Memory", quota=9 * MIB),
        TierFolder(medium="SSD", quota=6 * MIB),
    )
    cluster = make(tiers=tiers).start(1)
    snapshot = cluster.wait_for_index()

    read_all(cluster, snapshot)
    read_all(cluster, snapshot)

    status = cluster.workers[0].status()
    assert all(0 < tier.used_bytes <= tier.capacity_bytes for tier in status.tiers)
    assert status.held_bytes < TOTAL
    on_disk = sum(file.stat().st_blocks * 512 for file in cluster.workers[0].cache_files())
    assert on_disk <= 15 * MIB + 4096 * len(OBJECTS)


def test_a_killed_worker_starts_warm(make: Make, proxy: StoreProxy) -> None:
    """After SIGKILL everything that was cached is there again, verified, without asking the store."""
    cluster = make().start(1)
    snapshot = cluster.wait_for_index()
    cluster.load_all()
    before = proxy.object_bytes()

    cluster.workers[0].end(signal.SIGKILL)
    cluster.workers[0].start(cluster.document.uid)

    eventually(cluster.cached_bytes, timeout=20, what="all is verified again", until=lambda seen: seen == TOTAL)
    read_all(cluster, snapshot)
    assert proxy.object_bytes() == before
    assert cluster.workers[0].status().epoch == cluster.epoch
    assert cluster.workers[0].load("load").state is LoadState.COMPLETE


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


def test_an_overwritten_object_is_an_error_then_the_new_version(make: Make, bucket: Bucket) -> None:
    """The old version is ObjectChanged, the index follows within its interval, new readers get the new bytes."""
    cluster = make(refresh=600.0).start(2)
    snapshot = cluster.wait_for_index()
    fresh = os.urandom(len(OBJECTS["model/one chunk"]))
    bucket.put({"model/one chunk": fresh})

    # The one who meets it is not the one who lists.
    with pytest.raises(ObjectChanged):
        cluster.workers[1].read(versions(snapshot)["model/one chunk"], Flag.PEER)

    newer = cluster.wait_for_index(snapshot.generation + 1)
    assert cluster.workers[1].read(versions(newer)["model/one chunk"]) == fresh


def test_a_new_object_appears_within_the_interval_and_nothing_changes_otherwise(make: Make, bucket: Bucket) -> None:
    """An unchanged bucket keeps its generation; a new object makes a new one, on both workers."""
    cluster = make(refresh=1.0).start(2)
    first = cluster.wait_for_index()
    checked = cluster.workers[0].call("GET", control.METRICS)[1]
    assert b"forebay_worker_index_generation" in checked

    bucket.put({"later": b"came later"})

    second = cluster.wait_for_index(first.generation + 1, timeout=10)
    assert cluster.workers[1].read(versions(second)["later"]) == b"came later"
    assert {worker.status().index.generation for worker in cluster.workers} == {second.generation}


def test_scaling_out_takes_the_chunks_from_their_former_owner(make: Make, proxy: StoreProxy) -> None:
    """The new owner asks the old one; the store is asked for nothing, and no byte counts twice."""
    cluster = make().start(1)
    snapshot = cluster.wait_for_index()
    cluster.load_all()
    before = proxy.object_bytes()

    cluster.start(1)

    eventually(
        lambda: cluster.workers[0].load("load").state, timeout=20, what="the load is re-planned",
        until=lambda state: state is LoadState.COMPLETE,
    )  # fmt: skip
    read_all(cluster, snapshot)
    assert proxy.object_bytes() == before
    eventually(cluster.cached_bytes, timeout=10, what="each byte counts once", until=lambda seen: seen == TOTAL)


def test_a_draining_members_chunks_come_from_it(make: Make, proxy: StoreProxy) -> None:
    """Whoever leaves is asked before the store."""
    cluster = make().start(2)
    snapshot = cluster.wait_for_index()
    cluster.load_all()
    before = proxy.object_bytes()

    cluster.publish([cluster.workers[0].member, draining(cluster.workers[1].member)])

    for one in versions(snapshot).values():
        assert cluster.workers[0].read(one) == OBJECTS[one.key]
    assert proxy.object_bytes() == before


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


def test_a_load_that_cannot_fit_says_so(make: Make) -> None:
    """What fits is loaded; the problem names the next step."""
    cluster = make(tiers=(TierFolder(quota=10 * MIB),)).start(1)
    cluster.wait_for_index()
    worker = cluster.workers[0]
    worker.load("load", LoadRequest())

    report = eventually(
        lambda: worker.load("load"),
        timeout=30,
        what="the load failed",
        until=lambda seen: seen.state is LoadState.FAILED,
    )

    assert [problem.reason for problem in report.problems] == ["CapacityExceeded"]
    assert 0 < report.present_bytes < report.own_bytes
    assert report.failed_files > 0


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


def test_a_load_survives_a_restart(make: Make) -> None:
    """The request is kept; the worker goes on with it when it is back."""
    cluster = make().start(1)
    cluster.wait_for_index()
    worker = cluster.workers[0]
    worker.load("load", LoadRequest(paths=("/small",)))
    worker.end(signal.SIGKILL)

    worker.start(cluster.document.uid)

    eventually(
        lambda: worker.load("load").state, timeout=20, what="the load goes on",
        until=lambda state: state is LoadState.COMPLETE,
    )  # fmt: skip
    worker.load("load", LoadRequest(paths=("/small",), generation=1))
    worker.load("waits", LoadRequest(generation=1 << 40))
    assert worker.load("waits").state is LoadState.PENDING


def test_pipelined_requests_are_answered_in_order(make: Make) -> None:
    """Ten requests in one write, ten answers in their order, an error among them."""
    cluster = make().start(1)
    one = versions(cluster.wait_for_index())["model/one chunk"]
    worker = cluster.workers[0]
    requests = [wire.ReadRequest(number, one, number * BLOCK_SIZE, BLOCK_SIZE) for number in range(10)]
    requests[4] = replace(requests[4], length=BLOCK_SIZE + 1)

    with socket.create_connection(("127.0.0.1", worker.data_port)) as stream, stream.makefile("rb") as incoming:
        stream.sendall(wire.encode_hello(worker.token()) + b"".join(map(wire.encode_request, requests)))
        heads = []
        for _ in range(11):
            head = wire.decode_response(incoming.read(wire.RESPONSE.size))
            incoming.read(4 * head.blocks)
            heads.append((head.id, head.status, incoming.read(head.length)))

    assert heads[0][:2] == (0, 0)
    assert [head[0] for head in heads[1:]] == list(range(10))
    assert heads[5][1] == InvalidRequest.code
    body = OBJECTS[one.key]
    expected = [body[number * BLOCK_SIZE : (number + 1) * BLOCK_SIZE] for number in range(10) if number != 4]
    assert [head[2] for head in heads[1:] if head[1] == 0] == expected


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


def test_another_dataset_starts_empty(make: Make) -> None:
    """When the folder names another dataset, nothing of the old one is left in the tiers."""
    cluster = make().start(1)
    cluster.wait_for_index()
    cluster.load_all()
    worker = cluster.workers[0]

    cluster.document = replace(cluster.document, uid="uid-2")
    cluster.write_access()
    worker._uid = "uid-2"

    eventually(lambda: not worker.cache_files(), timeout=10, what="the old files are gone")
    newer = cluster.wait_for_index()
    read_all(cluster, newer)


def test_nothing_opens_without_a_token(make: Make) -> None:
    """Control and data refuse a missing, a foreign and a wrong token; health and metrics are open."""
    cluster = make().start(1)
    snapshot = cluster.wait_for_index()
    worker = cluster.workers[0]
    for token in ("", "v1.9999999999.forged"):
        assert worker.call("GET", control.STATUS, token=token)[0] == 401
    assert worker.call("GET", control.HEALTH, token="")[0] == 200
    worker._uid = "another"

    with pytest.raises(Unauthorized):
        worker.read(versions(snapshot)["model/one chunk"])


def test_asking_for_cached_bytes_only_fetches_nothing(make: Make, proxy: StoreProxy) -> None:
    """CACHED_ONLY answers NotCached, and the store hears nothing."""
    cluster = make().start(1)
    one = versions(cluster.wait_for_index())["model/one chunk"]

    with pytest.raises(NotCached):
        cluster.workers[0].read(one, Flag.CACHED_ONLY)

    assert proxy.object_bytes() == {}


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
    assert worker.resident_bytes(peak=True) - idle < 120 * MIB


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


def test_sigterm_ends_quickly_and_cleanly(make: Make) -> None:
    """Exit code 0 well within ten seconds, also with connections open."""
    cluster = make().start(1)
    cluster.wait_for_index()
    worker = cluster.workers[0]
    idle = worker.connect()
    start = time.monotonic()

    code = worker.end(signal.SIGTERM)

    idle.close()
    assert code == 0
    assert time.monotonic() - start < 5
    events = [json.loads(line)["event"] for line in worker.log.read_text().splitlines()]
    assert events[-1] == "worker stopped"


def test_an_object_beside_a_folder_of_its_name(moto_bucket: Bucket, keys: Credentials, tmp_path: Path) -> None:
    """As S3 allows and MinIO does not: the folder wins, the hidden object is counted."""
    moto_bucket.put({"a": b"hidden", "a/b": b"shown", "c//d": b"escaped", "../e": b"no escape"})
    with WorkerCluster(tmp_path, document(moto_bucket, moto_bucket.endpoint), {"data": keys}) as cluster:
        snapshot = cluster.start(1).wait_for_index()

        paths = {path: entry.key for path, entry in snapshot.files()}
        assert paths == {"/.forebay-../e": "../e", "/a/b": "a/b", "/c/.forebay-/d": "c//d"}
        assert snapshot.hidden_count == 1
        assert cluster.workers[0].read(versions(snapshot)["a/b"]) == b"shown"
        assert cluster.workers[0].read(versions(snapshot)["c//d"]) == b"escaped"
