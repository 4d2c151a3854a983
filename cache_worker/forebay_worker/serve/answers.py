"""Answers that are on their way out: what is left of them."""

import errno

from forebay_worker.serve.stream import Closed, Stream
from forebay_worker.store.tiered import Lease

_PIECE = 256 * 1024


class Rest:
    """What is left of an answer that was copied."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def send(self, stream: Stream) -> None:
        """Send it on a stream that blocks."""
        stream.socket.sendall(self._data)

    def end(self) -> None:
        """Nothing is held."""


class Answer:
    """A hit on its way out: what is left of its head, then of its place in the chunk's file."""

    __slots__ = ("_end", "_head", "_position", "lease")

    def __init__(self, lease: Lease, head: bytes, within: int, length: int) -> None:
        self.lease = lease
        self._head = head
        self._position = lease.offset + within
        self._end = self._position + length

    def end(self) -> None:
        """Let the chunk go."""
        self.lease.release()

    def send(self, stream: Stream) -> bool:
        """Send as much as the stream takes, which is all of it where that blocks; whether all is sent."""
        try:
            if self._head:
                self._head = self._head[stream.send_part(self._head) :]
            while not self._head and self._position < self._end:
                count = self._send_some(stream, self._end - self._position)
                if not count:
                    # The file is shorter than the catalogue says; the head is out, so only the stream's end can tell.
                    self.lease.damaged()
                    raise Closed
                self._position += count
        except BlockingIOError:
            if stream.blocks:
                # The kernel's time limit: nobody reads at the other end.
                raise
        except OSError as error:
            if error.errno == errno.EIO:
                # Sockets do not give this: the disk cannot read the chunk.
                self.lease.damaged()
            raise
        return not self._head and self._position == self._end

    def _send_some(self, stream: Stream, length: int) -> int:
        """Some of the file; what is encrypted in it passes through us, on streams that block."""
        if self.lease.plain:
            return stream.send_file(self.lease.fd, self._position, length)
        piece = self.lease.read(self._position - self.lease.offset, min(length, _PIECE))
        stream.socket.sendall(piece)
        return len(piece)
