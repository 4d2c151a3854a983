"""Folders of the cache: filled once, under a lock, visible only when complete."""

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from testkit.progress import Progress, silent


@contextmanager
def locked(file: Path, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a lock between processes; the kernel releases it when we die. `waiting` is told when another holds it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is not None:
                waiting()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def complete_folder(
    folder: Path, names: tuple[str, ...], fill: Callable[[Path], None], progress: Progress | None = None
) -> Path:
    """Return the folder with all the named files; have it filled when it is not there yet.

    `fill` gets a folder that an interrupted earlier attempt may have left files in: it may go on from there.
    """
    if _has(folder, names):
        return folder
    progress = progress or silent()
    with locked(
        folder.parent / f".{folder.name}.lock", lambda: progress.say(f"{folder.name}: another process makes it")
    ):
        if _has(folder, names):
            return folder
        partial = folder.parent / f".{folder.name}.partial"
        partial.mkdir(parents=True, exist_ok=True)
        fill(partial)
        missing = [name for name in names if not (partial / name).exists()]
        if missing:
            raise RuntimeError(f"{folder.name} came without {', '.join(missing)}")
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    return folder


def _has(folder: Path, names: tuple[str, ...]) -> bool:
    """Tell whether every file is there."""
    return all((folder / name).exists() for name in names)
