"""How long an answer may take until it is late, learned from the answers that came."""

import threading
from collections import deque

_SAMPLES = 64
_ENOUGH = 8
_QUANTILE = 0.95

_MARGIN = 3.0
"""Late is what takes so many times as long as 95 % of the answers did."""

LEAST_ANSWER = 0.25
LEAST_FETCH = 6.0
"""Seconds: nobody is late sooner. A machine that is busy for a moment is no slow worker, and the next place may have to
fetch what the first one has; where a worker waits for the store, asking elsewhere only burdens the store more."""

_FIRST_LATENCY = 0.5
_FIRST_RATE = 20e6
"""What is expected as long as nothing is known: seconds, and bytes per second."""


class _Window:
    """The last samples and the value that most of them stay under."""

    __slots__ = ("_samples", "_since", "value")

    def __init__(self) -> None:
        self._samples: deque[float] = deque(maxlen=_SAMPLES)
        self._since = 0
        self.value: float | None = None

    def add(self, sample: float) -> None:
        self._samples.append(sample)
        self._since += 1
        # Sorting for each sample would cost as much as a small read.
        if self._since >= _ENOUGH:
            self._since = 0
            self.value = sorted(self._samples)[int(_QUANTILE * len(self._samples))]


class Pace:
    """The time that workers take to answer, by the length of the answer. Thread-safe."""

    def __init__(self, least_answer: float = LEAST_ANSWER, least_fetch: float = LEAST_FETCH) -> None:
        """Nothing is known yet. Whoever cannot ask two places at once gives more time before giving one up."""
        self._least_answer = least_answer
        self._least_fetch = least_fetch
        self._lock = threading.Lock()
        self._answers: dict[int, _Window] = {}
        self._fetches = _Window()

    def note(self, length: int, seconds: float) -> None:
        """So many bytes that a worker had took so long."""
        with self._lock:
            self._answers.setdefault(length.bit_length(), _Window()).add(seconds)

    def note_fetch(self, seconds: float) -> None:
        """A worker fetched a chunk in this time."""
        with self._lock:
            self._fetches.add(seconds)

    def expected(self, length: int) -> float:
        """Seconds in which nearly every answer of this length came; a guess until there were some."""
        with self._lock:
            window = self._answers.get(length.bit_length())
            known = None if window is None else window.value
        return _FIRST_LATENCY + length / _FIRST_RATE if known is None else known

    def allowed(self, length: int) -> float:
        """Seconds after which an answer of this length is late."""
        return _MARGIN * self.expected(length) + self._least_answer

    def allowed_fetch(self) -> float:
        """Seconds after which a worker is late that said that it has to fetch the chunk first."""
        with self._lock:
            known = self._fetches.value
        return max(self._least_fetch, _MARGIN * (known or 0.0))
