"""The connection to the kernel: threads that take requests from the device and send answers back.

Every thread has a channel, a descriptor of its own, so that threads do not contend for one queue; an answer
goes out on the channel on which its request came in.
"""

import errno
import logging
import mmap
import os
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from forebay_node.fuse import protocol
from forebay_protocol.errors import ForebayError

LONGEST_ANSWER = 30.0
"""Seconds after which a request that is still not answered fails with EIO."""

_GONE = {errno.ENODEV, errno.ECONNABORTED}
_AGAIN = {errno.EINTR, errno.EAGAIN, errno.ENOENT}

_log = logging.getLogger(__name__)


class Reply:
    """Where the answer to one request goes. One answer is sent, from any thread; later ones are dropped."""

    __slots__ = ("_device", "_waiting", "since", "unique")

    def __init__(self, device: int, unique: int, waiting: "dict[int, Reply]") -> None:
        """``device`` is the descriptor on which the request came; ``waiting`` has the reply until it is sent."""
        self._device = device
        self._waiting = waiting
        self.unique = unique
        self.since = time.monotonic()
        waiting[unique] = self

    def data(self, parts: Sequence[bytes | memoryview] = ()) -> None:
        """Answer with these bytes."""
        header = protocol.reply_header(self.unique, sum(len(part) for part in parts))
        self._send((header, *parts))

    def error(self, number: int) -> None:
        """Answer with an errno."""
        self._send((protocol.reply_error(self.unique, number),))

    def _send(self, parts: Sequence[bytes | memoryview]) -> None:
        if self._waiting.pop(self.unique, None) is None:
            return
        try:
            os.writev(self._device, parts)
        except OSError as error:
            # The caller was killed (ENOENT) or the mount is gone: there is nobody left to tell.
            if error.errno not in _GONE | _AGAIN:
                self._waiting[self.unique] = self
                raise


class Handler(Protocol):
    """What answers the requests."""

    def handle(self, request: protocol.Request, reply: Reply) -> None:
        """Answer now, or keep ``reply`` and answer from another thread. The body is valid only during the call."""


class Session:
    """Serves one mount until it is unmounted."""

    def __init__(self, channels: Sequence[int], handler: Handler, *, answer_within: float = LONGEST_ANSWER) -> None:
        """``channels`` are descriptors of one connection; they stay the caller's."""
        self._channels = channels
        self._handler = handler
        self._answer_within = answer_within
        self._waiting: dict[int, Reply] = {}
        self._ended = threading.Event()
        self._resent = threading.Lock()

    def notify(self, messages: Sequence[bytes]) -> None:
        """Send notifications; what the kernel does not know (any more) needs no telling."""
        for message in messages:
            try:
                os.write(self._channels[0], message)
            except OSError as error:
                if error.errno in _GONE:
                    return
                if error.errno not in {errno.ENOENT, errno.ENOTDIR}:
                    _log.warning("the kernel refused a notification: %s", error)

    def run(self) -> None:
        """Serve; returns when the file system is unmounted or its connection aborted."""
        first, *others = self._channels
        threads = [threading.Thread(target=self._loop, args=(one,), name="fuse", daemon=True) for one in others]
        watch = threading.Thread(target=self._watch, name="watch", daemon=True)
        for thread in (watch, *threads):
            thread.start()
        self._loop(first)
        self._ended.set()
        for thread in (watch, *threads):
            # A thread may still be fetching what nobody waits for any more.
            thread.join(timeout=1.0)

    def _watch(self) -> None:
        """Fail what is not answered in time, whatever keeps it: no caller hangs for ever."""
        while not self._ended.wait(min(1.0, self._answer_within)):
            oldest = time.monotonic() - self._answer_within
            for reply in list(self._waiting.values()):
                if reply.since < oldest:
                    _log.warning("a request was not answered within %g s", self._answer_within)
                    guard(reply, partial(reply.error, errno.EIO))

    def _loop(self, device: int) -> None:
        # Its pages are there from the start: a request that is being copied when the process is killed is then
        # copied to its end and sent again to the next server, where a page fault would make it fail.
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE
        buffer = mmap.mmap(-1, protocol.REQUEST_BUFFER, flags=flags)
        while self._one(device, buffer):
            pass

    def _one(self, device: int, buffer: mmap.mmap) -> bool:
        """Take and handle one request; false when there will be no more."""
        try:
            length = os.readv(device, (buffer,))
        except OSError as error:
            if error.errno in _AGAIN:
                return True
            if error.errno in _GONE:
                return False
            raise
        request = protocol.parse_request(memoryview(buffer)[:length])
        if request.is_resent:
            self._tell_of_resent()
        if request.opcode in protocol.UNANSWERED:
            # Nodes carry their own meaning, so nothing is kept that could be forgotten; reads end by themselves
            # in bounded time, and EINTR for a signal that kills nobody would break a reader's mmap.
            return True
        reply = Reply(device, request.unique, self._waiting)
        guard(reply, partial(self._handler.handle, request, reply))
        return True

    def _tell_of_resent(self) -> None:
        """Once: a look into the log then shows whether a server that was killed had requests."""
        if self._resent.acquire(blocking=False):
            _log.info("requests that a server before had not answered came again")


def guard(reply: Reply, work: Callable[[], None]) -> None:
    """Run ``work``, which answers; if it raises instead, answer with the error's errno."""
    try:
        work()
    except ForebayError as error:
        _log.warning("a request was answered with an error: %s", error)
        reply.error(error.errno)
    except Exception:  # noqa: BLE001 - the outermost edge: an unanswered request would hang its caller for ever
        _log.exception("a request failed for a reason that is a defect")
        reply.error(errno.EIO)
