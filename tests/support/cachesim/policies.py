"""Eviction policies of the literature in their shortest form; every chunk has the same size."""

import random
from collections import OrderedDict, deque
from typing import Protocol


class Policy(Protocol):
    """A cache of a fixed number of chunks."""

    def __init__(self, capacity: int) -> None: ...

    def read(self, chunk: int) -> bool:
        """Read one chunk; whether it was there."""


class Lru:
    """Least recently used."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.order: OrderedDict[int, None] = OrderedDict()

    def read(self, chunk: int) -> bool:
        """Hits move to the end; the first one leaves."""
        hit = chunk in self.order
        self.order[chunk] = None
        self.order.move_to_end(chunk)
        if len(self.order) > self.capacity:
            self.order.popitem(last=False)
        return hit


class RandomReplacement:
    """Any chunk leaves."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.held: list[int] = []
        self.known: set[int] = set()
        self.rng = random.Random(7)

    def read(self, chunk: int) -> bool:
        """A miss overwrites a place at random."""
        if chunk in self.known:
            return True
        self.known.add(chunk)
        if len(self.held) < self.capacity:
            self.held.append(chunk)
            return False
        place = self.rng.randrange(self.capacity)
        self.known.discard(self.held[place])
        self.held[place] = chunk
        return False


class Sieve:
    """SIEVE (Zhang et al., NSDI 2024): a hand that moves over a queue and spares what was visited."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.visited: OrderedDict[int, bool] = OrderedDict()
        self.queue: list[int] = []
        self.hand = 0

    def read(self, chunk: int) -> bool:
        """``queue`` runs from the oldest to the newest."""
        if chunk in self.visited:
            self.visited[chunk] = True
            return True
        if len(self.queue) >= self.capacity:
            self.hand %= len(self.queue)
            while self.visited[self.queue[self.hand]]:
                self.visited[self.queue[self.hand]] = False
                self.hand = (self.hand + 1) % len(self.queue)
            del self.visited[self.queue.pop(self.hand)]
        self.queue.append(chunk)
        self.visited[chunk] = False
        return False


class S3Fifo:
    """S3-FIFO (Yang et al., SOSP 2023): a small queue, a main queue, and a ghost queue."""

    def __init__(self, capacity: int) -> None:
        self.small_limit = max(1, capacity // 10)
        self.main_limit = capacity - self.small_limit
        self.small: deque[int] = deque()
        self.main: deque[int] = deque()
        self.ghost: OrderedDict[int, None] = OrderedDict()
        self.uses: dict[int, int] = {}

    def read(self, chunk: int) -> bool:
        """What was used twice in the small queue, or comes back soon, enters the main one."""
        if chunk in self.uses:
            self.uses[chunk] = min(3, self.uses[chunk] + 1)
            return True
        self.uses[chunk] = 0
        if chunk in self.ghost:
            del self.ghost[chunk]
            self._enter_main(chunk)
        else:
            self.small.append(chunk)
            if len(self.small) > self.small_limit:
                self._leave_small()
        return False

    def _enter_main(self, chunk: int) -> None:
        self.main.append(chunk)
        while len(self.main) > self.main_limit:
            oldest = self.main.popleft()
            if self.uses[oldest]:
                self.uses[oldest] -= 1
                self.main.append(oldest)
            else:
                del self.uses[oldest]

    def _leave_small(self) -> None:
        oldest = self.small.popleft()
        if self.uses[oldest] > 1:
            self.uses[oldest] = 0
            self._enter_main(oldest)
            return
        del self.uses[oldest]
        self.ghost[oldest] = None
        if len(self.ghost) > self.main_limit:
            self.ghost.popitem(last=False)


class Arc:
    """ARC (Megiddo and Modha, FAST 2003)."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.target = capacity, 0.0
        self.t1, self.t2, self.b1, self.b2 = (OrderedDict[int, None]() for _ in range(4))

    def _replace(self, *, in_b2: bool) -> None:
        if self.t1 and (len(self.t1) > self.target or (in_b2 and len(self.t1) == int(self.target))):
            self.b1[self.t1.popitem(last=False)[0]] = None
        else:
            self.b2[self.t2.popitem(last=False)[0]] = None

    def read(self, chunk: int) -> bool:
        """The four cases of the paper."""
        if chunk in self.t1 or chunk in self.t2:
            self.t1.pop(chunk, None)
            self.t2[chunk] = None
            self.t2.move_to_end(chunk)
            return True
        if chunk in self.b1:
            self.target = min(self.capacity, self.target + max(1, len(self.b2) / len(self.b1)))
            self._replace(in_b2=False)
            del self.b1[chunk]
            self.t2[chunk] = None
            return False
        if chunk in self.b2:
            self.target = max(0, self.target - max(1, len(self.b1) / len(self.b2)))
            self._replace(in_b2=True)
            del self.b2[chunk]
            self.t2[chunk] = None
            return False
        self._make_room()
        self.t1[chunk] = None
        return False

    def _make_room(self) -> None:
        if len(self.t1) + len(self.b1) == self.capacity:
            if len(self.t1) < self.capacity:
                self.b1.popitem(last=False)
                self._replace(in_b2=False)
            else:
                self.t1.popitem(last=False)
            return
        total = len(self.t1) + len(self.t2) + len(self.b1) + len(self.b2)
        if total >= self.capacity:
            if total == 2 * self.capacity:
                self.b2.popitem(last=False)
            self._replace(in_b2=False)


class TinyLfu:
    """W-TinyLFU (Einziger et al., TOS 2017) with exact counts: a window of 1 %, then admission by frequency."""

    def __init__(self, capacity: int) -> None:
        self.window_limit = max(1, capacity // 100)
        self.main_limit = capacity - self.window_limit
        self.window: OrderedDict[int, None] = OrderedDict()
        self.main: OrderedDict[int, None] = OrderedDict()
        self.counts: dict[int, int] = {}
        self.sample, self.seen = 10 * capacity, 0

    def read(self, chunk: int) -> bool:
        """Counts are halved after ten times the capacity."""
        self.counts[chunk] = self.counts.get(chunk, 0) + 1
        self.seen += 1
        if self.seen == self.sample:
            self.counts = {name: count // 2 for name, count in self.counts.items() if count > 1}
            self.seen //= 2
        for part in (self.window, self.main):
            if chunk in part:
                part.move_to_end(chunk)
                return True
        self.window[chunk] = None
        if len(self.window) > self.window_limit:
            candidate = self.window.popitem(last=False)[0]
            if len(self.main) < self.main_limit:
                self.main[candidate] = None
            else:
                victim = next(iter(self.main))
                if self.counts.get(candidate, 0) > self.counts.get(victim, 0):
                    del self.main[victim]
                    self.main[candidate] = None
        return False


class Keep:
    """What is there stays; a miss enters with a chance of 1/64 (bimodal insertion, Qureshi et al., ISCA 2007)."""

    def __init__(self, capacity: int) -> None:
        self.capacity, self.misses = capacity, 0
        self.order: OrderedDict[int, None] = OrderedDict()

    def read(self, chunk: int) -> bool:
        """Hits move to the end."""
        if chunk in self.order:
            self.order.move_to_end(chunk)
            return True
        self.misses += 1
        if len(self.order) < self.capacity:
            self.order[chunk] = None
        elif self.misses % 64 == 0:
            self.order.popitem(last=False)
            self.order[chunk] = None
        return False


POLICIES: dict[str, type[Policy]] = {
    "LRU": Lru, "random": RandomReplacement, "SIEVE": Sieve, "S3-FIFO": S3Fifo, "ARC": Arc, "W-TinyLFU": TinyLfu,
    "bimodal": Keep,
}  # fmt: skip
