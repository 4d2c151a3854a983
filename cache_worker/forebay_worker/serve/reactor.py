"""One thread that waits for many quiet streams at once."""

import select
import threading
import time
from collections.abc import Callable

from forebay_worker.serve.stream import Stream

_SWEEP_SECONDS = 1.0


class Reactor:
    """Watches streams; ``speaks`` is called, in the reactor's thread, with each that has something to read.

    ``rests`` follows when all who had something to say were heard. Streams that stay quiet for longer than
    ``patience`` seconds are given to ``quiet``.
    """

    def __init__(
        self, speaks: Callable[[Stream], None], quiet: Callable[[Stream], None], patience: float,
        rests: Callable[[], None],
    ) -> None:  # fmt: skip
        """Nothing is watched before ``start``."""
        self._speaks, self._quiet, self._patience, self._rests = speaks, quiet, patience, rests
        self._epoll = select.epoll()
        self._streams: dict[int, Stream] = {}
        self._stopping = False

    def start(self) -> None:
        """Begin."""
        threading.Thread(target=self._run, name="reactor", daemon=True).start()

    def watch(self, stream: Stream) -> None:
        """Take a stream over, from any thread; it is non-blocking from here on."""
        stream.socket.setblocking(False)
        stream.quiet_since = time.monotonic()
        fd = stream.socket.fileno()
        self._streams[fd] = stream
        self._epoll.register(fd, select.EPOLLIN)

    def release(self, stream: Stream) -> None:
        """Watch a stream no more: only in the reactor's thread. It stays non-blocking."""
        fd = stream.socket.fileno()
        self._epoll.unregister(fd)
        del self._streams[fd]

    def _run(self) -> None:
        sweep = time.monotonic()
        while not self._stopping or self._streams:
            spoken = self._epoll.poll(_SWEEP_SECONDS)
            now = time.monotonic()
            for fd, _ in spoken:
                stream = self._streams[fd]
                stream.quiet_since = now
                self._speaks(stream)
            self._rests()
            if now - sweep >= _SWEEP_SECONDS:
                sweep = now
                for stream in [one for one in self._streams.copy().values() if now - one.quiet_since > self._patience]:
                    self._quiet(stream)

    def stop(self) -> None:
        """End once no stream is watched any more."""
        self._stopping = True
