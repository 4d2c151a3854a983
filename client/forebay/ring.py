"""The newest ring that a client knows, and how it learns of newer ones.

Responses carry the worker's epoch; a newer one than ours, or a failed worker, makes a background thread ask
for the ring document. Readers never wait for that: they go on with what is known.
"""

import logging
import socket
import threading
from collections.abc import Callable, Iterable, Iterator

from forebay.connection import TokenProvider
from forebay.control import ControlClient
from forebay.tls import TlsProvider, plain
from forebay_protocol.errors import ForebayError, Unauthorized
from forebay_protocol.ring import Ring

Endpoint = tuple[str, int]
Seeds = Callable[[], Iterable[Endpoint]]
"""Where control APIs may be found when the ring itself does not help (any more)."""

REFRESH_INTERVAL = 30.0
RETRY_INTERVAL = 2.0
LEAST_PAUSE = 0.25
"""Seconds between looks at the ring: when all is well, while no worker is known, and at the least."""

_log = logging.getLogger(__name__)


def resolve(host: str, port: int) -> list[Endpoint]:
    """All addresses of a name, as a headless Service has them; none when it has none (now)."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return list(dict.fromkeys((str(entry[4][0]), port) for entry in found))


class RingHolder:
    """Holds the newest ring; a thread refreshes it. Thread-safe."""

    def __init__(
        self,
        token_provider: TokenProvider,
        seeds: Seeds,
        *,
        on_change: Callable[[Ring], None] | None = None,
        on_answer: Callable[[ControlClient], None] | None = None,
        tls: TlsProvider = plain,
    ) -> None:
        """Both are called from the thread that asks: with every newer ring, and with every worker that answered."""
        self._token_provider = token_provider
        self._seeds = seeds
        self._on_change = on_change
        self._on_answer = on_answer
        self._tls = tls
        self._ring = Ring(epoch=0)
        self._condition = threading.Condition()
        self._wanted = False
        self._stopped = False
        self._thread: threading.Thread | None = None

    @property
    def current(self) -> Ring:
        """The newest ring known; one without members at epoch 0 before the first."""
        return self._ring

    def start(self) -> None:
        """Begin refreshing in the background."""
        self._thread = threading.Thread(target=self._run, name="ring", daemon=True)
        self._thread.start()

    def saw(self, epoch: int) -> None:
        """Some response told this epoch."""
        if epoch > self._ring.epoch:
            self.want()

    def want(self) -> None:
        """Ask for a refresh soon: a worker failed, or something newer exists."""
        with self._condition:
            self._wanted = True
            self._condition.notify_all()

    def refresh(self) -> bool:
        """Ask workers, first those of the ring, then the seeds, until one answers; whether one did."""
        for address, port in self._endpoints():
            worker = ControlClient(address, port, self._token_provider, timeout=2.0, tls=self._tls())
            try:
                found = worker.ring()
                if self._on_answer is not None:
                    self._on_answer(worker)
            except Unauthorized as error:
                _log.warning("%s", error)
                continue
            except ForebayError as error:
                _log.debug("no ring from %s:%d: %s", address, port, error)
                continue
            if self.offer(found) or found.epoch == self._ring.epoch:
                return True
        return False

    def _endpoints(self) -> Iterator[Endpoint]:
        members = [(member.address, member.control_port) for member in self._ring.members]
        yield from members
        # Asked only now: resolving a name can take seconds where the cluster's DNS is in trouble.
        yield from (seed for seed in self._seeds() if seed not in members)

    def offer(self, ring: Ring) -> bool:
        """Take this ring if it is newer; whether it was."""
        with self._condition:
            if ring.epoch <= self._ring.epoch:
                return False
            self._ring = ring
        _log.info("ring epoch %d with %d members", ring.epoch, len(ring.members))
        if self._on_change is not None:
            self._on_change(ring)
        return True

    def _run(self) -> None:
        while True:
            self.refresh()
            pause = REFRESH_INTERVAL if self._ring.members else RETRY_INTERVAL
            with self._condition:
                # One failing worker makes every read ask for a refresh; they share one.
                self._condition.wait_for(lambda: self._stopped, timeout=LEAST_PAUSE)
                self._condition.wait_for(lambda: self._wanted or self._stopped, timeout=pause)
                if self._stopped:
                    return
                self._wanted = False

    def close(self) -> None:
        """Stop the thread."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()
        if self._thread is not None:
            self._thread.join(timeout=5)
