"""The workers' control API, asked from threads: ring, index and status."""

import http.client
import json
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from forebay.connection import TokenProvider
from forebay.source.base import Listing
from forebay.tls import ClientTls
from forebay_protocol import control
from forebay_protocol.errors import InvalidRequest, Unauthorized, WorkerUnavailable, from_code
from forebay_protocol.keys import ObjectVersion
from forebay_protocol.ring import Ring

_PIECE = 1024 * 1024


class ControlClient:
    """One worker's control API; a connection for every request."""

    def __init__(
        self,
        address: str,
        port: int,
        token_provider: TokenProvider,
        timeout: float = 5.0,
        tls: ClientTls | None = None,
    ) -> None:
        """Nothing is sent yet; ``timeout`` is in seconds and holds for connecting and each receive."""
        self._address = address
        self._port = port
        self._token_provider = token_provider
        self._timeout = timeout
        self._tls = tls
        self.signing_key = ""
        """The id of the key to sign with, as the last answer said."""

    @property
    def _name(self) -> str:
        return f"worker {self._address}:{self._port}"

    def ring(self) -> Ring:
        """The worker's newest ring document."""
        return Ring.from_json(self._json(control.RING))

    def status(self) -> control.WorkerStatus:
        """What the worker says of itself."""
        return control.WorkerStatus.from_json(self._json(control.STATUS))

    def fetch_index(self, have: int, destination: Path) -> int | None:
        """Write the newest index, packed as it is sent, to ``destination`` and return its generation.

        None, and nothing written, when ``have`` is the newest or the worker has none yet.
        """
        with self._get(f"{control.INDEX}?have={have}") as response:
            if response.status in {304, 404}:
                return None
            self._expect_ok(response)
            generation = response.headers.get(control.GENERATION_HEADER, "")
            if not generation.isdecimal():
                raise InvalidRequest(f"{self._name} sent an index without its generation")
            with destination.open("wb") as file:
                shutil.copyfileobj(response, file, _PIECE)
            return int(generation)

    def report_stale_index(self) -> None:
        """Tell the worker that an object is not as listed, so that it lists again soon."""
        with self._send("POST", control.INDEX) as response:
            if response.status != 202:
                self._expect_ok(response)

    def newest(self, one: ObjectVersion) -> Listing | None:
        """The object as its source has it now, None when it is gone; raises what the worker says that is wrong."""
        with self._send("POST", control.NEWEST, json.dumps(asdict(one)).encode()) as response:
            if response.status == 204:
                return None
            try:
                said = json.loads(response.read(_PIECE))
                if response.status == 200:
                    return Listing(one.key, int(said["size"]), str(said["version"]), int(said["mtimeNs"]))
                raise from_code(int(said["code"]), str(said["message"]))
            except (ValueError, KeyError, TypeError) as error:
                raise WorkerUnavailable(f"{self._name} answered {response.status} without a version") from error

    def sealed_trust(self) -> bytes:
        """The keys in force, sealed with the key that signs our tokens."""
        with self._get(control.TRUST) as response:
            self._expect_ok(response)
            return response.read(_PIECE)

    def _json(self, route: str) -> Any:
        with self._get(route) as response:
            self._expect_ok(response)
            try:
                return json.loads(response.read())
            except ValueError as error:
                raise InvalidRequest(f"{self._name} sent no JSON for {route}") from error

    def _expect_ok(self, response: http.client.HTTPResponse) -> None:
        if response.status == 200:
            return
        if response.status in {401, 403}:
            raise Unauthorized(
                f"{self._name} does not accept this dataset's key: it was rotated while nobody here could hear of it; "
                "delete the pods on this node that use the volume, so that it is staged with the new one"
            )
        raise WorkerUnavailable(f"{self._name} answered {response.status} {response.reason}")

    def _get(self, route: str) -> AbstractContextManager[http.client.HTTPResponse]:
        return self._send("GET", route)

    @contextmanager
    def _send(self, method: str, route: str, body: bytes | None = None) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(self._address, self._port, timeout=self._timeout)
        try:
            connection.connect()
            if self._tls is not None:
                connection.sock = self._tls.wrap(connection.sock, self._name)
            connection.request(method, route, body, headers={"Authorization": f"Bearer {self._token_provider()}"})
            with connection.getresponse() as response:
                self.signing_key = response.headers.get(control.KEY_HEADER, "")
                yield response
        except (OSError, http.client.HTTPException) as error:
            raise WorkerUnavailable(f"{self._name} cannot be reached: {error or type(error).__name__}") from error
        finally:
            connection.close()
