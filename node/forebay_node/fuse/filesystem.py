"""Answer the kernel's requests, one method for each kind."""

import errno
import os
import threading
from collections.abc import Callable
from functools import partial

from forebay.index import Entry
from forebay.source.base import Listing
from forebay_node.fuse import protocol
from forebay_node.fuse.files import Files, fresh_numbers
from forebay_node.fuse.journal import Journal
from forebay_node.fuse.protocol import Opcode, OpenFlag, Request
from forebay_node.fuse.session import Reply, guard
from forebay_node.fuse.tree import VALID, OpenFolder, Tree
from forebay_protocol.keys import ObjectVersion

Newest = Callable[[ObjectVersion], Listing | None]
"""Asks an object's source for its version now; None when it is gone."""

READAHEAD = 8 * 1024 * 1024
MAX_PAGES = 256
"""The largest read that the kernel may send, in pages; and how many bytes it may read ahead in all."""

_FOLDER = "folder"

_WRITES = frozenset({
    Opcode.SETATTR, Opcode.SYMLINK, Opcode.MKNOD, Opcode.MKDIR, Opcode.UNLINK, Opcode.RMDIR, Opcode.RENAME,
    Opcode.RENAME2, Opcode.LINK, Opcode.WRITE, Opcode.CREATE, Opcode.SETXATTR, Opcode.REMOVEXATTR, Opcode.FALLOCATE,
})  # fmt: skip


class FileSystem:
    """The requests of one mount."""

    def __init__(self, tree: Tree, files: Files, journal: Journal, newest: Newest | None = None) -> None:
        """Names come from the tree, bytes from the files; with ``newest`` every open asks for the file's version."""
        self._journal = journal
        self._newest = newest
        self._tree = tree
        self._files = files
        self._folders: dict[int, OpenFolder] = {}
        self._numbers = fresh_numbers()
        self._lock = threading.Lock()
        self.ready = threading.Event()
        self._handlers: dict[int, Callable[[Request, Reply], None]] = {
            Opcode.INIT: self._init,
            Opcode.LOOKUP: self._lookup,
            Opcode.GETATTR: self._getattr,
            Opcode.OPEN: self._open,
            Opcode.READ: self._read,
            Opcode.RELEASE: self._release,
            Opcode.OPENDIR: self._opendir,
            Opcode.READDIR: self._readdir,
            Opcode.READDIRPLUS: self._readdir,
            Opcode.RELEASEDIR: self._releasedir,
            Opcode.STATFS: self._statfs,
            Opcode.READLINK: lambda _, reply: reply.error(errno.EINVAL),
            Opcode.DESTROY: lambda _, reply: reply.data(),
        }

    def adopt_folders(self) -> None:
        """Take over the predecessor's folders that were opened in the generation that is shown now."""
        for number, (inode, generation) in self._journal.items(_FOLDER):
            if int(number) in self._folders:
                continue
            folder = self._tree.open_folder(inode)
            if folder.generation.snapshot.generation == generation:
                self._folders[int(number)] = folder
            else:
                self._tree.close_folder(folder)

    def handle(self, request: Request, reply: Reply) -> None:
        """Answer one request. What is not known is refused once: the kernel then stops asking for it."""
        handler = self._handlers.get(request.opcode)
        if handler is not None:
            handler(request, reply)
        else:
            reply.error(errno.EROFS if request.opcode in _WRITES else errno.ENOSYS)

    def _init(self, request: Request, reply: Reply) -> None:
        reply.data((protocol.init_reply(request.body, readahead=READAHEAD, max_pages=MAX_PAGES),))
        self.ready.set()

    def _lookup(self, request: Request, reply: Reply) -> None:
        entry = self._tree.look_up(request.node, bytes(request.body).rstrip(b"\0"))
        if entry is None:
            reply.data((protocol.negative_entry_reply(VALID),))
        else:
            reply.data((protocol.entry_reply(self._tree.attributes(entry), VALID),))

    def _entry(self, node: int) -> Entry | None:
        return self._tree.entry(node) or self._files.of_node(node)

    def _getattr(self, request: Request, reply: Reply) -> None:
        entry = self._entry(request.node)
        if entry is None:
            reply.error(errno.ESTALE)
        else:
            reply.data((protocol.attr_reply(self._tree.attributes(entry), VALID),))

    def _open(self, request: Request, reply: Reply) -> None:
        flags, _ = protocol.OPEN_IN.unpack_from(request.body)
        if flags & os.O_ACCMODE != os.O_RDONLY:
            reply.error(errno.EROFS)
            return
        entry = self._tree.entry(request.node)
        if entry is None or entry.is_dir:
            reply.error(errno.ESTALE if entry is None else errno.EISDIR)
            return
        with self._tree.current() as snapshot:
            one = snapshot.object(entry)
        if self._newest is None:
            self._opened(entry, one, reply)
        else:
            self._files.later(partial(guard, reply, partial(self._revalidate, self._newest, entry, one, reply)))

    def _revalidate(self, newest: Newest, entry: Entry, one: ObjectVersion, reply: Reply) -> None:
        """Open the file if its source still has this version.

        With ESTALE the kernel looks the name up once more, gets the newer version's node and opens that.
        """
        if self._tree.has_changed(entry, newest(one)):
            reply.error(errno.ESTALE)
        else:
            self._opened(entry, one, reply)

    def _opened(self, entry: Entry, one: ObjectVersion, reply: Reply) -> None:
        # A node is one version, so what the kernel has cached of it is right for ever.
        reply.data((protocol.OPEN_OUT.pack(self._files.open(entry, one), OpenFlag.KEEP_CACHE, 0),))

    def _read(self, request: Request, reply: Reply) -> None:
        number, offset, size, _ = protocol.READ_IN.unpack_from(request.body)
        if not self._files.read(number, offset, size, reply):
            reply.error(errno.EBADF)

    def _release(self, request: Request, reply: Reply) -> None:
        (number,) = protocol.RELEASE_IN.unpack_from(request.body)
        reply.data()
        self._files.release(number)

    def _opendir(self, request: Request, reply: Reply) -> None:
        folder = self._tree.open_folder(request.node)
        with self._lock:
            number = next(self._numbers)
            self._folders[number] = folder
        self._journal.put(_FOLDER, number, folder.inode, folder.generation.snapshot.generation)
        reply.data((protocol.OPEN_OUT.pack(number, OpenFlag.KEEP_CACHE | OpenFlag.CACHE_DIR, 0),))

    def _readdir(self, request: Request, reply: Reply) -> None:
        number, position, size, _ = protocol.READ_IN.unpack_from(request.body)
        folder = self._folders.get(number)
        if folder is None:
            # It was opened in a generation that went with the server that showed it.
            reply.error(errno.ESTALE)
        elif request.opcode == Opcode.READDIRPLUS:
            reply.data((self._tree.list_plus(folder, position, size),))
        else:
            reply.data((self._tree.list_plain(folder, position, size),))

    def _releasedir(self, request: Request, reply: Reply) -> None:
        (number,) = protocol.RELEASE_IN.unpack_from(request.body)
        with self._lock:
            folder = self._folders.pop(number, None)
        self._journal.drop(_FOLDER, number)
        if folder is not None:
            self._tree.close_folder(folder)
        reply.data()

    def _statfs(self, _request: Request, reply: Reply) -> None:
        with self._tree.current() as snapshot:
            reply.data((protocol.statfs_reply(snapshot.total_bytes, snapshot.file_count),))
