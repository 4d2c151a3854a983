"""A FUSE connection as whoever keeps it alive holds it: more than one server may serve it, one after the other.

The kernel ends a connection when its last descriptor is closed, and the requests that were taken on a
descriptor when that one is closed. So nobody reads from the descriptor that was mounted; servers read from
channels, clones of it. A server that dies leaves the requests that it took in its channels.
"""

import errno
import fcntl
import logging
import os
import struct
from pathlib import Path

from forebay_node.fuse import protocol
from forebay_node.mounts import mount_fuse

_CHANNELS = 4
"""One for each thread of a server."""

_log = logging.getLogger(__name__)


def _open() -> int:
    return os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)


class Connection:
    """The descriptors of one mount."""

    def __init__(self) -> None:
        """They are open, and can be inherited, but belong to no mount yet."""
        self._device = _open()
        self.channels = [_open() for _ in range(_CHANNELS)]

    def mount(self, source: str, target: Path) -> None:
        """Mount the file system; ``source`` is its name in the list of mounts."""
        mount_fuse(self._device, source, target)
        self._attach()

    def _attach(self) -> None:
        for channel in self.channels:
            fcntl.ioctl(channel, protocol.CLONE, struct.pack("<I", self._device))

    def recover(self) -> None:
        """The server died: have the requests that it had not answered wait for the next one.

        A kernel before 6.9 cannot do that; there they fail now (ECONNABORTED), and only they.
        """
        try:
            os.write(self._device, protocol.resend())
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            _log.warning("this kernel (older than 6.9) does not repeat requests: those under way fail")
            self._close_channels()
            self.channels = [_open() for _ in range(_CHANNELS)]
            self._attach()

    def _close_channels(self) -> None:
        for channel in self.channels:
            os.close(channel)
        self.channels = []

    def close(self) -> None:
        """Let go of it. When no server has it either, all that waits for an answer fails, now and later."""
        self._close_channels()
        os.close(self._device)
