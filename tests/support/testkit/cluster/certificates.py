"""The cluster's certificates and kubeconfigs, made by openssl, elliptic keys for speed."""

import base64
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from testkit.commands import run
from testkit.settings import Settings

_DAYS = "3650"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """Whom a certificate names."""

    file: str
    common_name: str
    organization: str = ""
    alternative_names: Sequence[str] = ()
    authority: str = "ca"


class Certificates:
    """A folder of keys and certificates; what is there and whole is used again."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.folder = settings.state_dir / "certificates"

    def path(self, name: str) -> str:
        """A file of the folder, as an argument."""
        return str(self.folder / name)

    def ensure(self) -> None:
        """Make the authorities and everything that the control plane needs."""
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for authority in ("ca", "front-proxy-ca"):
            self._authority(authority)
        self._key("service-account.key")
        s = self._settings
        server_names = [f"IP:{address}" for address in (s.bridge_address, s.api_service_address, "127.0.0.1")]
        dns = (
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
            "localhost",
        )
        for subject in (
            Subject(
                file="kube-apiserver",
                common_name="kube-apiserver",
                alternative_names=[*server_names, *(f"DNS:{name}" for name in dns)],
            ),
            Subject(file="etcd", common_name="etcd", alternative_names=[f"IP:{s.bridge_address}"]),
            Subject(
                file="apiserver-kubelet-client", common_name="kube-apiserver-kubelet", organization="system:masters"
            ),
            Subject(file="front-proxy-client", common_name="front-proxy-client", authority="front-proxy-ca"),
            Subject(file="admin", common_name="forebay-admin", organization="system:masters"),
            Subject(file="controller-manager", common_name="system:kube-controller-manager"),
            Subject(file="scheduler", common_name="system:kube-scheduler"),
            Subject(file="proxy", common_name="system:kube-proxy"),
        ):
            self.issue(subject)
        for name, target in (
            ("admin", s.kubeconfig),
            ("controller-manager", self.folder / "controller-manager.kubeconfig"),
            ("scheduler", self.folder / "scheduler.kubeconfig"),
            ("proxy", self.folder / "proxy.kubeconfig"),
        ):
            self.kubeconfig(name, target)

    def node(self, name: str) -> Path:
        """The kubeconfig of a node's kubelet."""
        self.issue(Subject(file=name, common_name=f"system:node:{name}", organization="system:nodes"))
        return self.kubeconfig(name, self.folder / f"{name}.kubeconfig")

    def issue(self, subject: Subject) -> None:
        """Make a key and a certificate signed by an authority."""
        certificate = self.folder / f"{subject.file}.crt"
        if certificate.exists():
            return
        self._key(f"{subject.file}.key")
        request = self.folder / f"{subject.file}.csr"
        name = (f"/O={subject.organization}" if subject.organization else "") + f"/CN={subject.common_name}"
        run(["openssl", "req", "-new", "-key", self.path(f"{subject.file}.key"), "-subj", name, "-out", str(request)])
        extensions = self.folder / f"{subject.file}.ext"
        lines = ["basicConstraints=CA:FALSE", "keyUsage=digitalSignature", "extendedKeyUsage=serverAuth,clientAuth"]
        if subject.alternative_names:
            lines.append(f"subjectAltName={','.join(subject.alternative_names)}")
        extensions.write_text("\n".join(lines) + "\n")
        fresh = self.folder / f"{subject.file}.crt.new"
        signer = ["-CA", self.path(f"{subject.authority}.crt"), "-CAkey", self.path(f"{subject.authority}.key")]
        options = ["-set_serial", f"0x{_serial()}", "-days", _DAYS, "-sha256", "-extfile", str(extensions)]
        run(["openssl", "x509", "-req", "-in", str(request), *signer, *options, "-out", str(fresh)])
        fresh.rename(certificate)
        request.unlink()
        extensions.unlink()

    def kubeconfig(self, name: str, target: Path) -> Path:
        """Write a kubeconfig with the certificate embedded, readable by root only."""
        if target.exists():
            return target
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": self._settings.name,
            "clusters": [
                {
                    "name": self._settings.name,
                    "cluster": {"server": self._settings.api_url, "certificate-authority-data": self._embed("ca.crt")},
                }
            ],
            "users": [
                {
                    "name": name,
                    "user": {
                        "client-certificate-data": self._embed(f"{name}.crt"),
                        "client-key-data": self._embed(f"{name}.key"),
                    },
                }
            ],
            "contexts": [{"name": self._settings.name, "context": {"cluster": self._settings.name, "user": name}}],
        }
        fresh = target.with_name(f"{target.name}.new")
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(document, indent=1))
        fresh.rename(target)
        return target

    def _authority(self, name: str) -> None:
        """Make a self-signed authority."""
        certificate = self.folder / f"{name}.crt"
        if certificate.exists():
            return
        self._key(f"{name}.key")
        fresh = self.folder / f"{name}.crt.new"
        subject = f"/CN={self._settings.name}-{name}"
        options = ["-key", self.path(f"{name}.key"), "-subj", subject, "-days", _DAYS, "-sha256"]
        run(["openssl", "req", "-x509", "-new", *options, "-out", str(fresh)])
        fresh.rename(certificate)

    def _key(self, name: str) -> None:
        """Make a private key."""
        final = self.folder / name
        if final.exists():
            return
        fresh = self.folder / f"{name}.new"
        run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(fresh)])
        fresh.chmod(0o600)
        fresh.rename(final)

    def _embed(self, name: str) -> str:
        """A file of the folder as kubeconfigs carry it."""
        return base64.b64encode((self.folder / name).read_bytes()).decode("ascii")


def _serial() -> str:
    """A random serial number."""
    return f"4{secrets.token_hex(8)}"
