"""Two real workers before a real store: every byte right, fetched once, and honest about what is cached."""

import json
import os
import signal
import socket
import threading
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from forebay_protocol import control, wire
from forebay_protocol.control import LoadRequest, LoadState
from forebay_protocol.dataset import Credentials
from forebay_protocol.errors import InvalidRequest, NotCached, ObjectChanged, Unauthorized
from forebay_protocol.keys import BLOCK_SIZE, ObjectVersion
from forebay_protocol.ring import Layout
from forebay_protocol.wire import Flag, ReadRequest
from testkit.buckets import Bucket
from testkit.sample_cluster import OBJECTS, TOTAL, Make, document, read_all, versions
from testkit.store_proxy import StoreProxy
from testkit.waiting import eventually
from testkit.worker_processes import MIB, TierFolder, WorkerCluster, draining


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


def test_what_is_read_again_is_right_counted_and_tells_the_newest_epoch(make: Make) -> None:
    """Small and large ranges over and over on one stream, while the ring changes."""
    cluster = make(refresh=None).start(1)
    worker = cluster.workers[0]
    objects = [one for one in versions(cluster.wait_for_index()).values() if one.size]
    hits = 0
    with closing(worker.connect()) as connection:
        for turn in range(5):
            for one in objects:
                whole = memoryview(bytearray(one.size))
                for number in one.chunks():
                    span = one.chunk_span(number)
                    connection.read_into(ReadRequest(0, one, *span), whole[span.offset : span.end])
                assert whole == OBJECTS[one.key], one.key
                hits += one.size if turn else 0
            assert connection.last_head is not None
            assert connection.last_head.epoch == cluster.epoch
            cluster.publish()
    eventually(lambda: worker.status().window_hit_bytes == hits, timeout=10, what="all hits are counted")


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


def test_a_token_reads_its_own_dataset_only(make: Make, proxy: StoreProxy) -> None:
    """Whatever else the request says: the bytes that the worker has for one dataset are of no other."""
    cluster = make().start(1)
    one = versions(cluster.wait_for_index())["model/one chunk"]
    cluster.workers[0].read(one)
    before = proxy.object_bytes()

    with pytest.raises(InvalidRequest):
        cluster.workers[0].read(replace(one, dataset="uid-2"))

    assert proxy.object_bytes() == before


def test_asking_for_cached_bytes_only_fetches_nothing(make: Make, proxy: StoreProxy) -> None:
    """CACHED_ONLY answers NotCached, and the store hears nothing."""
    cluster = make().start(1)
    one = versions(cluster.wait_for_index())["model/one chunk"]

    with pytest.raises(NotCached):
        cluster.workers[0].read(one, Flag.CACHED_ONLY)

    assert proxy.object_bytes() == {}


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


def test_readers_who_know_more_than_a_worker_share_what_it_fetches(
    make: Make, bucket: Bucket, proxy: StoreProxy
) -> None:
    """A full worker whose index does not show an object yet keeps it for the reader who follows, all the same."""
    filling = {f"fill/{number:02}": os.urandom(4 * MIB) for number in range(14)}
    bucket.put(filling)
    cluster = make(refresh=None, tiers=(TierFolder(quota=64 * MIB),)).start(1)
    cluster.wait_for_index()
    cluster.load_all(paths=("/fill",))
    body = os.urandom(10 * MIB)
    etag = bucket.client.put_object(Bucket=bucket.name, Key="new", Body=body)["ETag"].strip('"')
    new = ObjectVersion(cluster.document.uid, "data", "new", etag, len(body))

    assert [cluster.workers[0].read(new), cluster.workers[0].read(new)] == [body, body]

    assert proxy.object_bytes()[f"/{bucket.name}/new"] == len(body)
