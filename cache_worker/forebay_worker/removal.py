"""The end of a worker's files: begun by whoever asks first, and under way in a thread of its own."""

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import structlog

_log = structlog.get_logger()


def clear(folder: Path) -> None:
    """Remove all that is in a folder. The folder itself may be a mount, so it stays."""
    if not folder.is_dir():
        return
    for child in folder.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink(missing_ok=True)


class Removal:
    """Removes the files once nobody works on them any more. Thread-safe."""

    def __init__(self, end_work: Callable[[], None], folders: tuple[Path, ...]) -> None:
        """``end_work`` lets go of all files; it may be called more than once. Nothing happens before ``ask``."""
        self._end_work = end_work
        self._folders = folders
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._done = False

    @property
    def begun(self) -> bool:
        """Whether somebody has asked."""
        return self._thread is not None

    def ask(self) -> bool:
        """Begin, or begin again after a failure; whether all is removed."""
        with self._lock:
            if not self._done and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(target=self._run, name="removal", daemon=True)
                self._thread.start()
            return self._done

    def _run(self) -> None:
        self._end_work()
        try:
            for folder in self._folders:
                clear(folder)
        except OSError as error:
            # A write that was under way may have brought a file into a folder just emptied: the next ask finds it.
            _log.warning("files not removed", error=str(error))
            return
        self._done = True
        _log.info("files removed", folders=[str(folder) for folder in self._folders])

    def wait(self, seconds: float) -> None:
        """Let what was begun come to its end."""
        if self._thread is not None:
            self._thread.join(seconds)
