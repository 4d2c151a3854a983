"""Folders of the cache: filled once, under a lock, visible only when complete."""

import fcntl
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a lock between processes; the kernel releases it when we die."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def complete_folder(folder: Path, names: tuple[str, ...], fill: Callable[[Path], None]) -> Path:
    """Return the folder with all the named files; have it filled when it is not there yet.

    `fill` gets a folder that an interrupted earlier attempt may have left files in: it may go on from there.
    """
    if _has(folder, names):
        return folder
    with locked(folder.parent / f".{folder.name}.lock"):
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
