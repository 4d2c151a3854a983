"""Hit path: one worker process beside nginx's sendfile with one worker process, and our client beside a plain one."""

import os
import random
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

from forebay_bench import generator, nginx, rig
from forebay_bench.generator import Call, Target
from forebay_bench.questions import receiving
from forebay_bench.results import Row, compared, measured
from forebay_bench.runs import best_of, interleaved
from forebay_protocol import wire
from forebay_protocol.keys import ObjectVersion, block_aligned, block_count
from forebay_protocol.wire import ReadRequest
from testkit.progress import Progress
from testkit.sample_cluster import versions
from testkit.worker_processes import WorkerCluster

KIB, MIB = 1024, 1024 * 1024
BIG = 256 * MIB
SMALL_COUNT = 1000
SECONDS = 1.5
TUNING_SECONDS = 0.7
RANGES = 64
_POINTS = (
    ("4 MiB ranges, 1 connection", 4 * MIB, 1, ">= 1.0x"),
    ("4 MiB ranges, 4 connections", 4 * MIB, 4, ">= 1.0x"),
    ("1 MiB ranges, 1 connection", MIB, 1, ">= 1.0x"),
    ("1 MiB ranges, 4 connections", MIB, 4, ">= 1.0x"),
    ("128 KiB ranges, 8 connections", 128 * KIB, 8, ">= 0.9x"),
    ("4 KiB out of a large object, 16 connections", 4 * KIB, 16, ">= 0.4x"),
)


def measure(progress: Progress) -> tuple[list[Row], list[str]]:
    """All rows."""
    with rig.folder_in_memory() as folder, rig.store(progress) as store:
        files = folder / "files"
        files.mkdir()
        (files / "big").write_bytes(os.urandom(BIG))
        for number in range(SMALL_COUNT):
            (files / f"{number:04}").write_bytes(os.urandom(4 * KIB))
        store.create_bucket("bench")
        store.put_many("bench", ((file.name, file) for file in sorted(files.iterdir())))
        with rig.workers(folder / "workers", store, "bench") as cluster:
            cluster.load_all(timeout=120)
            path = _HitPath(files, cluster, progress)
            for name, length, connections, goal in _POINTS:
                path.ranges(name, length, connections, goal)
            path.small_objects("4 KiB objects, 16 connections", 16, ">= 0.4x")
            client = receiving.rows(files / "big", cluster, path.objects["big"], progress)
    return [*path.rows, *client], path.notes


class _HitPath:
    """The points measured so far, at one worker beside nginx."""

    def __init__(self, files: Path, cluster: WorkerCluster, progress: Progress) -> None:
        self.rows: list[Row] = []
        self.notes: list[str] = []
        self._files, self._progress = files, progress
        worker = cluster.workers[0]
        self._pid = worker.pid
        hello = wire.encode_hello(worker.token())
        self._ours = Target(address="127.0.0.1", port=worker.data_port, hello=hello, welcome=wire.RESPONSE.size)
        snapshot = worker.snapshot()
        assert snapshot is not None
        with closing(snapshot):
            self.objects = versions(snapshot)

    def ranges(self, name: str, length: int, connections: int, goal: str) -> None:
        """Ranges of one large object, spread over it, each within one chunk."""
        choice = random.Random(4)
        places = [(choice.randrange(BIG // length) * length, length) for _ in range(RANGES)]
        ours = [_call(self.objects["big"], *place) for place in places]
        self._point(name, length, connections, goal, ours, lambda target: nginx.calls(target, "big", places))

    def small_objects(self, name: str, connections: int, goal: str) -> None:
        """Whole objects of 4 KiB."""
        names = [f"{number:04}" for number in range(SMALL_COUNT)]
        ours = [_call(self.objects[one], 0, 4 * KIB) for one in names]
        self._point(name, 4 * KIB, connections, goal, ours, lambda target: nginx.whole_files(target, names, 4 * KIB))

    def _point(
        self, name: str, length: int, connections: int, goal: str, ours: list[Call],
        theirs: Callable[[Target], list[Call]],
    ) -> None:  # fmt: skip
        costs: dict[str, _Cost] = {}
        ours_per_gib: list[float] = []

        def rate(server: str, pid: int, target: Target, calls: list[Call], seconds: float) -> float:
            before = rig.cpu_seconds(pid)
            got = generator.run(target, calls, connections, seconds)
            costs[server] = _Cost((rig.cpu_seconds(pid) - before) / (got.calls * got.seconds), got.generator_cpu)
            if server == "forebay":
                ours_per_gib.append(costs[server].server * 2**30 / length)
            return got.calls

        def nginx_rate(flags: str, seconds: float) -> float:
            with nginx.serving(self._files, flags, self._progress) as (target, pid):
                return rate("nginx", pid, target, theirs(target), seconds)

        chosen = best_of({flags: partial(nginx_rate, flags, TUNING_SECONDS) for flags in nginx.FLAG_SETS})
        found = interleaved({
            "nginx": partial(nginx_rate, chosen, SECONDS),
            "forebay": partial(rate, "forebay", self._pid, self._ours, ours, SECONDS),
        })  # fmt: skip
        unit, factor = ("requests/s", 1.0) if length < 64 * KIB else ("MB/s", length / 1e6)
        row = compared(
            name, unit, [value * factor for value in found["forebay"]], "nginx",
            [value * factor for value in found["nginx"]], goal,
        )  # fmt: skip
        self.rows.append(row)
        self.notes.append(
            f"{name}: nginx with {chosen}. CPU per request: nginx {costs['nginx'].server * 1e6:.0f} us, forebay "
            f"{costs['forebay'].server * 1e6:.0f} us; generator's share of a core: {costs['nginx'].generator:.2f} and "
            f"{costs['forebay'].generator:.2f}"
        )
        if length == 4 * MIB and connections > 1:
            self.rows.append(measured(f"{name}: CPU of the worker for each GiB served", "s", ours_per_gib, "<= 0.35 s"))
        self._progress.say(f"{name}: {row.ratio:.2f}x; {self.notes[-1]}")


class _Cost(NamedTuple):
    """CPU seconds of the server per call; the generator's share of a core."""

    server: float
    generator: float


def _call(one: ObjectVersion, offset: int, length: int) -> Call:
    span = block_aligned(offset, length, one.size)
    request = wire.encode_request(ReadRequest(1, one, span.offset, span.length))
    return Call(request, wire.RESPONSE.size + 4 * block_count(span.length) + span.length)
