"""Keep a mount served: hold its connection, and start another server whenever one dies.

The kernel keeps the requests of a mount for as long as somebody holds its connection, so readers wait for the
next server and notice nothing else.
"""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from forebay_node.connection import Connection
from forebay_node.restarts import FREE, PATIENCE, Restarts
from forebay_node.server_process import ProcessIdentity, ServerProcess, ServerSpec
from forebay_protocol.errors import ForebayError

_log = logging.getLogger(__name__)


class Supervisor:
    """One mount and its servers, one after the other. Thread-safe."""

    def __init__(self, spec: ServerSpec, target: Path, on_start: Callable[[ProcessIdentity], None]) -> None:
        """Start a server and mount what it serves; WorkerUnavailable when it cannot begin.

        ``on_start`` is told of every process that serves the mount.
        """
        self._spec = spec
        self._on_start = on_start
        self._restarts = Restarts()
        self._stopping = threading.Event()
        self._given_up = ""
        self._last_end = ""
        self._connection = Connection()
        try:
            self._process = ServerProcess(spec, self._connection.channels, resume=False)
            self._process.begin(lambda: self._connection.mount(spec.source, target))
        except BaseException:
            self._connection.close()
            raise
        self._started_at = time.monotonic()
        on_start(self._process.identity)
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)
        self._thread.start()

    @property
    def is_live(self) -> bool:
        """Whether the mount is served, or will be in a moment."""
        return self._thread.is_alive()

    @property
    def problem(self) -> str:
        """What is wrong with the mount's servers; empty when nothing is."""
        if self._given_up:
            return self._given_up
        if self._restarts.short_lives > FREE:
            return f"the mount's server ends again and again and is restarted ({self._last_end}); its log says why"
        return ""

    def stop(self, patience: float) -> None:
        """Let go of a mount that was taken away: its server ends by itself within ``patience`` seconds or is ended."""
        self._stopping.set()
        # Another server may just be starting; it is met the second time.
        for _ in range(2):
            self._process.identity.end(patience)
            self._thread.join(patience)

    def _watch(self) -> None:
        try:
            while not self._has_ended(self._process.wait()) and self._start_another():
                pass
        except Exception as error:  # noqa: BLE001 - the outermost edge of a thread: the mount must not hang unserved
            self._given_up = f"the mount cannot be kept ({error}); delete the pods that use it"
            _log.exception("giving %s up", self._spec.source)
        finally:
            self._connection.close()

    def _has_ended(self, code: int) -> bool:
        """Whether nobody needs another server: the file system is unmounted, or the mount was let go of."""
        if code == 0 or self._stopping.is_set():
            _log.info("the server of %s ended with %d", self._spec.source, code)
            return True
        self._last_end = f"with signal {-code}" if code < 0 else f"with exit code {code}"
        _log.error("the server of %s ended %s; starting another one", self._spec.source, self._last_end)
        return False

    def _start_another(self) -> bool:
        pause: float | None = self._restarts.ended(self._started_at, time.monotonic())
        self._connection.recover()
        while pause is not None:
            if self._stopping.wait(pause):
                return False
            try:
                self._process = ServerProcess(self._spec, self._connection.channels, resume=True)
                self._process.begin()
            except (ForebayError, OSError) as error:
                self._last_end = str(error)
                _log.error("no server for %s: %s", self._spec.source, error)
                pause = self._restarts.failed(time.monotonic())
                continue
            self._started_at = time.monotonic()
            self._on_start(self._process.identity)
            return True
        self._given_up = f"the mount had no server for {PATIENCE:g} s ({self._last_end}); delete the pods that use it"
        _log.error("giving %s up: %s", self._spec.source, self._given_up)
        return False
