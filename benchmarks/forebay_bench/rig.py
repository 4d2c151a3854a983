"""What the questions run on: a real S3 server in a network namespace, real workers, folders in memory."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path

from forebay_protocol.dataset import Credentials, DatasetDocument, MountSpec
from testkit.cluster.teardown import Teardown
from testkit.own_network import OwnNetwork
from testkit.progress import Progress
from testkit.settings import Settings
from testkit.store import Store
from testkit.waiting import eventually
from testkit.worker_processes import MIB, TierFolder, WorkerCluster

MEMORY = Path("/dev/shm")  # noqa: S108 - a file system in memory is wanted
SETTINGS = Settings(
    name="fb-bench",
    prefix="fbbn",
    network=IPv4Network("10.79.0.0/16"),
    state_dir=Path("/run/fb-bench"),
    data_dir=Path("/var/lib/fb-bench"),
)
UID = "bench-uid"


@contextmanager
def folder_in_memory() -> Iterator[Path]:
    """A folder on tmpfs, removed afterwards."""
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="forebay-bench-") as folder:
        yield Path(folder)


@contextmanager
def store(progress: Progress, mbit: int | None = None) -> Iterator[Store]:
    """The S3 server, its link limited where a rate is given; everything is removed afterwards."""
    running = Store(SETTINGS, progress)
    try:
        running.up()
        running.set_rate(mbit)
        # Ready is what the server says of itself a moment before it takes requests.
        eventually(lambda: running.request("GET", "").status == 200, timeout=30, what="the S3 server lists its buckets")
        yield running
    finally:
        left = Teardown(SETTINGS, progress).run()
        if left:
            raise RuntimeError(f"the bench's network could not be removed: {', '.join(left)}")


def document(running: Store, bucket: str, refresh: float | None = None) -> DatasetDocument:
    """The whole bucket as a dataset."""
    mount = MountSpec(name="data", source=f"s3://{bucket}", path="/", endpoint=running.endpoint)
    return DatasetDocument(uid=UID, namespace="bench", name="data", mounts=(mount,), refresh_seconds=refresh)


@contextmanager
def workers(
    folder: Path, running: Store, bucket: str, *, count: int = 1, quota: int = 4096 * MIB, flags: tuple[str, ...] = (),
    networks: tuple[OwnNetwork, ...] = (),
) -> Iterator[WorkerCluster]:  # fmt: skip
    """Workers with a memory tier, their index built; the first of them in networks of their own."""
    keys = Credentials(access_key_id=running.access_key, secret_access_key=running.secret_key)
    folder.mkdir(exist_ok=True)
    tiers = (TierFolder(medium="Memory", quota=quota, high=0.99, low=0.95),)
    shown = document(running, bucket)
    with WorkerCluster(folder, shown, {"data": keys}, tiers=tiers, flags=flags, networks=networks) as cluster:
        cluster.start(count)
        cluster.wait_for_index(timeout=60)
        yield cluster


def cpu_seconds(pid: int) -> float:
    """CPU time of a process since its start, user and system, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
