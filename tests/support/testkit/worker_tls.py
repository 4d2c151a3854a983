"""The certificate folder of workers that speak TLS, made as the operator makes it."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from forebay.tls import ClientTls
from forebay_operator.model import certificates
from forebay_protocol.dataset import DatasetDocument
from forebay_protocol.volume import worker_host


@dataclass(slots=True)
class TlsFolder:
    """An authority, and a folder with the workers' certificate."""

    folder: Path
    document: DatasetDocument
    authority: certificates.Pair = field(init=False)

    def __post_init__(self) -> None:
        """Make both."""
        self.authority = certificates.make_authority(self.host, datetime.now(UTC))
        self.folder.mkdir()
        self.write()

    @property
    def host(self) -> str:
        """The name that the certificate is for."""
        return worker_host(self.document.name, self.document.namespace)

    @property
    def ca(self) -> Path:
        """The authority's certificate."""
        return self.folder / "ca.crt"

    def write(
        self,
        *,
        host: str = "",
        life: timedelta = certificates.LIFE,
        age: timedelta = timedelta(0),
        authority: certificates.Pair | None = None,
    ) -> None:
        """Write a new certificate: for another name, of another life or age, or signed by another authority."""
        made = datetime.now(UTC) - age
        pair = certificates.issue(authority or self.authority, host or self.host, made, life)
        for name, text in (
            ("tls.key", pair.key), ("tls.crt", pair.certificate), ("ca.crt", self.authority.certificate)
        ):  # fmt: skip
            fresh = self.folder / f".{name}"
            fresh.write_text(text)
            fresh.replace(self.folder / name)

    def client(self) -> ClientTls:
        """How clients verify these workers."""
        return ClientTls.of(self.authority.certificate, self.host)
