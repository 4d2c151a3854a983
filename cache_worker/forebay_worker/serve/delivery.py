"""Answers that are sent from within a fetch, by the thread that fetches the chunk itself."""

from collections.abc import Callable
from typing import Protocol

from forebay_protocol.wire import ReadRequest
from forebay_worker.arrival import Part
from forebay_worker.serve.stream import Stream


class PassedOn(Exception):
    """Another thread looks after the stream now."""


class Delivered(Protocol):
    """Told once when the answer was sent, or as much of it as the stream took."""

    def __call__(self, stream: Stream, request: ReadRequest, part: Part, *, passed_on: bool) -> None:
        """With ``passed_on`` the stream is to be looked after by another thread from here on."""


class Delivery:
    """One answer, sent without waiting as soon as its range is there.

    The rest of the chunk may take long, so the stream is passed on, unless its reader did not take all of the answer
    at once, or asks for more already.
    """

    __slots__ = ("_delivered", "_head", "_left", "_problem", "_request", "_stream", "passed_on")

    def __init__(
        self, stream: Stream, request: ReadRequest, head: Callable[[ReadRequest, bytes], bytes], delivered: Delivered
    ) -> None:
        """``head`` makes all of a response but its payload, of whose checksums it is told."""
        self._stream = stream
        self._request = request
        self._head = head
        self._delivered = delivered
        self._left: list[memoryview] = []
        self._problem: OSError | None = None
        self.passed_on = False

    def __call__(self, part: Part) -> None:
        """Send the answer; see ``forebay_worker.arrival.Deliver``."""
        head = self._head(self._request, part.sums)
        try:
            sent = self._stream.send_now(head, part.data)
        except OSError as error:
            self._problem = error
            return
        self.passed_on = sent == len(head) + len(part.data) and self._stream.is_quiet
        if not self.passed_on:
            self._left = [memoryview(head)[sent:], part.data[max(0, sent - len(head)) :]]
        self._delivered(self._stream, self._request, part, passed_on=self.passed_on)

    def finish(self) -> None:
        """After the fetch: send what is left. PassedOn, or the OSError that sending met."""
        if self.passed_on:
            raise PassedOn
        if self._problem is not None:
            raise self._problem
        for piece in self._left:
            self._stream.socket.sendall(piece)
