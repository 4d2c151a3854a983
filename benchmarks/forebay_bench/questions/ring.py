"""Looking up who owns a chunk in a ring of 1,000 members, how even the shares are, and what a change moves."""

from collections import Counter

from forebay_bench.results import Row, measured
from forebay_bench.runs import cpu_seconds
from forebay_protocol.keys import ChunkKey, ObjectVersion
from forebay_protocol.ring import Member, Ring
from testkit.progress import Progress

MEMBERS = 1000
CHUNKS = 20_000
RUNS = 5
_GIB = 2**30


def measure(progress: Progress) -> tuple[list[Row], list[str]]:
    """All rows."""
    objects = [ObjectVersion("uid", "data", f"shard-{n}", "v", 1).object_id for n in range(CHUNKS // 20)]
    chunks = [ChunkKey(object_id, number) for object_id in objects for number in range(20)]
    many = [ChunkKey(object_id, number) for object_id in objects for number in range(400)]
    large = Ring(1, members=_members(MEMBERS))
    first = cpu_seconds(lambda: large.owner(chunks[0]))

    def per_lookup(ring: Ring, most: int) -> float:
        return cpu_seconds(lambda: [ring.ranked(chunk, most) for chunk in chunks]) / len(chunks) * 1e6

    small = Ring(1, members=_members(10))
    rows = [
        measured("owner of a chunk, 1,000 members", "us", [per_lookup(large, 1) for _ in range(RUNS)], "<= 10 us"),
        measured("first three in rank, 1,000 members", "us", [per_lookup(large, 3) for _ in range(RUNS)], "<= 10 us"),
        measured("owner of a chunk, 10 members", "us", [per_lookup(small, 1) for _ in range(RUNS)]),
        measured("first look-up in a new ring of 1,000 members", "s", [first]),
        measured("largest share of 10 equal members, beside the mean", "x", [_largest(small, chunks)]),
        measured("largest share of 1,000 equal members, beside the mean", "x", [_largest(large, many)]),
        measured("chunks that move when an 11th member joins, beside its share", "x", [_moved(small, chunks)]),
    ]
    progress.say(f"{rows[0].name}: {rows[0].value:.1f} us")
    note = f"shares of 1,000 members over {len(many):,} chunks, 400 for each, so that chance alone makes one of 1.17x"
    return rows, ["CPU time of the one thread that looks up", note]


def _members(count: int) -> tuple[Member, ...]:
    return tuple(
        Member(id=f"worker-{n}", address="10.0.0.1", data_port=1, control_port=2, capacity=100 * _GIB)
        for n in range(count)
    )


def _largest(ring: Ring, chunks: list[ChunkKey]) -> float:
    shares = Counter(owner.id for chunk in chunks if (owner := ring.owner(chunk)) is not None)
    return max(shares.values()) * len(ring.members) / len(chunks)


def _moved(before: Ring, chunks: list[ChunkKey]) -> float:
    count = len(before.members) + 1
    after = Ring(2, members=_members(count))
    return sum(before.owner(chunk) != after.owner(chunk) for chunk in chunks) * count / len(chunks)
