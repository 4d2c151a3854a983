"""Objects that are overwritten by others of the same size while many read them."""

import hashlib
import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import pytest

from forebay.reader import ChunkReader
from forebay_protocol.errors import ForebayError, ObjectChanged
from forebay_protocol.keys import CHUNK_SIZE, ObjectVersion
from testkit.buckets import Bucket
from testkit.data_client import client_of
from testkit.proofs import Proof
from testkit.sample_cluster import Make
from testkit.worker_processes import MIB, TierFolder

_KEYS = [f"overwritten/{number}" for number in range(4)]
_SIZE = CHUNK_SIZE + 300_000
"""Two chunks, so that two versions could meet in one read."""
_HALF = _SIZE // 2
_READERS = 16


def _content(stamp: int) -> bytes:
    """Bytes of one version, no block of which occurs in another one."""
    return (stamp.to_bytes(8, "big") * (_SIZE // 8 + 1))[:_SIZE]


@dataclass(slots=True)
class _Pauses:
    """Readers that stop in the middle of a file until somebody has overwritten it."""

    paused: Counter[str] = field(default_factory=Counter)
    overwrites: Counter[str] = field(default_factory=Counter)
    over: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)

    def pause(self, key: str) -> None:
        """Until the object has another version."""
        with self.changed:
            before = self.overwrites[key]
            self.paused[key] += 1
            self.changed.notify_all()
            self.changed.wait_for(lambda: self.overwrites[key] > before or self.over)
            self.paused[key] -= 1

    def next_key(self) -> str:
        """An object that somebody has read one half of."""
        with self.changed:
            assert self.changed.wait_for(lambda: +self.paused, timeout=60), "the readers hang"
            return next(iter(+self.paused))

    def overwritten(self, key: str) -> None:
        """The object has another version."""
        with self.changed:
            self.overwrites[key] += 1
            self.changed.notify_all()

    def end(self) -> None:
        """Nobody is to wait any more."""
        with self.changed:
            self.over = True
            self.changed.notify_all()


def _open(bucket: Bucket, key: str) -> ObjectVersion:
    """The version that the store has now."""
    head = bucket.client.head_object(Bucket=bucket.name, Key=key)
    return ObjectVersion("uid-1", "data", key, head["ETag"].strip('"'), head["ContentLength"])


def _read_whole(reader: ChunkReader, one: ObjectVersion, stamp: int, in_the_middle: Callable[[], None]) -> str:
    """All bytes of one open file, in two reads: right, changed, or what it must not be."""
    try:
        whole = bytes(reader.read(one, 0, _HALF))
        in_the_middle()
        whole += reader.read(one, _HALF, one.size)
    except ObjectChanged:
        return "changed"
    except ForebayError as error:
        return f"failed: {error.reason}"
    if whole == _content(stamp):
        return "right"
    stamps = {whole[start : start + 8] for start in range(0, len(whole) - 8, 8)}
    return "MIXED" if len(stamps) > 1 else "ANOTHER VERSION"


@pytest.mark.timeout(900)
@pytest.mark.proof("overwrites", quick=100, full=2_000)
def test_a_read_is_one_version_or_a_clear_error(make: Make, bucket: Bucket, proof: Proof) -> None:
    """16 readers of objects that others of the same size replace: each whole read is one version, or ObjectChanged."""
    stamps: dict[str, int] = {}

    def overwrite(key: str) -> None:
        stamp = len(stamps) + 1
        body = _content(stamp)
        stamps[hashlib.md5(body, usedforsecurity=False).hexdigest()] = stamp
        bucket.put({key: body})

    for key in _KEYS:
        overwrite(key)
    cluster = make(refresh=None, tiers=(TierFolder(quota=64 * MIB),)).start(2)
    cluster.wait_for_index()
    pauses = _Pauses()

    def read_on(reader: ChunkReader, number: int) -> Counter[str]:
        dice, outcomes = random.Random(number), Counter[str]()
        while not pauses.over:
            one = _open(bucket, dice.choice(_KEYS))
            halfway = partial(pauses.pause, one.key) if dice.random() < 0.5 else lambda: None
            outcomes[_read_whole(reader, one, stamps[one.version], halfway)] += 1
        return outcomes

    with client_of(cluster) as reader, ThreadPoolExecutor(_READERS) as pool:
        running = [pool.submit(read_on, reader, number) for number in range(_READERS)]
        try:
            for _ in range(proof.rounds):
                key = pauses.next_key()
                overwrite(key)
                pauses.overwritten(key)
        finally:
            pauses.end()
        outcomes = sum((one.result() for one in running), Counter[str]())

    assert set(outcomes) == {"right", "changed"}
    proof.counts.update({"overwrites": proof.rounds, "whole reads": outcomes["right"]})
    proof.counts.update({"reads told of the change": outcomes["changed"], "mixed": outcomes["MIXED"]})
