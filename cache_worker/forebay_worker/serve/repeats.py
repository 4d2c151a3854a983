"""Requests that were answered before: where their bytes lie is known, so that a repeat costs one look-up.

A request's bytes but its id say all that matters: whose object, which range, how to answer. What is remembered of them
is where the chunk was found; each time that is asked whether it still holds (see `store.places`). The reader's right to
the dataset is not remembered: each stream has its own.
"""

from typing import NamedTuple

from forebay_protocol import wire
from forebay_protocol.errors import ForebayError
from forebay_protocol.wire import Flag, ReadRequest
from forebay_worker.serve.stream import Stream
from forebay_worker.store.places import Place

_MOST = 16384


class Known(NamedTuple):
    """What a request led to: the chunk, the range within it, and all of the response but the payload."""

    place: Place
    dataset: str
    flags: Flag
    within: int
    length: int
    head: bytes


class Repeats:
    """Thread-safe, since each step is one of a dict's."""

    def __init__(self) -> None:
        """Nothing was asked yet."""
        self._known: dict[bytes, Known] = {}

    def recognise(self, stream: Stream) -> Known | None:
        """What is known of what arrived, if that is one request that was answered before and that the stream may make.

        What to say where it may not is another path's.
        """
        raw, admission = stream.pending, stream.admission
        known = self._known.get(wire.without_id(raw)) if raw else None
        if known is None or admission is None or stream.secured:
            return None
        if not known.place.holds:
            self._known.pop(wire.without_id(raw), None)
            return None
        try:
            admission.check()
        except ForebayError:
            return None
        return known if admission.dataset == known.dataset else None

    def learn(self, raw: bytes, request: ReadRequest, within: int, head: bytes, place: Place) -> None:
        """Remember what a request led to."""
        if len(self._known) >= _MOST:
            self._known.clear()
        known = Known(place, request.object.dataset, request.flags, within, request.length, head)
        self._known[wire.without_id(raw)] = known
