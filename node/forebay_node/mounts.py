"""The system calls around mounts, and what the kernel says is mounted. No shell, no mount(8)."""

import ctypes
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

FSTYPE = "fuse.forebay"

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 2, 4, 8, 32, 4096
_UMOUNT_NOFOLLOW = 8
_MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


class MountEntry(NamedTuple):
    """One line of mountinfo: where, of which type and source, on which device, and with which options."""

    target: str
    fstype: str
    source: str
    device: str
    options: str


def _raise(path: Path) -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), str(path))


def _mount(source: str, target: Path, fstype: str, flags: int, data: str) -> None:
    arguments = (os.fsencode(source), os.fsencode(target), fstype.encode(), ctypes.c_ulong(flags), data.encode())
    if _libc.mount(*arguments) != 0:
        _raise(target)


def mount_fuse(device: int, source: str, target: Path) -> None:
    """Mount the FUSE connection of this descriptor, read-only, open to all users by the files' modes."""
    data = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
    _mount(source, target, FSTYPE, MS_RDONLY | MS_NOSUID | MS_NODEV, data)


def bind_read_only(source: Path, target: Path) -> None:
    """Show ``source`` at ``target`` too."""
    _bind(source, target, MS_RDONLY | MS_NOSUID | MS_NODEV)


def bind_data(source: Path, target: Path) -> None:
    """Show ``source`` at ``target`` too, to be written to; nothing in it can be run."""
    _bind(source, target, MS_NOSUID | MS_NODEV | MS_NOEXEC)


def _bind(source: Path, target: Path, flags: int) -> None:
    _mount(str(source), target, "", MS_BIND, "")
    # A bind mount takes its flags only in a second call.
    try:
        _mount("", target, "", MS_BIND | MS_REMOUNT | flags, "")
    except OSError:
        detach(target)
        raise


def detach(target: Path) -> None:
    """Take the mount away now, and its resources when its last user is gone; never follows a symlink."""
    if _libc.umount2(os.fsencode(target), _MNT_DETACH | _UMOUNT_NOFOLLOW) != 0:
        _raise(target)


def _unescape(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def parse_mountinfo(text: str) -> list[MountEntry]:
    """All mounts, in the order in which they are stacked."""
    entries = []
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if len(fields) >= 6 and len(kind) >= 2:
            entries.append(MountEntry(_unescape(fields[4]), kind[0], _unescape(kind[1]), fields[2], fields[5]))
    return entries


def current_mounts() -> list[MountEntry]:
    """All mounts of this process's namespace. Unlike stat, asking never touches a file system."""
    return parse_mountinfo(Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape"))


def mounted_at(target: Path, mounts: list[MountEntry]) -> list[MountEntry]:
    """What is mounted exactly there, the topmost last."""
    wanted = os.path.normpath(target)
    return [entry for entry in mounts if entry.target == wanted]


_STATVFS = """
import os, sys
try:
    seen = os.statvfs(sys.argv[1])
except OSError as error:
    sys.exit(error.errno)
print(seen.f_blocks * seen.f_frsize, seen.f_files)
"""


def statvfs_apart(path: Path, patience: float) -> tuple[int, int]:
    """Bytes and files of the file system at ``path``, asked by another process; TimeoutError when it does not answer.

    Whoever holds a connection to FUSE must not ask the mount itself: a thread that waits for a server that is gone
    cannot be killed, its process then never ends, and so the connection never does.
    """
    asked = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _STATVFS, str(path)], stdout=subprocess.PIPE, text=True
    )  # fmt: skip
    try:
        answer, _ = asked.communicate(timeout=patience)
    except subprocess.TimeoutExpired as error:
        asked.kill()
        assert asked.stdout is not None
        asked.stdout.close()
        # Not waited for: it may be in the kernel until the mount answers.
        raise TimeoutError(f"{path} does not answer") from error
    if asked.returncode != 0:
        raise OSError(asked.returncode, os.strerror(asked.returncode), str(path))
    total_bytes, files = answer.split()
    return int(total_bytes), int(files)


def set_readahead(device: str, kilobytes: int) -> bool:
    """Let the kernel read so much ahead on the file system of this ``major:minor``; whether it took that."""
    try:
        Path(f"/sys/class/bdi/{device}/read_ahead_kb").write_text(str(kilobytes))
    except OSError:
        return False
    return True
