"""Every program of the cluster and the store: from the cache, else the official release, else built by Go."""

import platform
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

from testkit import packages
from testkit.artifacts import complete_folder
from testkit.golang import GoBuilder
from testkit.progress import Progress
from testkit.release import NotReachable, download, published_sha256
from testkit.settings import (
    COREDNS_VERSION,
    CSI_SANITY_VERSION,
    KUBERNETES_VERSION,
    MINIO_VERSION,
    VERSITYGW_VERSION,
    cache_folder,
)

KUBERNETES_COMMANDS = (
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kubectl",
)
KUBERNETES_RELEASE = "https://dl.k8s.io/v{version}/bin/linux/{arch}/{name}"
COREDNS_RELEASE = "https://github.com/coredns/coredns/releases/download/v{version}/coredns_{version}_linux_{arch}.tgz"
UNPACKED = ("etcd-server", "containerd", "runc", "containernetworking-plugins", "busybox-static")
PROGRAMS = ("etcd", "containerd", "containerd-shim-runc-v2", "ctr", "runc", "busybox")
SYSTEM_FILES = (*(f"programs/{name}" for name in PROGRAMS), "usr/lib/cni/ptp")
"""Their packages would start services on the host, or clash with a Docker that is installed there."""


@dataclass(frozen=True, slots=True)
class Binaries:
    """Where the programs are."""

    kubernetes: Path
    system: Path
    coredns: Path
    minio: Path
    versitygw: Path
    nginx: Path
    csi_sanity: Path

    @property
    def programs(self) -> Path:
        """The folder of the system's programs, for a PATH."""
        return self.system / "programs"

    @property
    def kubectl(self) -> Path:
        """The command line client of the cluster's version."""
        return self.kubernetes / "kubectl"

    @property
    def etcd(self) -> Path:
        """The API server's database."""
        return self.programs / "etcd"

    @property
    def containerd(self) -> Path:
        """The container runtime; its shim lies beside it."""
        return self.programs / "containerd"

    @property
    def ctr(self) -> Path:
        """The runtime's own client."""
        return self.programs / "ctr"

    @property
    def runc(self) -> Path:
        """The low-level runtime."""
        return self.programs / "runc"

    @property
    def cni(self) -> Path:
        """The folder of the network plugins."""
        return self.system / "usr/lib/cni"

    @property
    def busybox(self) -> Path:
        """A static program for the pause image."""
        return self.programs / "busybox"


def architecture() -> str:
    """This machine's name in the releases."""
    names = {"x86_64": "amd64", "aarch64": "arm64"}
    machine = platform.machine()
    if machine not in names:
        raise RuntimeError(f"the test cluster runs on {' and '.join(names)}, not on {machine}")
    return names[machine]


def fetch(progress: Progress, cache: Path | None = None) -> Binaries:
    """Get everything; takes no noticeable time when the cache holds it."""
    cache = cache or cache_folder()
    source = Sources(cache, progress)
    found = Binaries(
        kubernetes=complete_folder(
            cache / f"kubernetes-{KUBERNETES_VERSION}", KUBERNETES_COMMANDS, source.kubernetes, progress
        ),
        system=complete_folder(
            cache / f"system-{_distribution()}-{architecture()}", SYSTEM_FILES, source.system, progress
        ),
        coredns=complete_folder(cache / f"coredns-{COREDNS_VERSION}", ("coredns",), source.coredns, progress)
        / "coredns",
        minio=complete_folder(cache / f"minio-{MINIO_VERSION}", ("minio",), source.minio, progress) / "minio",
        versitygw=complete_folder(cache / f"versitygw-{VERSITYGW_VERSION}", ("versitygw",), source.versitygw, progress)
        / "versitygw",
        nginx=complete_folder(
            cache / f"nginx-{_distribution()}-{architecture()}", ("usr/sbin/nginx",), source.nginx, progress
        )
        / "usr/sbin/nginx",
        csi_sanity=complete_folder(
            cache / f"csi-sanity-{CSI_SANITY_VERSION}", ("csi-sanity",), source.csi_sanity, progress
        )
        / "csi-sanity",
    )
    GoBuilder.discard_caches(cache, progress)
    return found


def _distribution() -> str:
    """The distribution and its version, since unpacked packages link to its libraries."""
    release = platform.freedesktop_os_release()
    return f"{release.get('ID', 'linux')}{release.get('VERSION_ID', '')}"


class Sources:
    """How each folder of the cache is filled."""

    def __init__(self, cache: Path, progress: Progress) -> None:
        self._cache = cache
        self._progress = progress

    def kubernetes(self, target: Path) -> None:
        """The official release where it can be reached, else a build from the modules (about five minutes)."""
        try:
            for name in KUBERNETES_COMMANDS:
                if not (target / name).exists():
                    url = KUBERNETES_RELEASE.format(version=KUBERNETES_VERSION, arch=architecture(), name=name)
                    download(url, target / name, published_sha256(f"{url}.sha256"), self._progress)
                    (target / name).chmod(0o755)
        except NotReachable as why:
            self._progress.say(f"Kubernetes release: {why}; building it from its modules (about 5 minutes on 2 cores)")
            module = Path(__file__).parent / "go" / "kubernetes"
            wanted = {name: f"k8s.io/kubernetes/cmd/{name}" for name in KUBERNETES_COMMANDS}
            GoBuilder(self._cache, self._progress).module(
                module, wanted, target, kubernetes_ldflags(KUBERNETES_VERSION)
            )

    def system(self, target: Path) -> None:
        """The distribution's etcd, containerd, runc and network plugins; its releases put them in different folders."""
        packages.unpack(UNPACKED, target, self._progress)
        (target / "programs").mkdir(exist_ok=True)
        for name in PROGRAMS:
            found = next((file for file in sorted(target.glob(f"**/*bin/{name}")) if file.is_file()), None)
            link = target / "programs" / name
            link.unlink(missing_ok=True)
            if found is not None:
                link.symlink_to(Path("..") / found.relative_to(target))

    def coredns(self, target: Path) -> None:
        """The official release, else a build."""
        url = COREDNS_RELEASE.format(version=COREDNS_VERSION, arch=architecture())
        archive = target / "coredns.tgz"
        try:
            download(url, archive, published_sha256(f"{url}.sha256"), self._progress)
        except NotReachable as why:
            self._progress.say(f"CoreDNS release: {why}; building it")
            builder = GoBuilder(self._cache, self._progress)
            builder.install("coredns", "github.com/coredns/coredns", f"v{COREDNS_VERSION}", target)
            return
        with tarfile.open(archive) as tar, (target / "coredns.new").open("wb") as file:
            member = tar.extractfile("coredns")
            if member is None:
                raise RuntimeError(f"{url} holds no coredns")
            shutil.copyfileobj(member, file)
        (target / "coredns.new").chmod(0o755)
        (target / "coredns.new").rename(target / "coredns")
        archive.unlink()

    def minio(self, target: Path) -> None:
        """MinIO publishes no binaries of its newest sources any more: always a build."""
        builder = GoBuilder(self._cache, self._progress)
        builder.install("minio", "github.com/minio/minio", f"v{MINIO_VERSION}", target)

    def versitygw(self, target: Path) -> None:
        """A second implementation of S3, over a folder: always a build."""
        # A cache of its own: whoever fetches other programs meanwhile discards the common one.
        cache = target / "go-cache"
        builder = GoBuilder(cache, self._progress)
        builder.install("versitygw", "github.com/versity/versitygw/cmd/versitygw", f"v{VERSITYGW_VERSION}", target)
        GoBuilder.discard_caches(cache, self._progress)

    def csi_sanity(self, target: Path) -> None:
        """The conformance tests of the Container Storage Interface: always a build."""
        cache = target / "go-cache"
        builder = GoBuilder(cache, self._progress)
        package = "github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity"
        builder.install("csi-sanity", package, f"v{CSI_SANITY_VERSION}", target)
        GoBuilder.discard_caches(cache, self._progress)

    def nginx(self, target: Path) -> None:
        """The distribution's web server, only unpacked: installed, it would start."""
        packages.unpack(("nginx",), target, self._progress)


def kubernetes_ldflags(version: str) -> str:
    """The version that a build of our own must tell the API server's clients, as the official build does."""
    major, minor, _ = version.split(".")
    values = {"gitVersion": f"v{version}", "gitMajor": major, "gitMinor": minor, "gitTreeState": "clean"}
    flags = [
        f"-X {package}.{key}={value}"
        for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
        for key, value in values.items()
    ]
    return " ".join(["-s -w", *flags])
