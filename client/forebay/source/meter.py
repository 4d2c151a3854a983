"""What a source counts: the worker shows it as metrics, the SDK counts for itself."""

import threading


class Meter:
    """Requests to one store. Thread-safe; override ``changed`` to be told."""

    def __init__(self) -> None:
        """Nothing was asked yet."""
        self._lock = threading.Lock()
        self.requests = 0
        """Requests for objects' bytes, each attempt counted."""
        self.retries = 0
        """Requests that followed a failed one."""
        self.hedged = 0
        """Second requests, sent because the first took long."""
        self.bytes = 0
        """Bytes of objects that arrived, those of failed, hedged and given up requests included."""

    def requested(self) -> None:
        """A request for an object's bytes is sent."""
        with self._lock:
            self.requests += 1

    def retried(self) -> None:
        """A failed request is sent again."""
        with self._lock:
            self.retries += 1

    def hedge(self) -> None:
        """A second request is sent for what a first one may still bring."""
        with self._lock:
            self.hedged += 1

    def received(self, count: int) -> None:
        """Bytes of an object arrived."""
        with self._lock:
            self.bytes += count
