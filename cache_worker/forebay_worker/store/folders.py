"""The folders of all tiers: opened, measured, taken out when they fail, and tried again.

The state knows folders as tiers by number; folders of one tier have the same level.
"""

import errno
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import structlog

from forebay_protocol.control import Problem, TierStatus
from forebay_worker.core.chunk import Tier
from forebay_worker.metrics import Metrics
from forebay_worker.settings import TierSettings
from forebay_worker.store.sealing import Sealing
from forebay_worker.store.tier import StorageTier

_FILE_BLOCK = 4096
"""What the file systems of tiers hand out at the least."""

_NOT_OPEN = Problem(reason="TierNotUsable", message="the tier was not opened yet")

_log = structlog.get_logger()


class FolderGone(OSError):
    """The folder has failed since; what is done in it has no meaning any more."""


@dataclass(slots=True)
class _Folder:
    tier: int
    path: Path
    storage: StorageTier | Problem = _NOT_OPEN


class Folders:
    """By number. The owner serializes ``open``, ``lose`` and ``capacities``."""

    def __init__(
        self, tiers: tuple[TierSettings, ...], dataset: str, metrics: Metrics, sealing: Sealing | None = None
    ) -> None:
        """Nothing is opened yet. ``sealing`` is for the tiers that are to be encrypted."""
        self._sealing = sealing
        self._settings = tiers
        self._dataset = dataset
        self._metrics = metrics
        self._folders = [_Folder(level, path) for level, tier in enumerate(tiers) for path in tier.paths]

    def __len__(self) -> int:
        return len(self._folders)

    def __getitem__(self, number: int) -> StorageTier:
        storage = self._folders[number].storage
        if isinstance(storage, Problem):
            raise FolderGone(errno.EIO, storage.message)
        return storage

    def tiers(self) -> list[Tier]:
        """As the state begins with them."""
        settings = [(folder.tier, self._settings[folder.tier]) for folder in self._folders]
        return [Tier(0, tier.high, tier.low, _FILE_BLOCK, level) for level, tier in settings]

    def medium(self, number: int) -> str:
        """The name of a folder's medium."""
        return self._settings[self._folders[number].tier].medium

    def open(self, number: int) -> StorageTier | None:
        """The folder if it was not open and can be opened now."""
        folder = self._folders[number]
        if isinstance(folder.storage, StorageTier):
            return None
        medium = self.medium(number)
        try:
            folder.storage = StorageTier(medium, folder.path, self._dataset, self._sealing_of(folder))
        except (OSError, sqlite3.Error) as error:
            self._fail(folder, medium, error)
            return None
        return folder.storage

    def _sealing_of(self, folder: _Folder) -> Sealing | None:
        if not self._settings[folder.tier].encrypted:
            return None
        if self._sealing is None:
            raise PermissionError(errno.ENOKEY, "the tier is to be encrypted and the access Secret has no data key")
        return self._sealing

    def lose(self, number: int, error: Exception) -> None:
        """Take a folder out of use."""
        folder = self._folders[number]
        if isinstance(folder.storage, StorageTier):
            self._metrics.tier_failures.labels(self.medium(number)).inc()
            folder.storage.close()
        self._fail(folder, self.medium(number), error)

    def _fail(self, folder: _Folder, medium: str, error: Exception) -> None:
        folder.storage = Problem(
            reason="TierNotUsable",
            message=f"the {medium} tier ({folder.path}) cannot be used ({error}); its chunks are read from elsewhere; "
            "let its volume be writable for the worker's user, or replace the disk",
        )
        _log.warning("tier cannot be used", medium=medium, path=str(folder.path), error=str(error))

    def capacities(self, used: list[int]) -> list[int | OSError]:
        """What each folder may hold now; an error for those that have failed.

        The quota is spread over the folders that work, by the size of their file systems.
        """
        found: list[int | OSError] = [0] * len(self._folders)
        for level, settings in enumerate(self._settings):
            working = {n: f.storage for n, f in enumerate(self._folders) if f.tier == level}
            sizes: dict[int, int] = {}
            for number, storage in working.items():
                try:
                    sizes[number] = storage.room().total if isinstance(storage, StorageTier) else 0
                except OSError as error:
                    found[number] = error
            for number, size in sizes.items():
                storage = working[number]
                if isinstance(storage, StorageTier):
                    quota = settings.quota * size // (sum(sizes.values()) or 1)
                    try:
                        found[number] = storage.measure(settings.medium, quota, used[number], settings.reserve)
                    except OSError as error:
                        found[number] = error
        return found

    def statuses(self, tiers: list[tuple[int, int]]) -> tuple[TierStatus, ...]:
        """The tiers for the worker's status, given (capacity, used) of each folder."""
        statuses: list[TierStatus] = []
        for level, settings in enumerate(self._settings):
            mine = [(folder, room) for folder, room in zip(self._folders, tiers, strict=True) if folder.tier == level]
            storages = [folder.storage for folder, _ in mine]
            problems = [one if isinstance(one, Problem) else one.problem for one in storages]
            statuses.append(
                TierStatus(
                    medium=settings.medium,
                    capacity_bytes=sum(capacity for _, (capacity, _) in mine),
                    used_bytes=sum(used for _, (_, used) in mine),
                    problem=next((problem for problem in problems if problem is not None), None),
                )
            )
            self._metrics.tier_bytes(settings.medium, statuses[-1].used_bytes, statuses[-1].capacity_bytes)
        return tuple(statuses)

    def close(self) -> None:
        """Close all catalogues."""
        for folder in self._folders:
            if isinstance(folder.storage, StorageTier):
                folder.storage.close()
