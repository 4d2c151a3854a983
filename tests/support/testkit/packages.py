"""System packages by apt-get: installed where a command is missing, only unpacked where services would start."""

import os
import shutil
import subprocess
from pathlib import Path

from testkit.artifacts import locked
from testkit.commands import run
from testkit.progress import Progress
from testkit.settings import cache_folder

COMMANDS = {
    "ip": "iproute2",
    "tc": "iproute2",
    "iptables": "iptables",
    "conntrack": "conntrack",
    "socat": "socat",
    "openssl": "openssl",
    "setpriv": "util-linux",
    "setsid": "util-linux",
    "nsenter": "util-linux",
    "unshare": "util-linux",
    "mount": "mount",
}
"""What the cluster runs from the system, and the package that brings it."""

IMAGE_COMMANDS = {"mmdebstrap": "mmdebstrap", "buildah": "buildah"}
"""What building the image needs besides."""


def missing(commands: dict[str, str]) -> list[str]:
    """The packages whose commands are not there."""
    places = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    return sorted({package for command, package in commands.items() if shutil.which(command, path=places) is None})


def ensure_commands(commands: dict[str, str], progress: Progress) -> None:
    """Install what is missing, without recommended packages."""
    wanted = missing(commands)
    if not wanted:
        return
    install(wanted, progress)
    still = missing(commands)
    if still:
        raise RuntimeError(f"apt-get installed {', '.join(still)} but their commands are not on the PATH")


def install(names: list[str], progress: Progress) -> None:
    """Install packages."""
    _require_apt(names)
    with progress.step(f"system packages: {', '.join(names)}"):
        _apt("update", "-qq")
        _apt("install", "-y", "-qq", "--no-install-recommends", *names)


def unpack(names: tuple[str, ...], target: Path, progress: Progress) -> None:
    """Unpack packages into a folder: no daemon of theirs starts, and none of the host's is replaced."""
    _require_apt(list(names))
    downloads = target / "download"
    shutil.rmtree(downloads, ignore_errors=True)
    downloads.mkdir(parents=True)
    with progress.step(f"packages to unpack: {', '.join(names)}"):
        try:
            _apt("download", *names, folder=downloads)
        except RuntimeError:
            # The lists are missing or older than the mirror.
            _apt("update", "-qq")
            _apt("download", *names, folder=downloads)
        for package in sorted(downloads.glob("*.deb")):
            run(["dpkg-deb", "-x", str(package), str(target)])
    shutil.rmtree(downloads)


def _require_apt(wanted: list[str]) -> None:
    """Say what to install by hand where there is no apt-get."""
    if shutil.which("apt-get") is None:
        raise RuntimeError(
            f"this machine has no apt-get: install these Debian packages' contents by hand: {', '.join(wanted)}"
        )


def _apt(*words: str, folder: Path | None = None) -> None:
    """Run apt-get; wait for another one that holds the lock."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    argv = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "-o", "APT::Sandbox::User=root", *words]
    with locked(cache_folder() / ".apt.lock"):
        done = subprocess.run(
            argv,
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
    if done.returncode != 0:
        raise RuntimeError(f"apt-get {' '.join(words)} failed: {(done.stderr or done.stdout).strip()[-2000:]}")
