"""The index of a million objects: building it beside listing alone, what it weighs, and how fast it answers."""

import random
import time
from contextlib import closing
from functools import partial
from pathlib import Path

from forebay.index import Snapshot
from forebay.index.writer import Origin as SnapshotOrigin
from forebay.source.opening import open_source
from forebay_bench import listing_server, rig
from forebay_bench.results import Row, compared, measured
from forebay_bench.runs import cpu_seconds, interleaved, seconds
from forebay_protocol.dataset import Credentials, DatasetDocument, MountSpec
from forebay_worker.index.build import build
from testkit.progress import Progress
from testkit.worker_processes import TierFolder, WorkerCluster

OBJECTS = 1_000_000
RATIO_OBJECTS = 200_000
LOOKUPS = 50_000
_KEYS = Credentials(access_key_id="bench", secret_access_key="bench-secret")  # noqa: S106 - nobody checks it
_MIB = 2**20


def measure(progress: Progress) -> tuple[list[Row], list[str]]:
    """All rows."""
    with rig.folder_in_memory() as folder:
        rows = [_build_beside_listing(folder), *_of_a_million(folder, progress)]
    for row in rows:
        progress.say(f"{row.name}: {row.value:.3g} {row.unit}" + ("" if row.ratio is None else f", {row.ratio:.2f}x"))
    return rows, [f"the build is compared at {RATIO_OBJECTS:,} objects, everything else is of {OBJECTS:,}"]


def _mount(endpoint: str) -> MountSpec:
    return MountSpec(name="data", source="s3://bench", path="/", endpoint=endpoint)


def _build_beside_listing(folder: Path) -> Row:
    with listing_server.serving(RATIO_OBJECTS) as endpoint:
        mount = _mount(endpoint)
        with closing(open_source(mount, _KEYS)) as source:

            def list_all() -> None:
                count = sum(1 for _ in source.list())
                if count != RATIO_OBJECTS:
                    raise RuntimeError(f"{count} objects were listed")

            origin = SnapshotOrigin(dataset_uid=rig.UID, generation=1, built_at=time.time(), mounts=(mount,))
            found = interleaved({
                "listing": partial(seconds, list_all),
                "build": lambda: seconds(lambda: build(folder / "index", folder / "packed", origin, lambda _: source)),
            })  # fmt: skip
    return compared("build of the index", "s", found["build"], "listing alone", found["listing"], "<= 1.3x")


def _of_a_million(folder: Path, progress: Progress) -> list[Row]:
    with listing_server.serving(OBJECTS) as endpoint:
        document = DatasetDocument(
            uid=rig.UID, namespace="bench", name="data", mounts=(_mount(endpoint),), refresh_seconds=None
        )
        place = folder / "worker"
        place.mkdir()
        with WorkerCluster(place, document, {"data": _KEYS}, tiers=(TierFolder(),)) as cluster:
            idle = []
            with progress.step(f"a worker lists {OBJECTS:,} objects"):
                cluster.start(1)
                idle.append(cluster.workers[0].resident_bytes() / _MIB)
                cluster.wait_for_index(timeout=600)
            resident = cluster.workers[0].resident_bytes(peak=True) / _MIB
            file = place / "w0" / "state" / "index" / "index"
            shipped = file.with_name("index.packed").stat().st_size / OBJECTS
            opened = [seconds(lambda: Snapshot.open(file).close()) for _ in range(3)]
            with closing(Snapshot.open(file)) as snapshot:
                rates = [_lookups(snapshot) for _ in range(3)]
    return [
        measured("shipped size", "bytes/object", [shipped], "<= 40 bytes/object"),
        measured("opening the snapshot", "s", opened, "<= 1 s"),
        measured("look-ups by name, for each second of CPU of one thread", "1/s", rates, ">= 100000 1/s"),
        measured("worker's memory, peak, while it lists", "MiB", [resident], "<= 400 MiB"),
        measured("worker's memory just started", "MiB", idle, "<= 100 MiB"),
    ]


def _lookups(snapshot: Snapshot) -> float:
    """Look-ups per second of CPU of names at random in folders that are known, as a kernel asks a mount."""
    choice = random.Random(7)
    train = snapshot.find("/train")
    assert train is not None
    folders = [entry.inode for entry in snapshot.children(train.inode, limit=1000)]
    wanted = [
        (folders[number // listing_server.PER_FOLDER], f"sample-{number:08}.jpg")
        for number in (choice.randrange(OBJECTS) for _ in range(LOOKUPS))
    ]

    def look_up() -> None:
        for parent, name in wanted:
            if snapshot.lookup(parent, name) is None:
                raise RuntimeError(f"{name} is not in the index")

    return LOOKUPS / cpu_seconds(look_up)
