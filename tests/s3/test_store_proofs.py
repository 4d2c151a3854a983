"""The store under SIGKILL and under rot: what was committed is there, and nothing wrong is ever handed out."""

import os
import random
import shutil
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from forebay_protocol.control import LoadRequest
from forebay_protocol.errors import ForebayError
from forebay_protocol.keys import ObjectVersion
from forebay_worker.metrics import Metrics
from forebay_worker.store.scrub import PERIOD
from forebay_worker.store.tiered import ChunkStore
from testkit import chunk_writer
from testkit.chunk_store import MIB, body, get
from testkit.proofs import Proof
from testkit.sample_cluster import OBJECTS, Make, versions
from testkit.waiting import eventually
from testkit.worker_processes import TierFolder, WorkerProcess

THREADS = 16
_VERBS = ("begin", "done", "refused")
ROOMY, TIGHT = 4096 * MIB, 48 * MIB
RUNS_PER_FOLDER = 6


def _killed_writer(folder: Path, quota: int, first: int, seconds: float) -> tuple[set[tuple[int, int]], ...]:
    """Run a writer and kill it so long after its first word: what it began, committed, refused."""
    roots = os.pathsep.join(path for path in sys.path if path)
    process = subprocess.Popen(
        [sys.executable, "-m", "testkit.chunk_writer", str(folder), str(quota), str(first), str(THREADS)],
        stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": roots},
    )  # fmt: skip
    assert process.stdout is not None
    with closing(process.stdout) as output:
        said = output.readline()
        time.sleep(seconds)
        process.kill()
        said += output.read()
    process.wait()
    words = [line.split() for line in said.decode().splitlines()]
    return tuple({(int(number), int(chunk)) for verb, number, chunk in words if verb == one} for one in _VERBS)


@pytest.mark.proof("worker-killed-while-writing", quick=10, full=300)
@pytest.mark.timeout(0)
def test_what_was_committed_survives_sigkill(proof: Proof, tmp_path: Path) -> None:
    """A SIGKILL at any point of writing loses no committed chunk and at most 64 MiB that were under way."""
    rng = random.Random(11)
    began: set[tuple[int, int]] = set()
    done: set[tuple[int, int]] = set()
    for number in range(proof.rounds):
        # Every other folder is so small that chunks are evicted and moved all the time.
        quota = (ROOMY, TIGHT)[number // RUNS_PER_FOLDER % 2]
        if number % RUNS_PER_FOLDER == 0:
            shutil.rmtree(tmp_path / "tiers", ignore_errors=True)
            began, done = set(), set()
        new = _killed_writer(tmp_path / "tiers", quota, number * chunk_writer.PER_RUN, rng.uniform(0, 0.6))
        began, done = began | new[0], done | new[1]
        with closing(ChunkStore(chunk_writer.tiers(tmp_path / "tiers", quota), "uid", Metrics())) as store:
            there = {pair for pair in began if (data := _get(store, *pair)) is not None and _is_right(data, *pair)}
            assert store.corrupt_chunks == 0
            assert store.held_bytes == sum(_length(*pair) for pair in there)
            assert store.held_bytes <= quota
        if quota == ROOMY:
            assert done <= there, "committed chunks are lost"
        lost = sum(_length(*pair) for pair in new[0] - new[1] - new[2] - there)
        assert lost <= 64 * MIB
        proof.counts["SIGKILLs"] += 1
        proof.counts["chunks committed before"] += len(new[1])
        proof.counts["of them lost without eviction"] += len(done - there) if quota == ROOMY else 0
        proof.counts["MiB in flight lost at most"] = max(proof.counts["MiB in flight lost at most"], lost // MIB)
    assert proof.counts["chunks committed before"] > 10 * proof.rounds, (
        "the writers were killed too early to prove much"
    )


def _get(store: ChunkStore, number: int, chunk: int) -> bytes | None:
    return get(store, chunk_writer.written(number), chunk)


def _is_right(data: bytes, number: int, chunk: int) -> bool:
    assert data == body(chunk_writer.written(number), chunk), "a chunk has wrong bytes"
    return True


def _length(number: int, chunk: int) -> int:
    return chunk_writer.written(number).chunk_span(chunk).length


def _damage(rng: random.Random, path: Path) -> str:
    """Flip a bit, cut the file, or overwrite a part with zeros, where there is data."""
    size = path.stat().st_size
    kind = rng.choice(("flips", "truncations", "zero-fills"))
    with path.open("r+b") as file:
        position = rng.randrange(size)
        file.seek(position)
        if kind == "truncations":
            file.truncate(position)
        elif kind == "flips":
            bit = file.read(1)
            file.seek(position)
            file.write(bytes([(bit or b"\0")[0] ^ 1 << rng.randrange(8)]))
        else:
            file.write(bytes(min(size - position, rng.choice((1, 512, 4096, 200_000)))))
    return kind


def _rotten(worker: WorkerProcess, objects: list[tuple[ObjectVersion, bytes]]) -> int:
    """How many chunks that are said to be present differ from the truth on the disk."""
    return sum(
        1
        for one, truth in objects
        for path in worker.cache_files()
        if path.name == one.object_id
        for number in one.chunks()
        if _on_disk(path, one, number) not in (truth[one.chunk_span(number).offset : one.chunk_span(number).end], None)
    )


def _on_disk(path: Path, one: ObjectVersion, number: int) -> bytes | None:
    """A chunk's bytes in its file; None where all of it is a hole, as what was dropped is."""
    span = one.chunk_span(number)
    try:
        with path.open("rb") as file:
            start = os.lseek(file.fileno(), span.offset, os.SEEK_DATA)
            return None if start >= span.end else os.pread(file.fileno(), span.length, span.offset)
    except OSError:
        return None


@pytest.mark.proof("bit-rot", quick=40, full=1000)
@pytest.mark.timeout(0)
def test_rot_in_cache_files_is_never_handed_out(proof: Proof, make: Make) -> None:
    """Flips, truncations and zero-fills in cache files: no wrong byte over sockets, the scrub finds the rest."""
    rng = random.Random(5)
    cluster = make(tiers=(TierFolder(quota=512 * MIB),)).start(1)
    worker = cluster.workers[0]
    snapshot = cluster.wait_for_index()
    objects = [(one, OBJECTS[key]) for key, one in versions(snapshot).items() if one.size]
    while proof.counts["damages"] < proof.rounds:
        for one, truth in objects:
            assert _read(worker, one, truth) in ("right", "found by the receiver")
        worker.load(f"load-{proof.counts['damages']}", LoadRequest())
        for _ in range(min(40, proof.rounds - proof.counts["damages"])):
            one, truth = rng.choice(objects)
            path = next((file for file in worker.cache_files() if file.name == one.object_id), None)
            if path is None:
                _read(worker, one, truth)
                continue
            proof.counts[_damage(rng, path)] += 1
            proof.counts["damages"] += 1
            if rng.random() < 0.5:
                proof.counts[f"reads: {_read(worker, one, truth)}"] += 1
        eventually(
            lambda: _rotten(worker, objects), timeout=3 * PERIOD, what="the scrub has found all",
            until=lambda rotten: not rotten,
        )  # fmt: skip
    assert proof.counts["reads: wrong"] == 0
    proof.counts["dropped by the worker"] = worker.status().corrupt_chunks
    assert proof.counts["dropped by the worker"] > 0


def _read(worker: WorkerProcess, one: ObjectVersion, truth: bytes) -> str:
    """Read an object as a client does that verifies what arrives; a bad block is an error, never bytes."""
    try:
        return "right" if worker.read(one) == truth else "wrong"
    except ForebayError:
        return "found by the receiver"
