"""The worker's certificate, taken up anew whenever its files change."""

import ssl
import threading
from pathlib import Path

import structlog

from forebay.tls import ClientTls, server_context
from forebay_protocol.dataset import AUTHORITY_FILE
from forebay_protocol.errors import InvalidRequest

CERTIFICATE_FILE = "tls.crt"
PRIVATE_KEY_FILE = "tls.key"

_log = structlog.get_logger()


class WorkerTls:
    """One context for both ports; connections that begin after a change are shown the new certificate."""

    def __init__(self, folder: Path, poll_seconds: float) -> None:
        """Read the folder; OSError or ssl.SSLError when it is not complete, for there is nothing to serve without."""
        self._folder = folder
        self._poll_seconds = poll_seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tls", daemon=True)
        self._clients: dict[str, ClientTls] = {}
        self.context = server_context()
        self._seen = self._texts()
        self._load(self.context)

    def _texts(self) -> tuple[bytes, ...]:
        names = (CERTIFICATE_FILE, PRIVATE_KEY_FILE, AUTHORITY_FILE)
        return tuple((self._folder / name).read_bytes() for name in names)

    def _load(self, context: ssl.SSLContext) -> None:
        context.load_cert_chain(self._folder / CERTIFICATE_FILE, self._folder / PRIVATE_KEY_FILE)

    def start(self) -> None:
        """Look for changes in the background."""
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(self._poll_seconds):
            self.look()

    def look(self) -> None:
        """Take changed files up; what cannot be read leaves the last good certificate in force."""
        try:
            found = self._texts()
            if found == self._seen:
                return
            # Tried on another context first: a certificate without its key must not replace a pair that works.
            self._load(server_context())
            self._load(self.context)
        except OSError as error:
            _log.warning("the certificate cannot be taken up", error=str(error))
            return
        self._seen = found
        self._clients = {}
        _log.info("certificate changed")

    def client(self, server_name: str) -> ClientTls:
        """How to verify other workers of the same Runtime."""
        known = self._clients.get(server_name)
        if known is None:
            try:
                known = ClientTls.of(self._seen[2].decode(), server_name)
            except UnicodeDecodeError as error:
                raise InvalidRequest(f"{AUTHORITY_FILE} is not text") from error
            self._clients = {server_name: known}
        return known

    def stop(self) -> None:
        """Stop looking."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)
