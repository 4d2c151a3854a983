"""One, two and four workers, each behind a link of its own: how far their links add up."""

import json
import multiprocessing
import os
import random
import threading
import time
from collections import Counter
from contextlib import closing
from functools import partial
from multiprocessing.connection import Connection

from forebay.pool import ConnectionPool
from forebay.reader import ChunkReader
from forebay.ring import RingHolder
from forebay_bench import rig
from forebay_bench.results import Row, compared, measured
from forebay_bench.runs import interleaved
from forebay_protocol.keys import ChunkKey, ObjectVersion, Span
from forebay_protocol.ring import Ring
from testkit.own_network import OwnNetwork, plug_in
from testkit.progress import Progress
from testkit.sample_cluster import versions
from testkit.worker_processes import WorkerCluster

MBIT = 1000
COUNTS = (1, 2, 4)
OBJECTS, LENGTH = 4096, 512 * 1024
PROCESSES, THREADS = 4, 32
SECONDS = 4.0
_WARM_UP = 2.0


def measure(progress: Progress) -> tuple[list[Row], list[str]]:
    """All rows."""
    with rig.folder_in_memory() as folder, rig.store(progress) as store:
        store.create_bucket("bench")
        body = os.urandom(LENGTH)
        store.put_many("bench", ((f"{number:04}", body) for number in range(OBJECTS)), threads=4)
        networks = tuple(plug_in(rig.SETTINGS, index, MBIT) for index in range(1, max(COUNTS) + 1))
        with rig.workers(folder / "workers", store, "bench", count=max(COUNTS), networks=networks) as cluster:
            # What a worker has it keeps while there is room, so that after this all rings can be read in turn.
            for count in COUNTS:
                cluster.publish([worker.member for worker in cluster.workers[:count]])
                cluster.load_all(f"ring-of-{count}", timeout=180)
            objects = list(versions(cluster.wait_for_index()).values())
            sent: dict[int, list[float]] = {count: [] for count in COUNTS}
            readers_cpu: dict[int, list[float]] = {count: [] for count in COUNTS}

            def rate(count: int) -> float:
                ring = cluster.publish([worker.member for worker in cluster.workers[:count]])
                got = _Run(cluster, ring, objects)
                sent[count].append(got.sent)
                readers_cpu[count].append(got.cpu)
                return got.read

            found = interleaved({str(count): partial(rate, count) for count in COUNTS})
            largest = _largest_share(cluster.publish(), objects)
    rows = [measured("1 worker", "MB/s", found["1"])]
    rows += [
        compared(
            f"{count} workers", "MB/s", found[str(count)], f"{count} x one worker",
            [count * value for value in found["1"]], ">= 0.95x",
        )
        for count in COUNTS[1:]
    ]  # fmt: skip
    rows += [
        compared(
            f"{count} of the links, with headers", "MB/s", sent[count], "links",
            [count * MBIT / 8] * len(sent[count]),
        )
        for count in COUNTS
    ]  # fmt: skip
    progress.say(", ".join(f"{row.name} {row.ratio:.3f}x" for row in rows if row.ratio))
    return rows, [
        f"each worker in a network namespace of its own, which sends {MBIT} Mbit/s (htb); interfaces by their counters",
        (
            f"{OBJECTS:,} objects of {LENGTH // 1024} KiB, read at random by the SDK, checksums verified, in "
            f"{PROCESSES} processes of {THREADS} threads; a reader asks the owner of the object"
        ),
        "readers' share of a core: " + ", ".join(f"{max(readers_cpu[count]):.2f} for {count}" for count in COUNTS),
        f"of 4 workers one owns {largest:.3f} of an even share, so their links add up to {1 / largest:.3f}x at most",
    ]


class _Run:
    """One run: bytes that readers got and that the interfaces sent, MB/s; the readers' share of a core."""

    def __init__(self, cluster: WorkerCluster, ring: Ring, objects: list[ObjectVersion]) -> None:
        context = multiprocessing.get_context("fork")
        token = cluster.workers[0].token()
        pipes: list[Connection] = []
        processes = []
        for number in range(PROCESSES):
            ours, theirs = context.Pipe()
            process = context.Process(target=_read_on, args=(theirs, number, ring, token, objects))
            process.start()
            theirs.close()
            pipes.append(ours)
            processes.append(process)
        time.sleep(_WARM_UP)
        before, begin = _sent(cluster.networks), time.perf_counter()
        for pipe in pipes:
            pipe.send_bytes(b"count")
        time.sleep(SECONDS)
        after, took = _sent(cluster.networks), time.perf_counter() - begin
        for pipe in pipes:
            pipe.send_bytes(b"stop")
        answers = [json.loads(pipe.recv_bytes()) for pipe in pipes]
        for process in processes:
            process.join()
        if failed := [answer["failed"] for answer in answers if answer["failed"]]:
            raise RuntimeError(f"a reader failed: {failed[0]}")
        self.read: float = sum(answer["rate"] for answer in answers) / 1e6
        self.cpu: float = sum(answer["cpu"] for answer in answers)
        self.sent = (after - before) / took / 1e6


def _largest_share(ring: Ring, objects: list[ObjectVersion]) -> float:
    """What the member with the most objects has, beside the mean."""
    owners = Counter(ring.owner(ChunkKey(one.object_id, 0)) for one in objects)
    return max(owners.values()) * ring.active_count / len(objects)


def _sent(networks: tuple[OwnNetwork, ...]) -> int:
    return sum(network.sent_bytes for network in networks)


def _read_on(pipe: Connection, seed: int, ring: Ring, token: str, objects: list[ObjectVersion]) -> None:
    """One node: read until told to stop, count from when told to."""
    holder = RingHolder(lambda: token, list)
    holder.offer(ring)
    done, failed = [0] * THREADS, [""]
    over = threading.Event()
    with closing(ConnectionPool(lambda: token)) as pool:
        reader = ChunkReader(holder, pool)

        def read(number: int) -> None:
            choice, buffer = random.Random(seed * THREADS + number), memoryview(bytearray(LENGTH))
            try:
                while not over.is_set():
                    reader.read_into(choice.choice(objects), Span(0, LENGTH), buffer)
                    done[number] += LENGTH
            except Exception as error:  # noqa: BLE001 - told to who started us
                failed[0] = repr(error)

        threads = [threading.Thread(target=read, args=(number,)) for number in range(THREADS)]
        for thread in threads:
            thread.start()
        pipe.recv_bytes()
        before, cpu, begin = sum(done), time.process_time(), time.perf_counter()
        pipe.recv_bytes()
        took = time.perf_counter() - begin
        rate, share = (sum(done) - before) / took, (time.process_time() - cpu) / took
        over.set()
        for thread in threads:
            thread.join()
    pipe.send_bytes(json.dumps({"rate": rate, "cpu": share, "failed": failed[0]}).encode())
