"""A base image with Python, made from the distribution's packages: where no image registry can be reached."""

import hashlib
import os
import platform
import re
from collections.abc import Iterable
from pathlib import Path

from testkit import packages
from testkit.artifacts import complete_folder
from testkit.commands import run
from testkit.progress import Progress

INCLUDED = ("ca-certificates", "python3", "python3-pip", "python3-venv")
SOURCES = (
    Path("/etc/apt/sources.list.d/debian.sources"),
    Path("/etc/apt/sources.list.d/ubuntu.sources"),
    Path("/etc/apt/sources.list"),
)
_FALLBACK = "bookworm"


def base_archive(cache: Path, progress: Progress) -> Path:
    """The file system as a tar, from the cache or made now (about 20 s)."""
    release = platform.freedesktop_os_release()
    suite = release.get("VERSION_CODENAME", _FALLBACK) if release.get("ID") in {"debian", "ubuntu"} else _FALLBACK
    key = hashlib.sha256("\n".join((suite, platform.machine(), *INCLUDED)).encode()).hexdigest()[:12]

    def fill(target: Path) -> None:
        packages.ensure_commands(packages.IMAGE_COMMANDS, progress)
        with progress.step(f"base image from {suite} packages"):
            _bootstrap(suite, target)

    return complete_folder(cache / f"base-{suite}-{key}", ("rootfs.tar",), fill, progress) / "rootfs.tar"


def mirror(sources: Iterable[str], suite: str) -> str | None:
    """The address that the machine itself gets the suite from, in apt's old or new format."""
    for text in sources:
        for stanza in re.split(r"\n\s*\n", text):
            fields = dict(re.findall(r"^(\w+(?:-\w+)*):[ \t]*(.*)$", stanza, re.MULTILINE))
            if suite in fields.get("Suites", "").split():
                return str(fields["URIs"].split()[0])
        for line in text.splitlines():
            old = re.match(rf"deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+{re.escape(suite)}\s", line)
            if old:
                return old.group(1)
    return None


def _bootstrap(suite: str, target: Path) -> None:
    """Run mmdebstrap in a mount namespace of its own: an interruption leaves no mounts."""
    work = target / "work"
    work.mkdir(exist_ok=True)
    argv = ["unshare", "--mount", "--propagation", "private", "--", "mmdebstrap", "--mode=root", "--variant=minbase"]
    argv += [f"--include={','.join(INCLUDED)}", "--quiet", suite, str(target / "rootfs.new.tar")]
    own = mirror((file.read_text() for file in SOURCES if file.exists()), suite)
    # The time of the files would be the build's: with a fixed one, equal packages give equal bytes.
    environment = {**os.environ, "TMPDIR": str(work), "SOURCE_DATE_EPOCH": "1700000000"}
    run([*argv, *([own] if own else [])], timeout=900, environment=environment)
    run(["rm", "-rf", "--one-file-system", str(work)])
    (target / "rootfs.new.tar").rename(target / "rootfs.tar")
