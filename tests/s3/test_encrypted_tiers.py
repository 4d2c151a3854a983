"""A real worker whose disk tier is encrypted: everything works, and the disk has no byte of the objects."""

import signal
from pathlib import Path

import pytest

from forebay_protocol.keys import CHUNK_SIZE
from testkit.sample_cluster import OBJECTS, TOTAL, Make, read_all
from testkit.store_proxy import StoreProxy
from testkit.waiting import eventually
from testkit.worker_processes import TierFolder, WorkerCluster
from testkit.worker_tls import TlsFolder

KEY, OTHER = "0123456789abcdef" * 4, "fedcba9876543210" * 4


@pytest.fixture
def cluster(make: Make) -> WorkerCluster:
    """One worker with one SSD tier."""
    return make(tiers=(TierFolder(medium="SSD", encrypted=True),), data_key=KEY)


def on_disk(cluster: WorkerCluster) -> bytes:
    """All that the worker's folder holds in files, its catalogue and state included."""
    return b"".join(file.read_bytes() for file in cluster.workers[0].folder.rglob("*") if file.is_file())


def test_the_disk_holds_nothing_of_the_objects(cluster: WorkerCluster, proxy: StoreProxy, tmp_path: Path) -> None:
    """Cold, warm, warm after a kill, over TLS; each byte is fetched once, and none is on the disk in the plain."""
    cluster.tls = TlsFolder(tmp_path / "tls", cluster.document)
    cluster.start(1)
    worker = cluster.workers[0]
    snapshot = cluster.wait_for_index()
    read_all(cluster, snapshot)
    read_all(cluster, snapshot)
    worker.end(signal.SIGKILL)
    worker.start(cluster.document.uid)
    read_all(cluster, snapshot)

    assert sum(proxy.object_bytes().values()) == TOTAL
    assert worker.status().corrupt_chunks == 0
    disk = on_disk(cluster)
    assert len(disk) > TOTAL
    for body in OBJECTS.values():
        for start in range(0, len(body) - 64, CHUNK_SIZE // 2):
            assert body[start : start + 64] not in disk


def test_another_key_empties_the_tier(cluster: WorkerCluster) -> None:
    """While the worker runs: what was there is dropped, nothing is wrong, and the tier fills again."""
    cluster.start(1)
    worker = cluster.workers[0]
    snapshot = cluster.wait_for_index()
    cluster.load_all()
    assert worker.status().cached_bytes == TOTAL

    cluster.write_data_key(OTHER)
    eventually(lambda: worker.status().held_bytes, timeout=20, what="the tier is empty", until=lambda held: held == 0)
    read_all(cluster, snapshot)

    status = eventually(
        worker.status, timeout=20, what="it is full again", until=lambda seen: seen.cached_bytes == TOTAL
    )
    assert status.corrupt_chunks == 0


def test_without_its_key_a_tier_holds_nothing(cluster: WorkerCluster) -> None:
    """Reads go through to the store, and the status says what is missing."""
    cluster.data_key = ""
    cluster.start(1)
    worker = cluster.workers[0]
    snapshot = cluster.wait_for_index()

    read_all(cluster, snapshot)

    (tier,) = worker.status().tiers
    assert tier.problem is not None
    assert "no data key" in tier.problem.message
    assert worker.cache_files() == []
