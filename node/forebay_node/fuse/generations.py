"""Follow the index: get the first generation, then every newer one, and keep the last on the node.

The kept one lets a mount come up while no worker answers, and lets a server go on where one before it was
killed: then the generation before is kept too, until the kernel has been told of all that changed.
"""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from forebay.connection import TokenProvider
from forebay.control import ControlClient
from forebay.index import Snapshot
from forebay.index.packing import unpack
from forebay.ring import RingHolder, Seeds
from forebay.tls import ClientTls
from forebay_protocol.errors import ForebayError, WorkerUnavailable

SHORTEST_POLL, LONGEST_POLL = 1.0, 15.0
"""Seconds between looks for a newer generation; between them it is a quarter of the dataset's refresh interval."""

_RETRY = 1.0
_BEFORE = "index.before"
_log = logging.getLogger(__name__)


def poll_interval(refresh_seconds: float | None) -> float:
    """How often to look, so that most of the refresh interval is the workers'."""
    quarter = LONGEST_POLL if refresh_seconds is None else refresh_seconds / 4
    return min(max(quarter, SHORTEST_POLL), LONGEST_POLL)


class Generations:
    """Gets snapshots from the workers into files of a folder of its own."""

    def __init__(
        self,
        folder: Path,
        dataset: str,
        ring: RingHolder,
        seeds: Seeds,
        token: TokenProvider,
        tls: ClientTls | None = None,
    ) -> None:
        """``dataset`` is the UID that a kept snapshot must be of."""
        self._folder = folder
        self._dataset = dataset
        self._ring = ring
        self._seeds = seeds
        self._token = token
        self._tls = tls
        self._have: Snapshot | None = None
        self._condition = threading.Condition()
        self._newest_seen = 0
        self._stopped = False

    def first(self, patience: float) -> Snapshot:
        """The first snapshot: the workers' newest, else the one kept, else wait up to ``patience`` seconds."""
        (self._folder / _BEFORE).unlink(missing_ok=True)
        end = time.monotonic() + patience
        while True:
            self._ring.refresh()
            found = self._fetch() or self._kept()
            if found is not None:
                return found
            if time.monotonic() >= end:
                raise WorkerUnavailable(f"no index of the dataset to be had: {self._problem()}")
            with self._condition:
                self._condition.wait_for(lambda: self._stopped, timeout=_RETRY)

    def resumed(self, patience: float) -> list[Snapshot]:
        """What a predecessor showed: the generation that the kernel knows, and a newer one if there is."""
        kept = [one for one in (self._opened(_BEFORE), self._opened("index")) if one is not None]
        if not kept:
            return [self.first(patience)]
        self._have = kept[-1]
        return kept

    def told(self, snapshot: Snapshot) -> None:
        """The kernel was told of all that changed up to this generation."""
        if snapshot is self._have:
            (self._folder / _BEFORE).unlink(missing_ok=True)

    def _problem(self) -> str:
        """Why there is none, as far as a worker can tell."""
        reasons = []
        for address, port in self._endpoints():
            try:
                status = ControlClient(address, port, self._token, timeout=2.0, tls=self._tls).status()
            except ForebayError as error:
                reasons.append(error.message)
                continue
            problems = [*status.index.problems, *status.problems]
            reasons.extend(problem.message for problem in problems)
            reasons.append(f"worker {status.id} says that its index is {status.index.state.value}")
        return "; ".join(reasons[:3]) or "no worker is known; does the dataset have a Runtime with ready workers?"

    def _endpoints(self) -> list[tuple[str, int]]:
        members = [(member.address, member.control_port) for member in self._ring.current.members]
        return members or list(self._seeds())

    def _fetch(self) -> Snapshot | None:
        """The workers' newest snapshot, if it is another than the one at hand; the first that answers decides."""
        have = self._have.generation if self._have is not None else 0
        packed, target = self._folder / "index.packed", self._folder / "index.new"
        for address, port in self._endpoints():
            try:
                generation = ControlClient(address, port, self._token, tls=self._tls).fetch_index(have, packed)
                if generation is None:
                    if have:
                        return None
                    continue
                unpack(packed, target)
                fresh = Snapshot.open(target)
            except ForebayError as error:
                _log.info("no index from %s:%d: %s", address, port, error)
                continue
            finally:
                packed.unlink(missing_ok=True)
            # Generations start again where workers lost their state, so the later one is the newer.
            if self._have is None or fresh.built_at > self._have.built_at:
                return self._keep(target, fresh)
            fresh.close()
            return None
        return None

    def _keep(self, target: Path, fresh: Snapshot) -> Snapshot:
        index, before = self._folder / "index", self._folder / _BEFORE
        # What the kernel knows best is the oldest that it has not been led on from.
        if self._have is not None and not before.exists():
            before.hardlink_to(index)
        target.replace(index)
        self._have = fresh
        _log.info("index generation %d with %d files", fresh.generation, fresh.file_count)
        return fresh

    def _kept(self) -> Snapshot | None:
        self._have = self._opened("index")
        if self._have is not None:
            _log.info("no worker has an index; showing generation %d, which was kept here", self._have.generation)
        return self._have

    def _opened(self, name: str) -> Snapshot | None:
        path = self._folder / name
        if not path.exists():
            return None
        try:
            kept = Snapshot.open(path)
        except ForebayError as error:
            _log.warning("the kept index is of no use: %s", error)
            return None
        if kept.dataset != self._dataset:
            kept.close()
            return None
        return kept

    def saw(self, generation: int) -> None:
        """Some response told this generation."""
        if generation > self._newest_seen:
            with self._condition:
                self._newest_seen = generation
                self._condition.notify_all()

    def follow(self, interval: float, on_newer: Callable[[Snapshot], None]) -> None:
        """Hand every newer snapshot on, until stopped; files that are opened by their nodes need not wait then."""
        if self._have is not None:
            self._prepare(self._have)
        while True:
            with self._condition:
                self._condition.wait_for(self._is_behind, timeout=interval)
                if self._stopped:
                    return
                seen = self._newest_seen
            fresh = self._fetch()
            if fresh is not None:
                self._prepare(fresh)
                on_newer(fresh)
            with self._condition:
                # What was seen but cannot be had yet is looked for at the next interval.
                if self._newest_seen == seen and self._have is not None:
                    self._newest_seen = min(seen, self._have.generation)
                self._condition.wait_for(lambda: self._stopped, timeout=0.2)

    def _prepare(self, snapshot: Snapshot) -> None:
        try:
            snapshot.prepare_inodes()
        except ForebayError as error:
            _log.warning("generation %d of the index: %s", snapshot.generation, error)

    def _is_behind(self) -> bool:
        have = self._have.generation if self._have is not None else 0
        return self._stopped or self._newest_seen > have

    def stop(self) -> None:
        """End ``follow`` and ``first``'s waiting."""
        with self._condition:
            self._stopped = True
            self._condition.notify_all()
