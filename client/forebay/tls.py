"""TLS between clients and workers: TLS 1.3 only, for both ends are ours.

The worker shows a certificate of its Runtime's own authority; clients show their token, inside. Whoever connects
verifies the name of the workers' Service, whatever address it has connected to.
"""

import errno
import os
import socket
import ssl
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from typing_extensions import override

from forebay_protocol.errors import InvalidRequest, WorkerUnavailable

if TYPE_CHECKING:
    from typing_extensions import Buffer

_TIMEVAL = struct.Struct("ll")


class TlsSocket(ssl.SSLSocket):
    """Behaves as a plain blocking socket does, so that who uses one need not know which it is.

    The kernel's time limits (SO_RCVTIMEO, SO_SNDTIMEO) end no call of the TLS library, which tries again: here they
    become limits of the calls, with the kernel's meaning. MSG_WAITALL and MSG_MORE are understood.
    """

    @override
    def setsockopt(self, level: int, option: int, value: Any, length: int | None = None) -> None:
        if level == socket.SOL_SOCKET and option in {socket.SO_RCVTIMEO, socket.SO_SNDTIMEO}:
            seconds, microseconds = _TIMEVAL.unpack(value)
            limits = self.__dict__.setdefault("_limits", {})
            limits[option] = seconds + microseconds / 1e6
        elif length is None:
            super().setsockopt(level, option, value)
        else:
            super().setsockopt(level, option, value, length)

    def _limit(self, option: int) -> float | None:
        limit: float | None = self.__dict__.get("_limits", {}).get(option)
        if limit is not None and limit != self.gettimeout():
            self.settimeout(limit)
        return limit

    @override
    def recv_into(self, buffer: "Buffer", nbytes: int | None = None, flags: int = 0) -> int:
        limit = self._limit(socket.SO_RCVTIMEO)
        view = memoryview(buffer)[: nbytes or None]
        end = None if limit is None else time.monotonic() + limit
        position = 0
        while position < len(view):
            try:
                count = super().recv_into(view[position:])
            except TimeoutError:
                if position == 0 and limit is not None:
                    raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
                if position == 0:
                    raise
                break
            position += count
            if not count or not flags & socket.MSG_WAITALL or (end is not None and time.monotonic() > end):
                break
        return position

    @override
    def sendall(self, data: "Buffer", flags: int = 0) -> None:
        self._limit(socket.SO_SNDTIMEO)
        super().sendall(data, flags & ~socket.MSG_MORE)

    @override
    def shutdown(self, how: int) -> None:
        # The library's own would take the session away under a thread that reads.
        socket.socket.shutdown(self, how)


def _context(purpose: int) -> ssl.SSLContext:
    context = ssl.SSLContext(purpose)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.sslsocket_class = TlsSocket
    return context


def server_context() -> ssl.SSLContext:
    """For a worker; the certificate is to be loaded into it, and may be loaded anew at any time."""
    context = _context(ssl.PROTOCOL_TLS_SERVER)
    # Connections are kept, not resumed.
    context.num_tickets = 0
    return context


@dataclass(frozen=True, slots=True)
class ClientTls:
    """How to verify workers: by the authority of their Runtime, and by name."""

    context: ssl.SSLContext = field(repr=False)
    server_name: str

    @classmethod
    def of(cls, authority: str, server_name: str) -> "ClientTls":
        """``authority`` holds certificates as PEM; InvalidRequest when it does not."""
        context = _context(ssl.PROTOCOL_TLS_CLIENT)
        try:
            context.load_verify_locations(cadata=authority)
        except (ssl.SSLError, ValueError) as error:
            raise InvalidRequest("the certificate of the workers' authority cannot be parsed") from error
        return cls(context, server_name)

    def wrap(self, stream: socket.socket, worker: str) -> socket.socket:
        """The stream, encrypted; WorkerUnavailable, and closed, when the other side is not a worker to be trusted.

        The stream's own timeout bounds this. ``worker`` names it in the error.
        """
        try:
            return self.context.wrap_socket(stream, server_hostname=self.server_name)
        except ssl.SSLCertVerificationError as error:
            stream.close()
            message = f"{worker} shows a certificate that does not hold for {self.server_name}: {error.verify_message}"
            raise WorkerUnavailable(message) from error
        except OSError as error:
            stream.close()
            raise WorkerUnavailable(f"{worker} does not speak TLS with us: {error}") from error


TlsProvider = Callable[[], ClientTls | None]
"""Gives what is to be used now; None is plain TCP."""


def plain() -> None:
    """A TlsProvider for streams without TLS."""
