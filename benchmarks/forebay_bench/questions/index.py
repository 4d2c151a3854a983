"""The index of a million objects: building it beside listing alone, what it weighs, and how fast it answers."""

import random
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from forebay.index import Snapshot
from forebay.index.packing import unpack
from forebay.index.writer import Origin as SnapshotOrigin
from forebay.source.opening import open_source
from forebay_bench import listing_server, rig
from forebay_bench.results import Row, compared, measured
from forebay_bench.runs import cpu_seconds, interleaved, seconds
from forebay_protocol.dataset import Credentials, DatasetDocument, MountSpec
from forebay_worker.index.build import build
from testkit.progress import Progress
from testkit.waiting import eventually
from testkit.worker_processes import TierFolder, WorkerCluster

OBJECTS = 1_000_000
LOOKUPS = 100_000
_FOLDERS_LISTED = 100
_PAGE = 512
_KEYS = Credentials(access_key_id="bench", secret_access_key="bench-secret")  # noqa: S106 - nobody checks it
_MIB = 2**20
_NOTES = [
    "listing alone is all pages fetched and parsed to key, size, ETag and time; a build makes the packed index too",
    "opening: the packed index, as it comes over the wire, is unpacked and a first name is found",
    "the worker's memory is its peak over two listings, the second while it serves the first one's index",
]


def measure(progress: Progress) -> tuple[list[Row], list[str]]:
    """All rows."""
    with rig.folder_in_memory() as folder, listing_server.serving(OBJECTS) as endpoint:
        mount = MountSpec(name="data", source="s3://bench", path="/", endpoint=endpoint)
        with progress.step("builds beside listings"):
            rows = _build_beside_listing(folder, mount)
        rows += _of_the_file(folder)
        rows += _of_a_worker(folder / "worker", mount, progress)
    for row in rows:
        progress.say(f"{row.name}: {row.value:.3g} {row.unit}" + ("" if row.ratio is None else f", {row.ratio:.2f}x"))
    return rows, _NOTES


def _build_beside_listing(folder: Path, mount: MountSpec) -> list[Row]:
    with closing(open_source(mount, _KEYS)) as source:

        def list_all() -> None:
            count = sum(1 for _ in source.list())
            if count != OBJECTS:
                raise RuntimeError(f"{count} objects were listed")

        origin = SnapshotOrigin(dataset_uid=rig.UID, generation=1, built_at=time.time(), mounts=(mount,))
        busy: dict[str, list[float]] = {"listing": [], "build": []}

        def build_index() -> None:
            build(folder / "index", folder / "packed", origin, lambda _: source)

        def timed(name: str, work: Callable[[], object]) -> float:
            begun = time.process_time()
            took = seconds(work)
            busy[name].append(time.process_time() - begun)
            return took

        found = interleaved({
            "listing": lambda: timed("listing", list_all),
            "build": lambda: timed("build", build_index),
        })  # fmt: skip
    return [
        compared("build of the index", "s", found["build"], "listing alone", found["listing"], "<= 1.3x"),
        compared("CPU of the build, packing included", "s", busy["build"], "listing alone", busy["listing"]),
    ]


def _of_the_file(folder: Path) -> list[Row]:
    packed, plain = folder / "packed", folder / "index"
    shipped, mapped = (path.stat().st_size / OBJECTS for path in (packed, plain))

    def open_packed() -> None:
        unpack(packed, plain)
        with closing(Snapshot.open(plain)) as snapshot:
            if snapshot.find("/train/00000/sample-00000001.jpg") is None:
                raise RuntimeError("the index has not what was listed")

    opened = [seconds(open_packed) for _ in range(3)]
    with closing(Snapshot.open(plain)) as snapshot:
        folders = _folders(snapshot)
        names = [cpu_seconds(_look_up(snapshot, folders, round_)) for round_ in range(3)]
        listed = [cpu_seconds(partial(_list_folders, snapshot, folders)) for _ in range(3)]
        inodes = cpu_seconds(snapshot.prepare_inodes)
    return [
        measured("shipped size", "bytes/object", [shipped], "<= 40 bytes/object"),
        measured("size of the file that is mapped", "bytes/object", [mapped]),
        measured("opening what was shipped", "s", opened, "<= 1 s"),
        measured("look-ups by name, for each second of CPU of one thread", "1/s", [LOOKUPS / one for one in names],
                 ">= 100000 1/s"),
        measured("entries of folders with all attributes, for each second of CPU", "1/s",
                 [_FOLDERS_LISTED * listing_server.PER_FOLDER / one for one in listed], ">= 40000 1/s"),
        measured("table of the files' inodes, made once by a mount", "s of CPU", [inodes]),
    ]  # fmt: skip


def _folders(snapshot: Snapshot) -> list[int]:
    train = snapshot.find("/train")
    assert train is not None
    return [entry.inode for entry in snapshot.children(train.inode, limit=OBJECTS)]


def _look_up(snapshot: Snapshot, folders: list[int], seed: int) -> Callable[[], None]:
    """Look-ups of names at random in folders that are known, as a kernel asks a mount."""
    choice = random.Random(seed)
    wanted = [
        (folders[number // listing_server.PER_FOLDER], f"sample-{number:08}.jpg")
        for number in (choice.randrange(OBJECTS) for _ in range(LOOKUPS))
    ]

    def look_up() -> None:
        for parent, name in wanted:
            if snapshot.lookup(parent, name) is None:
                raise RuntimeError(f"{name} is not in the index")

    return look_up


def _list_folders(snapshot: Snapshot, folders: list[int]) -> None:
    found = 0
    for folder in folders[:_FOLDERS_LISTED]:
        after = ""
        while page := snapshot.children(folder, after, _PAGE):
            found, after = found + len(page), page[-1].name
    if found != _FOLDERS_LISTED * listing_server.PER_FOLDER:
        raise RuntimeError(f"{found} entries were listed")


def _of_a_worker(place: Path, mount: MountSpec, progress: Progress) -> list[Row]:
    place.mkdir()
    document = DatasetDocument(uid=rig.UID, namespace="bench", name="data", mounts=(mount,), refresh_seconds=1.0)
    index = place / "w0" / "state" / "index"
    with WorkerCluster(place, document, {"data": _KEYS}, tiers=(TierFolder(),)) as cluster:
        cluster.start(1)
        worker = cluster.workers[0]
        idle = worker.resident_bytes() / _MIB
        with progress.step(f"a worker lists {OBJECTS:,} objects, twice"):
            with closing(cluster.wait_for_index(timeout=600)):
                pass
            size = (index / "index.packed").stat().st_size
            again = index / "index.packed.new"
            eventually(
                lambda: again.stat().st_size if again.exists() else 0,
                timeout=300, what="a second listing is complete", until=lambda written: written >= size,
            )  # fmt: skip
        resident = worker.resident_bytes(peak=True) / _MIB
    return [
        measured("worker's memory, peak, while it lists", "MiB", [resident], "<= 400 MiB"),
        measured("worker's memory just started", "MiB", [idle], "<= 100 MiB"),
    ]
