"""Ask which version of an object its source has now: through a worker, else the source itself."""

from collections.abc import Callable

from forebay.control import ControlClient
from forebay.direct import DirectSources
from forebay.flight import SingleFlight
from forebay.ring import RingHolder
from forebay.source.base import Listing
from forebay_protocol.errors import ForebayError, WorkerUnavailable
from forebay_protocol.keys import ChunkKey, ObjectVersion
from forebay_protocol.ring import Member

_WORKERS = 2
_PATIENCE = 30.0

Contact = Callable[[Member], ControlClient]
"""Gives the control API of a worker."""


class Revalidation:
    """Thread-safe; those who ask for the same object at the same time share one question."""

    def __init__(self, ring: RingHolder, contact: Contact, direct: DirectSources) -> None:
        """Nothing is asked yet."""
        self._ring = ring
        self._contact = contact
        self._direct = direct
        self._flights: SingleFlight[Listing | None] = SingleFlight()

    def newest(self, one: ObjectVersion) -> Listing | None:
        """The object as its source has it now, None when it is gone; the source's error when it cannot tell."""
        try:
            return self._flights.do(one, lambda: self._ask(one), _PATIENCE)
        except TimeoutError as error:
            raise WorkerUnavailable("nobody told in time whether the file has changed") from error

    def _ask(self, one: ObjectVersion) -> Listing | None:
        for member in self._ring.current.ranked(ChunkKey(one.object_id, 0), _WORKERS):
            try:
                return self._contact(member).newest(one)
            except ForebayError:
                # Whether the worker or its way to the source is to blame: ours may be better.
                continue
        return self._direct.newest(one)
