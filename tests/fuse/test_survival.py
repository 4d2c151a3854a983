"""Mounts whose server is killed, again and again or for good."""

import json
import os
import random
import signal
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from forebay_protocol.dataset import CREDENTIALS_FILE, DATASET_FILE, KEYS_FILE, Credentials, DatasetDocument
from forebay_protocol.volume import DATASET_UID, WORKER_SERVICE
from testkit.buckets import Bucket
from testkit.kubelet import Kubelet
from testkit.proofs import Proof
from testkit.steady_reader import SteadyReader
from testkit.waiting import eventually
from testkit.worker_processes import MIB, WorkerCluster

CREDENTIALS = Credentials(access_key_id="id", secret_access_key="secret")
SIZE = 48 * MIB + 4096 * 7
READERS = ("direct", "direct", "direct", "direct", "buffered", "buffered", "buffered", "mapped")
CAME_AGAIN = "requests that a server before had not answered came again"


@pytest.fixture
def kubelet(store: str, tmp_path: Path) -> Iterator[Kubelet]:
    """A node plugin and a dataset of one file on a store, with two workers."""
    client = boto3.client(
        "s3", endpoint_url=store, region_name="us-east-1", aws_access_key_id=CREDENTIALS.access_key_id,
        aws_secret_access_key=CREDENTIALS.secret_access_key,
    )  # fmt: skip
    bucket = Bucket(store, f"test-{uuid.uuid4().hex[:16]}", client)
    client.create_bucket(Bucket=bucket.name)
    (tmp_path / "copy").write_bytes(os.urandom(SIZE))
    bucket.put({"folder/file": (tmp_path / "copy").read_bytes()})
    document = DatasetDocument(uid="uid", namespace="t", name="d", mounts=(bucket.mount(),), refresh_seconds=2.0)
    with WorkerCluster(tmp_path, document, {"data": CREDENTIALS}) as cluster:
        cluster.start(2).wait_for_index()
        names = {DATASET_FILE: "dataset.json", CREDENTIALS_FILE: "credentials.json", KEYS_FILE: "keys"}
        secrets = {name: (cluster.access / file).read_text() for name, file in names.items()}
        context = {DATASET_UID: "uid", WORKER_SERVICE: f"127.0.0.1:{cluster.workers[0].control_port}"}
        # A socket's path may have 107 bytes only.
        with tempfile.TemporaryDirectory(prefix="kl-", dir="/tmp") as folder:
            made = Kubelet(Path(folder), secrets, context)
            made.start()
            yield made
            made.end()


@pytest.mark.proof("mount-killed", quick=50, full=500)
@pytest.mark.timeout(3600)
def test_readers_do_not_notice_that_the_server_is_killed(kubelet: Kubelet, proof: Proof, tmp_path: Path) -> None:
    """A mount's server is killed under 8 readers: no error, no wrong byte, requests in flight at 80 % of the kills."""
    chance = random.Random(proof.rounds)
    target = kubelet.target("pod")
    kubelet.stage()
    kubelet.publish(target)
    readers = [
        SteadyReader(target / "folder/file", tmp_path / "copy", how, seed) for seed, how in enumerate(READERS)
    ]  # fmt: skip
    kills: list[float] = []
    for number in range(proof.rounds):
        # A server that ends a few times in a row within a second of its start would be given a pause.
        time.sleep(1.05 if number % 4 == 0 else chance.uniform(0.05, 0.5))
        killed = kubelet.server_pid
        kills.append(time.monotonic())
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: kubelet.server_pid != killed, timeout=30, interval=0.02, what="another server serves")

    seen = [reader.end() for reader in readers]

    in_flight = kubelet.log.read_text().count(CAME_AGAIN)
    long_reads = [read for one in seen for read in one.long_reads]
    stalls = sorted(_stall(kill, after, long_reads) for kill, after in zip(kills, [*kills[1:], 1e18], strict=True))
    proof.counts["kills"] = len(kills)
    proof.counts["kills with requests in flight"] = in_flight
    proof.counts["reads"] = sum(one.reads for one in seen)
    proof.counts["errors"] = sum(len(one.errors) for one in seen)
    proof.counts["wrong"] = sum(one.wrong for one in seen)
    proof.counts["ms of stall, median"] = round(1000 * stalls[len(stalls) // 2])
    proof.counts["ms of stall, p99"] = round(1000 * stalls[len(stalls) * 99 // 100])
    print(json.dumps(proof.counts))
    assert [error for one in seen for error in one.errors] == []
    assert proof.counts["wrong"] == 0
    assert all(one.reads > 0 for one in seen)
    assert in_flight >= 0.8 * len(kills)
    kubelet.unpublish(target)
    kubelet.unstage()


def _stall(kill: float, next_kill: float, reads: list[tuple[float, float]]) -> float:
    """The longest that any reader waited for what it read when the server was killed."""
    return max((ended - max(began, kill) for began, ended in reads if kill < ended and began < next_kill), default=0.0)
