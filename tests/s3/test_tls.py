"""Real workers that speak TLS to clients and to each other, and refuse everything else."""

import asyncio
import http.client
import os
import socket
import ssl
import subprocess
import sys
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from forebay.connection import Timeouts, WorkerConnection
from forebay.control import ControlClient
from forebay.tls import ClientTls
from forebay_operator.model import certificates
from forebay_operator.workers.client import Approach, WorkersClient
from forebay_protocol import control, wire
from forebay_protocol.control import WorkerStatus
from forebay_protocol.errors import WorkerUnavailable
from forebay_protocol.keys import BLOCK_SIZE
from forebay_protocol.ring import Layout
from forebay_protocol.wire import ReadRequest
from testkit.sample_cluster import OBJECTS, Make, read_all, versions
from testkit.waiting import eventually
from testkit.worker_processes import WorkerCluster, WorkerProcess
from testkit.worker_tls import TlsFolder


@pytest.fixture
def cluster(make: Make, tmp_path: Path) -> WorkerCluster:
    """Two workers that replicate everything to each other over TLS."""
    made = make()
    made.tls = TlsFolder(tmp_path / "tls", made.document)
    return made


def test_everything_works_over_tls(cluster: WorkerCluster) -> None:
    """Index from worker to worker, chunks from worker to worker, reads of all sizes, the ring: nothing is plain."""
    cluster.start(2, Layout.REPLICATED)
    snapshot = cluster.wait_for_index()

    read_all(cluster, snapshot)
    read_all(cluster, snapshot)

    assert sum(worker.status().peer_bytes for worker in cluster.workers) > 0
    assert cluster.workers[0].control().ring().epoch == cluster.epoch


def test_plain_text_is_refused(cluster: WorkerCluster) -> None:
    """Neither port answers a client without TLS, and a token that such a client sends opens nothing."""
    cluster.start(1)
    worker = cluster.workers[0]

    with pytest.raises(WorkerUnavailable):
        WorkerConnection("127.0.0.1", worker.data_port, worker.token)
    with pytest.raises(WorkerUnavailable):
        ControlClient("127.0.0.1", worker.control_port, worker.token).status()
    with socket.create_connection(("127.0.0.1", worker.data_port), timeout=20) as stream:
        answer = b""
        with suppress(ConnectionResetError):
            stream.sendall(wire.encode_hello(worker.token()))
            answer = stream.recv(64)
    assert answer[:4] != wire.RESPONSE_MAGIC
    assert worker.status().id == worker.id


def _refused(cluster: WorkerCluster, tls: ClientTls, why: str) -> None:
    worker = cluster.workers[0]
    with pytest.raises(WorkerUnavailable, match=why):
        WorkerConnection("127.0.0.1", worker.data_port, worker.token, tls=tls)
    with pytest.raises(WorkerUnavailable, match=why):
        ControlClient("127.0.0.1", worker.control_port, worker.token, tls=tls).status()


def test_others_certificates_are_refused(cluster: WorkerCluster) -> None:
    """A worker of another authority, of another dataset's name, and an impostor with a certificate of his own."""
    cluster.start(1)
    assert cluster.tls is not None
    authority = certificates.make_authority(cluster.tls.host, datetime.now(UTC))

    _refused(cluster, ClientTls.of(authority.certificate, cluster.tls.host), "self-signed|unable to get")
    _refused(cluster, ClientTls.of(cluster.tls.authority.certificate, "other-worker.team.svc"), "Hostname mismatch")


def test_certificates_change_without_a_restart(cluster: WorkerCluster) -> None:
    """An expired one is refused; what replaces it is in force within seconds, also between workers."""
    cluster.start(2, Layout.REPLICATED)
    assert cluster.tls is not None
    tls, worker = cluster.tls, cluster.workers[0]
    snapshot = cluster.wait_for_index()
    kept = worker.connect()

    tls.write(life=timedelta(minutes=30), age=timedelta(hours=2))

    def refused(by: WorkerProcess) -> bool:
        try:
            by.connect().close()
        except WorkerUnavailable as error:
            return "expired" in error.message
        return False

    eventually(lambda: all(map(refused, cluster.workers)), timeout=20, what="the expired certificate is refused")
    _refused(cluster, tls.client(), "expired")
    # A stream that began before is not cut.
    one = versions(snapshot)["model/one chunk"]
    buffer = memoryview(bytearray(BLOCK_SIZE))
    with closing(kept):
        kept.read_into(ReadRequest(0, one, 0, BLOCK_SIZE), buffer)
    assert buffer == OBJECTS[one.key][:BLOCK_SIZE]

    tls.write()
    eventually(lambda: not any(map(refused, cluster.workers)), timeout=20, what="the new certificate is in force")
    read_all(cluster, snapshot)


def test_a_silent_client_does_not_hold_a_worker(cluster: WorkerCluster) -> None:
    """Who connects and never shakes hands costs nobody else anything, and answers still have a limit in time."""
    cluster.start(1)
    worker = cluster.workers[0]
    silent = [socket.create_connection(("127.0.0.1", port)) for port in (worker.data_port, worker.control_port)]

    assert worker.status().id == worker.id
    with closing(worker.connect()) as connection:
        assert not connection.closed
    for stream in silent:
        stream.close()
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port, hurry = mute.getsockname()[1], Timeouts(connect=0.5)
        with pytest.raises(WorkerUnavailable, match="TLS"):
            WorkerConnection("127.0.0.1", port, worker.token, hurry, tls=worker.tls)


def test_a_worker_without_its_certificate_does_not_start(tmp_path: Path) -> None:
    """Rather no worker than a plain one."""
    argv = [sys.executable, "-m", "forebay_worker", "--id", "w", "--access-dir", str(tmp_path), "--state-dir"]
    argv += [str(tmp_path / "state"), "--tls-dir", str(tmp_path), "--tier", f"medium=SSD,path={tmp_path}/t,quota=99"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}

    ended = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode != 0
    assert "tls.crt" in ended.stderr


def test_probes_reach_a_worker_over_https(cluster: WorkerCluster) -> None:
    """The kubelet's way: HTTPS without verifying, without a token."""
    cluster.start(1)
    worker = cluster.workers[0]

    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE

    with closing(http.client.HTTPSConnection("127.0.0.1", worker.control_port, context=unverified)) as probe:
        probe.request("GET", control.HEALTH)
        assert probe.getresponse().status == 200


def test_the_operator_verifies_workers(cluster: WorkerCluster) -> None:
    """Its client asks over HTTPS; a worker of another authority is one that does not answer."""
    cluster.start(1)
    worker = cluster.workers[0]
    assert cluster.tls is not None
    right, other = cluster.tls.client(), certificates.make_authority(cluster.tls.host, datetime.now(UTC))
    wrong = ClientTls.of(other.certificate, cluster.tls.host)

    async def ask(tls: ClientTls | None) -> WorkerStatus | None:
        client = WorkersClient(worker.control_port)
        try:
            return await client.status("127.0.0.1", Approach(worker.token(), tls))
        finally:
            await client.close()

    found = asyncio.run(ask(right))
    assert found is not None
    assert found.id == worker.id
    assert asyncio.run(ask(wrong)) is None
    assert asyncio.run(ask(None)) is None
