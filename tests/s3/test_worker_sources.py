"""Workers over sources of several kinds at once: a bucket, a claim, a web server; and what they count."""

import base64
import os
import re
from pathlib import Path
from typing import Any

import google_crc32c
import pytest

from forebay.direct import DirectSources
from forebay.index import Snapshot
from forebay.source.hedge import SHARE
from forebay_protocol import control
from forebay_protocol.dataset import Credentials, DatasetDocument, MountSpec
from forebay_protocol.errors import InvalidRequest
from forebay_protocol.keys import CHUNK_SIZE, ObjectVersion, Span
from testkit.buckets import Bucket
from testkit.sample_cluster import versions
from testkit.source_backends import Folder
from testkit.store_proxy import Ending, StoreAnswer, StoreProxy
from testkit.waiting import eventually
from testkit.worker_processes import WorkerCluster, WorkerProcess

BODIES = {"bucket": os.urandom(CHUNK_SIZE + 7), "claim": os.urandom(CHUNK_SIZE + 8), "web": os.urandom(CHUNK_SIZE + 9)}


def _metric(worker: WorkerProcess, name: str, missing: float | None = None) -> float:
    """The value of a counter; ``missing`` while nobody has counted."""
    text = worker.call("GET", control.METRICS)[1].decode()
    found = re.search(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    if found is None and missing is not None:
        return missing
    assert found, text
    return float(found[1])


def _by_mount(snapshot: Snapshot) -> dict[str, ObjectVersion]:
    """The one object of each mount."""
    return {one.mount: one for one in (snapshot.object(entry) for _, entry in snapshot.files())}


def test_one_dataset_of_three_kinds(
    bucket: Bucket, proxy: StoreProxy, web: tuple[str, Path], keys: Credentials, tmp_path: Path
) -> None:
    """Each byte is fetched once, whichever worker is asked; changes appear; nodes read S3 only."""
    claim, served = Folder(tmp_path / "claims" / "shared"), Folder(web[1] / "three-kinds")
    bucket.put({"one": BODIES["bucket"]})
    claim.put({"models/one": BODIES["claim"]})
    served.put({"one": BODIES["web"]})
    mounts = (
        MountSpec(name="bucket", source=f"s3://{bucket.name}", path="/bucket", endpoint=proxy.url),
        MountSpec(name="claim", source="pvc://shared/models", path="/claim"),
        MountSpec(name="web", source=f"{web[0]}/html/three-kinds", path="/web"),
    )
    document = DatasetDocument(uid="uid-1", namespace="team", name="data", mounts=mounts, refresh_seconds=1.0)
    flags = ("--claims-dir", str(tmp_path / "claims"))
    with WorkerCluster(tmp_path, document, {"bucket": keys}, flags=flags) as cluster:
        found = _by_mount(cluster.start(2).wait_for_index())
        for worker in cluster.workers:
            assert {name: worker.read(one) for name, one in found.items()} == BODIES
        fetched = sum(_metric(worker, "forebay_worker_origin_bytes_total") for worker in cluster.workers)
        assert fetched == sum(map(len, BODIES.values()))

        claim.put({"models/one": BODIES["web"]})
        fresh = eventually(
            lambda: _by_mount(cluster.wait_for_index())["claim"],
            timeout=30, what="the claim's new version is listed", until=lambda one: one != found["claim"],
        )  # fmt: skip
        assert cluster.workers[0].read(fresh) == BODIES["web"]

    node, buffer = DirectSources(document, {"bucket": keys}), memoryview(bytearray(10))
    node.read_into(found["bucket"], Span(5, 10), buffer)
    assert buffer == BODIES["bucket"][5:15]
    for name in ("claim", "web"):
        with pytest.raises(InvalidRequest, match="workers only"):
            node.read_into(found[name], Span(0, 10), buffer)
    node.close()


def test_a_worker_hedges_and_counts_it(bucket: Bucket, proxy: StoreProxy, keys: Credentials, tmp_path: Path) -> None:
    """One answer in many that does not come is overtaken, and the metrics say so."""
    bodies = {f"{number:03}": os.urandom(20_000) for number in range(130)}
    bucket.put(bodies)
    mount = MountSpec(name="bucket", source=f"s3://{bucket.name}", path="/", endpoint=proxy.url)
    document = DatasetDocument(uid="uid-1", namespace="team", name="data", mounts=(mount,), refresh_seconds=None)
    stalled: list[str] = []

    def stall_late(path: str, answer: StoreAnswer) -> None:
        if path.endswith("/125") and answer.status == 206 and not stalled:
            stalled.append(path)
            answer.cut, answer.ending = 0, Ending.STALL

    proxy.break_answers(stall_late)
    with WorkerCluster(tmp_path, document, {"bucket": keys}) as cluster:
        [worker] = cluster.start(1).workers
        objects = versions(cluster.wait_for_index())
        for key in sorted(bodies):
            assert worker.read(objects[key]) == bodies[key]

        assert stalled
        hedged, asked = (_metric(worker, f"forebay_worker_{name}_requests_total") for name in ("hedged", "origin"))
        assert 1 <= hedged <= SHARE * asked


@pytest.mark.parametrize("algorithm", ["MD5", "CRC32C"])
def test_a_bit_that_flips_in_a_large_object_is_found(
    bucket: Bucket, proxy: StoreProxy, keys: Credentials, tmp_path: Path, algorithm: str
) -> None:
    """Ranges over plain HTTP carry no checksum: the object is compared when it is whole, dropped, and fetched anew."""
    body = os.urandom(2 * CHUNK_SIZE + 99)
    checksum = base64.b64encode(google_crc32c.value(body).to_bytes(4, "big")).decode()
    extra: dict[str, Any] = {} if algorithm == "MD5" else {"ChecksumCRC32C": checksum}
    for key in ("flipped", "sound"):
        bucket.client.put_object(Bucket=bucket.name, Key=key, Body=body, **extra)
    mount = MountSpec(name="bucket", source=f"s3://{bucket.name}", path="/", endpoint=proxy.url)
    document = DatasetDocument(uid="uid-1", namespace="team", name="data", mounts=(mount,), refresh_seconds=None)
    flipped: list[str] = []

    def flip(path: str, answer: StoreAnswer) -> None:
        second = answer.status == 206 and answer.range.startswith(f"bytes={CHUNK_SIZE}-")
        if path.endswith("/flipped") and second and not flipped:
            flipped.append(path)
            answer.body = answer.body[:-1] + bytes([answer.body[-1] ^ 1])

    proxy.break_answers(flip)
    with WorkerCluster(tmp_path, document, {"bucket": keys}) as cluster:
        [worker] = cluster.start(1).workers
        objects = versions(cluster.wait_for_index())
        assert worker.read(objects["flipped"]) != body
        assert worker.read(objects["sound"]) == body

        for result in ("mismatched", "matched"):
            eventually(
                lambda: _metric(worker, f'forebay_worker_whole_objects_total{{result="{result}"}}', missing=0.0),
                timeout=30, what=f"an object {result}", until=lambda count: count == 1,
            )  # fmt: skip
        eventually(lambda: worker.read(objects["flipped"]) == body, timeout=30, what="the right bytes are served")
        eventually(
            lambda: _metric(worker, 'forebay_worker_whole_objects_total{result="matched"}', missing=0.0),
            timeout=30, what="both objects matched", until=lambda count: count == 2,
        )  # fmt: skip
