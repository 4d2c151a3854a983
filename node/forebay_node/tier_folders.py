"""The folders of cache workers on this node: made for a pod, and removed when no Runtime claims them any more.

A worker's pod names one of the roots that the administrator gives away; what it gets there is
``<root>/<its namespace>/<Runtime's UID>/<its name>``, so that no pod reaches another namespace's bytes. The
kubelet, not the pod, says which namespace and name are meant. Only the innermost folders belong to the worker's
user: it can redirect nothing above them.
"""

import contextlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from forebay_node.mounts import bind_data, current_mounts, mounted_at
from forebay_protocol.errors import InvalidRequest
from forebay_protocol.volume import RUNTIME_UID, RUNTIMES_FILE, TIER_FOLDERS, TIER_PATH, WORKER_UID

POD_NAME, POD_NAMESPACE = "csi.storage.k8s.io/pod.name", "csi.storage.k8s.io/pod.namespace"
"""What the kubelet adds to the volume's attributes when the CSIDriver says podInfoOnMount."""

GRACE = 30.0
"""Seconds for which a folder must be unclaimed and unused before it goes: the list may be older than the folder."""

_DNS_NAME = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")
_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ORDINAL = re.compile(r".*-(\d+)")

_MAY_HANG = ("fuse", "nfs", "ceph", "cifs")
"""File systems that are not asked about their root: nobody may be there to answer."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerFolder:
    """One worker's folder for one tier."""

    root: Path
    namespace: str
    runtime: str
    pod: str

    @property
    def path(self) -> Path:
        """Where it is."""
        return self.root / self.namespace / self.runtime / self.pod


def is_tier(context: Mapping[str, str]) -> bool:
    """Whether a volume's attributes ask for a worker's folder rather than for a dataset."""
    return TIER_PATH in context


def requested(context: Mapping[str, str], roots: tuple[Path, ...]) -> WorkerFolder:
    """The folder that a pod asks for; InvalidRequest when it may not have it."""
    root = Path(os.path.normpath(context[TIER_PATH]))
    if root not in roots:
        raise InvalidRequest(
            f"no tier may live in {root} on this node, only in: {', '.join(map(str, roots)) or 'no folder at all'}; "
            "change hostPath.paths, or give the node plugin that folder (--tier-root, and a volume of its pods)"
        )
    namespace, runtime, pod = (context.get(key, "") for key in (POD_NAMESPACE, RUNTIME_UID, POD_NAME))
    if not (_DNS_NAME.fullmatch(namespace) and _DNS_NAME.fullmatch(pod) and _UID.fullmatch(runtime)):
        raise InvalidRequest("the volume's attributes lack the pod's name and namespace or the Runtime's UID")
    return WorkerFolder(root, namespace, runtime, pod)


def is_claimed(folder: WorkerFolder, replicas: Mapping[str, int]) -> bool:
    """Whether a Runtime still wants the folder: it exists, and so many replicas that this is one of them."""
    ordinal = _ORDINAL.fullmatch(folder.pod)
    return folder.runtime in replicas and (ordinal is None or int(ordinal[1]) < replicas[folder.runtime])


class TierFolders:
    """The folders below the roots. ``publish`` is for any thread, ``collect`` for one."""

    def __init__(self, roots: tuple[Path, ...], list_folder: Path | None, pods: Path, owner: int = WORKER_UID) -> None:
        """``list_folder`` holds the list of Runtimes; ``pods`` is the kubelet's folder of pods."""
        self._roots = roots
        self._list = None if list_folder is None else list_folder / RUNTIMES_FILE
        self._pods = pods
        self._owner = owner
        self._unclaimed_since: dict[WorkerFolder, float] = {}

    def publish(self, context: Mapping[str, str], target: Path) -> None:
        """Make the folder if need be and show it at the pod's path."""
        folder = requested(context, self._roots)
        if mounted_at(target, current_mounts()):
            return
        self._prepare(folder)
        target.mkdir(mode=0o750, parents=True, exist_ok=True)
        bind_data(folder.path, target)
        _log.info("folder %s serves %s/%s", folder.path, folder.namespace, folder.pod)

    def _prepare(self, folder: WorkerFolder) -> None:
        parent = folder.path.parent
        parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with _opened(parent) as above:
            _own(folder.pod, above, self._owner)
            with _opened(folder.pod, above) as inside:
                for name in TIER_FOLDERS:
                    _own(name, inside, self._owner)

    def collect(self, now: Callable[[], float] = time.monotonic) -> None:
        """Remove the folders that no Runtime has claimed and no pod has used for a while."""
        replicas = self._replicas()
        if replicas is None:
            return
        unclaimed = [folder for folder in self._folders() if not is_claimed(folder, replicas)]
        used = self._in_use() if unclaimed else frozenset()
        since = self._unclaimed_since
        self._unclaimed_since = {
            folder: since.get(folder, now()) for folder in unclaimed if _identity(folder.path) not in used
        }
        for folder in [one for one, start in self._unclaimed_since.items() if now() - start >= GRACE]:
            self._remove(folder)

    def _replicas(self) -> dict[str, int] | None:
        """Replicas by Runtime UID; None while nobody has told: then nothing is removed."""
        if self._list is None:
            return None
        try:
            return {str(uid): int(count) for uid, count in json.loads(self._list.read_bytes()).items()}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, AttributeError) as error:
            _log.warning("the list of Runtimes cannot be read: %r", error)
            return None

    def _folders(self) -> Iterator[WorkerFolder]:
        for root in self._roots:
            for path in root.glob("*/*/*/"):
                namespace, runtime, pod = path.parts[-3:]
                if _UID.fullmatch(runtime) and not path.is_symlink():
                    yield WorkerFolder(root, namespace, runtime, pod)

    def _in_use(self) -> frozenset[tuple[int, int]]:
        """Devices and inodes of the folders that pods have."""
        mounts = (Path(entry.target) for entry in current_mounts() if not entry.fstype.startswith(_MAY_HANG))
        return frozenset(
            identity for path in mounts if self._pods in path.parents and (identity := _identity(path)) is not None
        )

    def _remove(self, folder: WorkerFolder) -> None:
        try:
            shutil.rmtree(folder.path)
        except OSError as error:
            _log.warning("%s is not removed: %s; trying again", folder.path, error)
            return
        # A parent that still holds other folders stays.
        with contextlib.suppress(OSError):
            folder.path.parent.rmdir()
            folder.path.parent.parent.rmdir()
        del self._unclaimed_since[folder]
        _log.info("removed %s: no Runtime claims it", folder.path)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        seen = path.lstat()
    except OSError:
        return None
    return seen.st_dev, seen.st_ino


@contextlib.contextmanager
def _opened(path: Path | str, above: int | None = None) -> Iterator[int]:
    """A folder by descriptor; never a symlink's target."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    try:
        yield fd
    finally:
        os.close(fd)


def _own(name: str, above: int, owner: int) -> None:
    """Make a folder, unless it is there, and hand it over."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, mode=0o700, dir_fd=above)
    os.chown(name, owner, owner, dir_fd=above, follow_symlinks=False)
