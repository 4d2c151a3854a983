"""Build the one image of Forebay, named by its content, as an OCI archive; nothing is built when nothing changed."""

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from testkit import packages, pip_settings, rootfs
from testkit.artifacts import locked
from testkit.commands import run
from testkit.progress import Progress, silent
from testkit.settings import cache_folder

REPOSITORY = "forebay.local/forebay"
DOCKERFILE = Path("manifests/images/Dockerfile")
SOURCES = (
    "requirements/runtime.txt",
    "protocol/forebay_protocol",
    "client/forebay",
    "node/forebay_node",
    "cache_worker/forebay_worker",
    "operator/forebay_operator",
)
KEPT_ARCHIVES = 4
_TAG_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Image:
    """A built image."""

    name: str
    """With its tag, as pods name it."""
    archive: Path
    """As Cluster.load_image takes it."""


def project_root() -> Path:
    """The root of the clone that this file lies in."""
    return Path(__file__).resolve().parents[3]


def build(progress: Progress, root: Path | None = None) -> Image:
    """Build the image from the working tree, unless one of the same content is in the cache."""
    root = root or project_root()
    folder = cache_folder() / "images"
    with locked(folder / ".lock"):
        base = rootfs.base_archive(cache_folder(), progress)
        tag = content_tag(root, base.parent.name)
        image = Image(f"{REPOSITORY}:{tag}", folder / f"forebay-{tag}.tar")
        if image.archive.exists():
            # Its time tells which archives are in use.
            image.archive.touch()
            return image
        packages.ensure_commands(packages.IMAGE_COMMANDS, progress)
        builder = Buildah(cache_folder() / "buildah")
        with progress.step(f"image {image.name}"):
            builder.ensure_base(f"forebay.local/{base.parent.name}:1", base)
            builder.build(root, f"forebay.local/{base.parent.name}:1", image)
        for old in sorted(folder.glob("forebay-*.tar"), key=lambda file: file.stat().st_mtime)[:-KEPT_ARCHIVES]:
            old.unlink()
            builder.remove(f"{REPOSITORY}:{old.stem.removeprefix('forebay-')}")
        return image


def content_tag(root: Path, base: str) -> str:
    """A hash over everything that goes into the image."""
    digest = hashlib.sha256(base.encode())
    for file in _source_files(root):
        data = file.read_bytes()
        mode = file.stat().st_mode & 0o111
        digest.update(f"{file.relative_to(root)}\0{mode}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()[:_TAG_LENGTH]


def _source_files(root: Path) -> Iterator[Path]:
    """The files that the Dockerfile copies, and itself, in a stable order."""
    yield root / DOCKERFILE
    for source in SOURCES:
        path = root / source
        if path.is_file():
            yield path
        else:
            yield from sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)


def publish(archive: Path, name: str) -> None:
    """Push an OCI archive to a registry, with the credentials that the user's container tools keep."""
    packages.ensure_commands(packages.IMAGE_COMMANDS, silent())
    Buildah(cache_folder() / "buildah").publish(archive, name)


class Buildah:
    """Buildah with a store of its own in the cache: the machine's images stay out of it, and `down` finds no mounts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def ensure_base(self, name: str, archive: Path) -> None:
        """Import a file system as an image, once."""
        if self._run(["inspect", "--type=image", name], check=False).returncode == 0:
            return
        with tempfile.TemporaryDirectory(dir=self._folder) as work:
            Path(work, "Dockerfile").write_text("FROM scratch\nADD rootfs.tar /\n")
            os.link(archive, Path(work, "rootfs.tar"))
            self._run(["build", "--tag", name, work])

    def build(self, root: Path, base: str, image: Image) -> None:
        """Build with layers kept, and write the archive under its final name only when it is whole."""
        fresh = image.archive.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder) as work:
            arguments = [
                "--layers",
                "--format=oci",
                "--pull-never",
                f"--build-arg=BASE_IMAGE={base}",
                f"--tag={image.name}",
            ]
            secrets = pip_settings.secrets(Path(work))
            self._run(["build", *arguments, *secrets, f"--file={root / DOCKERFILE}", str(root)])
        self._run(
            [
                "push",
                "--quiet",
                "--compression-format=zstd",
                "--compression-level=1",
                image.name,
                f"oci-archive:{fresh}:{image.name}",
            ]
        )
        fresh.rename(image.archive)

    def publish(self, archive: Path, name: str) -> None:
        """Push an archive's image to a registry."""
        identity = self._run(["pull", "--quiet", f"oci-archive:{archive}"]).stdout.strip()
        self._run(["push", "--quiet", identity, f"docker://{name}"])

    def remove(self, name: str) -> None:
        """Forget an image; its layers stay where others use them."""
        self._run(["rmi", name], check=False)

    def _run(self, words: Sequence[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run buildah in a mount namespace of its own, without needing namespaces or cgroups for its containers."""
        self._folder.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "BUILDAH_ISOLATION": "chroot", "STORAGE_DRIVER": "overlay"}
        places = ["--root", str(self._folder / "storage"), "--runroot", str(self._folder / "run")]
        argv = ["unshare", "--mount", "--propagation", "private", "--", "buildah", *places, *words]
        return run(argv, timeout=1200, check=check, environment=environment)
