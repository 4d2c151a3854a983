"""How the workers and the nodes of one Dataset divide what its mounts' limits allow them to ask of the stores.

Nobody counts for all of them: each keeps to its own share, and the shares never add up to more than the whole. The
workers have nearly all of it, evenly; what is left is for nodes that read from a store themselves because no worker
answers in time, so that falling back never becomes a stampede.
"""

from forebay_protocol.ring import Ring

DIRECT = 0.1
"""What all nodes together may use of a limit while the ring has workers."""


def worker_share(ring: Ring) -> float:
    """One worker's part of every limit."""
    return (1.0 - DIRECT) / max(1, ring.active_count)


def reader_share(ring: Ring, readers: int) -> float:
    """One node's part of every limit; ``readers`` is how many nodes read, for when the ring does not tell."""
    return (DIRECT if ring.active_count else 1.0) / max(1, ring.readers or readers)


def counted_readers(nodes: int) -> int:
    """The number of reading nodes as it is told: the next power of two, which seldom changes and is never too low."""
    return 1 << max(0, nodes - 1).bit_length()
