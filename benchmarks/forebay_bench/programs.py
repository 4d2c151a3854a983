"""The peers' programs: nginx from the distribution, only unpacked, and rclone built from its Go module."""

from pathlib import Path

from testkit import packages
from testkit.artifacts import complete_folder
from testkit.golang import GoBuilder
from testkit.progress import Progress
from testkit.settings import cache_folder

RCLONE_VERSION = "1.76.0"


def nginx(progress: Progress) -> Path:
    """The distribution's nginx; it is not installed, so that no service of it starts."""

    def unpack(target: Path) -> None:
        packages.unpack(("nginx",), target, progress)

    folder = cache_folder() / "benchmarks"
    return complete_folder(folder / "nginx", ("usr/sbin/nginx",), unpack, progress) / "usr/sbin/nginx"


def rclone(progress: Progress) -> Path:
    """Rclone at one version: distributions carry ones that are years old."""
    folder = cache_folder() / "benchmarks"

    def build(target: Path) -> None:
        # A cache of its own: whoever fetches the cluster's programs meanwhile discards the other one.
        GoBuilder(folder, progress).install("rclone", "github.com/rclone/rclone", f"v{RCLONE_VERSION}", target)
        GoBuilder.discard_caches(folder, progress)

    return complete_folder(folder / f"rclone-{RCLONE_VERSION}", ("rclone",), build, progress) / "rclone"
