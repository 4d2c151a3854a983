"""A file system of its own for tests that fill it, break it or make it read-only."""

import subprocess
from pathlib import Path


class Disk:
    """An ext4 file system on a loop device over a file."""

    def __init__(self, folder: Path, mebibytes: int) -> None:
        """Make it; nothing is mounted yet."""
        self.image = folder / "image"
        self.path = folder / "disk"
        self.path.mkdir()
        with self.image.open("wb") as file:
            file.truncate(mebibytes << 20)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", str(self.image)], check=True)

    def mount(self, *options: str) -> None:
        """Mount it, or mount it again with other options."""
        wanted = ",".join(options or ("loop",))
        subprocess.run(["mount", "-o", wanted, str(self.image), str(self.path)], check=True)

    def abort(self) -> None:
        """What ext4 does to itself after an error: it is read-only until it is mounted anew."""
        subprocess.run(["sync", "-f", str(self.path)], check=True)
        subprocess.run(["mount", "-o", "remount,abort", str(self.path)], check=True)

    def read_only(self, *, on: bool) -> None:
        """Only while nobody has a file open for writing."""
        subprocess.run(["mount", "-o", f"remount,{'ro' if on else 'rw'}", str(self.path)], check=True)

    def unmount(self) -> None:
        """Also while files on it are open."""
        subprocess.run(["umount", "-l", str(self.path)], check=False, capture_output=True)
