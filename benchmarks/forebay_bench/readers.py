"""Readers as processes of their own: each reads one object from beginning to end, four chunks at a time."""

import json
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

from forebay.direct import DirectSources
from forebay.pool import ConnectionPool
from forebay.reader import ChunkReader
from forebay.ring import RingHolder
from forebay_protocol.dataset import Credentials, DatasetDocument
from forebay_protocol.keys import ObjectVersion
from forebay_protocol.ring import Ring

CHUNKS_AT_ONCE = 4

ReadChunk = Callable[[int], None]
MakeReader = Callable[[], ReadChunk]
"""Called in the reader's own process."""


def through_workers(
    one: ObjectVersion, ring: Ring, token: str, document: DatasetDocument, keys: Credentials
) -> MakeReader:
    """Reads by the SDK, from the workers of a ring, and from the store where those are late, as a mount does."""

    def make() -> ReadChunk:
        holder = RingHolder(lambda: token, list)
        holder.offer(ring)
        sources = DirectSources(document, {mount.name: keys for mount in document.mounts})
        reader = ChunkReader(holder, ConnectionPool(lambda: token), sources)

        def read(number: int) -> None:
            span = one.chunk_span(number)
            reader.read(one, span.offset, span.length)

        return read

    return make


def directly(one: ObjectVersion, document: DatasetDocument, keys: Credentials) -> MakeReader:
    """Reads by the same client, straight from the store."""

    def make() -> ReadChunk:
        sources = DirectSources(document, {mount.name: keys for mount in document.mounts})

        def read(number: int) -> None:
            span = one.chunk_span(number)
            sources.read_into(one, span, memoryview(bytearray(span.length)))

        return read

    return make


def last_of(count: int, one: ObjectVersion, make: MakeReader) -> float:
    """Seconds until the last of so many readers, started together, has read the whole object."""
    context = multiprocessing.get_context("fork")
    pipes: list[Connection] = []
    processes = []
    for _ in range(count):
        ours, theirs = context.Pipe()
        process = context.Process(target=_read, args=(theirs, one, make))
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    for pipe in pipes:
        pipe.recv_bytes()
    start = time.monotonic()
    for pipe in pipes:
        pipe.send_bytes(b"go")
    answers = [json.loads(pipe.recv_bytes()) for pipe in pipes]
    took = time.monotonic() - start
    for process in processes:
        process.join()
    problems = [answer for answer in answers if answer]
    if problems:
        raise RuntimeError(f"{len(problems)} of {count} readers failed: {problems[0]}")
    return took


def _read(pipe: Connection, one: ObjectVersion, make: MakeReader) -> None:
    read = make()
    pipe.send_bytes(b"ready")
    pipe.recv_bytes()
    problem = ""
    try:
        with ThreadPoolExecutor(CHUNKS_AT_ONCE) as pool:
            for _ in pool.map(read, one.chunks()):
                pass
    except Exception as error:  # noqa: BLE001 - told to who started us
        problem = repr(error)
    pipe.send_bytes(json.dumps(problem).encode())
