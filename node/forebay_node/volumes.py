"""Stage, publish and take away volumes on this node.

A volume is mounted once, at its staging path, and bound from there to each pod. Every operation may be
repeated: it looks at what the kernel says is mounted, not at what it remembers. What it must remember (the
server's process) is kept without secrets in a folder below the kubelet's.
"""

import json
import logging
import shutil
import stat
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from forebay_node.fuse.access import Access
from forebay_node.mounts import FSTYPE, MountEntry, bind_read_only, current_mounts, detach, mounted_at, statvfs_apart
from forebay_node.paths import NodePaths
from forebay_node.server_process import ProcessIdentity, ServerSpec
from forebay_node.supervisor import Supervisor
from forebay_protocol.errors import ForebayError, InvalidRequest, WorkerUnavailable
from forebay_protocol.volume import DATASET_UID, WORKER_SERVICE

INDEX_PATIENCE = 40.0
"""Seconds that staging waits for a first index; the kubelet gives a call two minutes, and tries again."""

_STATFS_PATIENCE = 5.0
_END_PATIENCE = 3.0

_log = logging.getLogger(__name__)


class VolumeBusy(ForebayError):
    """Another operation on the same volume is under way."""


class VolumeNotStaged(ForebayError):
    """The volume must be staged first."""


class VolumeNotFound(ForebayError):
    """Nothing of that name is here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeRequest:
    """What the kubelet says of a volume. Its repr shows no secret."""

    volume_id: str
    staging_path: str
    context: Mapping[str, str]
    secrets: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes and files of a volume, and what is wrong with it, if anything."""

    total_bytes: int
    files: int
    problem: str = ""


@dataclass(frozen=True, slots=True)
class StagedVolume:
    """What is remembered of a staged volume."""

    volume_id: str
    staging_path: str
    process: ProcessIdentity

    def to_json(self) -> str:
        """The content of the state file."""
        one = self.process
        return json.dumps(
            {"volumeId": self.volume_id, "stagingPath": self.staging_path, "pid": one.pid, "started": one.started}
        )

    @classmethod
    def from_json(cls, text: str) -> "StagedVolume":
        """Read a state file; KeyError, TypeError or ValueError when it is none."""
        raw = json.loads(text)
        identity = ProcessIdentity(int(raw["pid"]), int(raw["started"]))
        return cls(str(raw["volumeId"]), str(raw["stagingPath"]), identity)


def _is_ours(entry: MountEntry) -> bool:
    return entry.fstype == FSTYPE


def _clear(path: Path) -> None:
    """Take away all mounts at a path."""
    while mounted_at(path, current_mounts()):
        detach(path)


def _make_folder(path: Path) -> None:
    """A folder to mount on; never a symlink's target."""
    try:
        path.mkdir(mode=0o750, parents=True)
    except FileExistsError:
        if not stat.S_ISDIR(path.lstat().st_mode):
            raise InvalidRequest(f"{path} is a symlink or no folder; refusing to mount there") from None


class Volumes:
    """The volumes of this node. Thread-safe; one operation at a time for each volume."""

    def __init__(self, paths: NodePaths, *, node: str = "", index_patience: float = INDEX_PATIENCE) -> None:
        """Nothing is touched yet. ``node`` is this node's name, as the ring names it."""
        self._paths = paths
        self._node = node
        self._patience = index_patience
        self._locks: dict[str, threading.Lock] = defaultdict(threading.Lock)
        self._guard = threading.Lock()
        self._supervisors: dict[str, Supervisor] = {}

    @contextmanager
    def _alone(self, volume_id: str) -> Iterator[None]:
        if not volume_id:
            raise InvalidRequest("the request names no volume")
        with self._guard:
            lock = self._locks[volume_id]
        if not lock.acquire(blocking=False):
            raise VolumeBusy(f"another operation on volume {volume_id} is under way; try again")
        try:
            yield
        finally:
            lock.release()

    def _remembered(self, volume_id: str) -> StagedVolume | None:
        try:
            return StagedVolume.from_json((self._paths.state(volume_id) / "volume.json").read_text())
        except (OSError, KeyError, TypeError, ValueError):
            return None

    def _live_mount(self, volume_id: str, staging: Path) -> MountEntry | None:
        """The mount at the staging path, if it is served."""
        known = self._remembered(volume_id)
        if known is None or known.staging_path != str(staging):
            return None
        supervisor = self._supervisors.get(volume_id)
        # A server that was started by a plugin before this one lives without another to follow it.
        if not (supervisor.is_live if supervisor is not None else known.process.is_alive()):
            return None
        found = mounted_at(staging, current_mounts())
        return found[-1] if found and _is_ours(found[-1]) else None

    def stage(self, request: VolumeRequest) -> None:
        """Mount the volume at its staging path, unless it is there and alive."""
        with self._alone(request.volume_id):
            self._stage(request)

    def _stage(self, request: VolumeRequest) -> None:
        staging = self._paths.checked(request.staging_path)
        if self._live_mount(request.volume_id, staging) is not None:
            return
        access = Access.parse(request.secrets)
        if request.context.get(DATASET_UID) not in {None, access.document.uid}:
            raise InvalidRequest("the access Secret belongs to another Dataset of this name; delete pods and PVC first")
        service = request.context.get(WORKER_SERVICE)
        if not service:
            raise InvalidRequest(f"the volume's attributes lack {WORKER_SERVICE}; the operator writes them")
        self._take_down(request.volume_id, staging)
        _make_folder(staging)
        folder = self._paths.state(request.volume_id)
        (folder / "index").mkdir(parents=True, exist_ok=True, mode=0o700)
        source = f"forebay:{access.document.namespace}/{access.document.name}"
        spec = ServerSpec(
            source=source, node=self._node, worker_service=service, secrets=dict(request.secrets),
            index_folder=folder / "index", patience=self._patience,
        )  # fmt: skip

        def remember(process: ProcessIdentity) -> None:
            state = StagedVolume(request.volume_id, str(staging), process)
            (folder / "volume.new").write_text(state.to_json())
            (folder / "volume.new").replace(folder / "volume.json")

        self._supervisors[request.volume_id] = Supervisor(spec, staging, remember)
        _log.info("staged %s", request.volume_id)

    def _take_down(self, volume_id: str, staging: Path) -> None:
        _clear(staging)
        known = self._remembered(volume_id)
        if known is not None:
            _clear(Path(known.staging_path))
        supervisor = self._supervisors.pop(volume_id, None)
        if supervisor is not None:
            supervisor.stop(_END_PATIENCE)
        elif known is not None:
            known.process.end(_END_PATIENCE)

    def unstage(self, volume_id: str, staging_path: str) -> None:
        """Unmount the staging path, end the server and forget the volume."""
        with self._alone(volume_id):
            staging = self._paths.checked(staging_path)
            self._unstage(volume_id, staging)

    def unstage_unused(self, volume_id: str, staging_path: str) -> None:
        """The same, and remove the folder, unless the volume is shown anywhere else."""
        with self._alone(volume_id):
            staging = self._paths.checked(staging_path)
            mounts = current_mounts()
            devices = {entry.device for entry in mounted_at(staging, mounts)}
            if any(entry.device in devices and entry.target != str(staging) for entry in mounts):
                return
            self._unstage(volume_id, staging)
            staging.rmdir()

    def _unstage(self, volume_id: str, staging: Path) -> None:
        self._take_down(volume_id, staging)
        shutil.rmtree(self._paths.state(volume_id), ignore_errors=True)
        _log.info("unstaged %s", volume_id)

    def publish(self, request: VolumeRequest, target_path: str) -> None:
        """Show the volume at a pod's path, read-only.

        Where the staged mount died (with an earlier plugin pod) and the request brings the secrets, it is
        staged anew first: the kubelet itself would not.
        """
        with self._alone(request.volume_id):
            target = self._paths.checked(target_path)
            staging = self._paths.checked(request.staging_path)
            staged = self._live_mount(request.volume_id, staging)
            if staged is None and request.secrets:
                self._stage(request)
                staged = self._live_mount(request.volume_id, staging)
            if staged is None:
                raise VolumeNotStaged(f"volume {request.volume_id} is not staged; delete the pods here that use it")
            found = mounted_at(target, current_mounts())
            if len(found) == 1 and found[0].device == staged.device:
                return
            _clear(target)
            _make_folder(target)
            bind_read_only(staging, target)

    @contextmanager
    def at(self, volume_id: str, target_path: str) -> Iterator[Path]:
        """A volume alone with its checked target, for what is mounted there by others."""
        with self._alone(volume_id):
            yield self._paths.checked(target_path)

    def unpublish(self, volume_id: str, target_path: str) -> None:
        """Take the volume away from a pod's path and remove the folder."""
        with self._alone(volume_id):
            target = self._paths.checked(target_path)
            _clear(target)
            try:
                if stat.S_ISLNK(target.lstat().st_mode):
                    raise InvalidRequest(f"{target} is a symlink; refusing to touch it")
                target.rmdir()
            except FileNotFoundError:
                return

    def usage(self, volume_id: str, volume_path: str) -> Usage:
        """How large the volume is; never waits long for a mount that does not answer."""
        if not volume_id:
            raise InvalidRequest("the request names no volume")
        try:
            path = self._paths.checked(volume_path)
        except InvalidRequest as error:
            if not volume_path:
                raise
            raise VolumeNotFound(error.message) from error
        found = mounted_at(path, current_mounts())
        if not found:
            raise VolumeNotFound(f"no volume of this driver is mounted at {path}")
        supervisor = self._supervisors.get(volume_id)
        if supervisor is not None and supervisor.problem:
            return Usage(0, 0, supervisor.problem)
        try:
            return Usage(*statvfs_apart(path, _STATFS_PATIENCE))
        except TimeoutError as error:
            raise WorkerUnavailable(f"the mount at {path} does not answer") from error
        except OSError as error:
            return Usage(0, 0, f"the mount is dead ({error.strerror}); delete the pods on this node that use it")

    def recover(self) -> None:
        """After a restart: take away the mounts whose server is gone, also from pods, and forget them."""
        live: set[str] = set()
        for folder in sorted(self._paths.volumes.glob("*")):
            try:
                known = StagedVolume.from_json((folder / "volume.json").read_text())
            except (OSError, KeyError, TypeError, ValueError):
                known = None
            mount = known and self._live_mount(known.volume_id, Path(known.staging_path))
            if mount:
                live.add(mount.device)
                continue
            if known is not None:
                known.process.end(_END_PATIENCE)
            shutil.rmtree(folder, ignore_errors=True)
        for entry in current_mounts():
            if _is_ours(entry) and entry.device not in live and self._paths.kubelet in Path(entry.target).parents:
                _log.warning("taking away the mount at %s, which nobody serves", entry.target)
                detach(Path(entry.target))
