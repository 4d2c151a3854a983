"""Memory for whole chunks, used again and again.

Fresh memory comes zeroed, page by page as it is touched: of the CPU that a worker spent on a fill, 30 % went there
(docs/adr/0023-cold-chunks-are-served-as-they-arrive.md). So some of it is kept for whoever needs as much next.
"""

import contextlib
import ctypes
import mmap
import weakref
from collections import deque
from collections.abc import Callable

from forebay_protocol.keys import CHUNK_SIZE

_HUGE_PAGE = 2 * 1024 * 1024

MOST_KEPT = 8
"""Chunks' memory that is kept: whoever is done makes room for whoever begins, so that few serve many."""

_kept: deque[mmap.mmap] = deque()


class _SmallBuffer(bytearray):
    """A bytearray whose end can be observed."""

    __slots__ = ("__weakref__",)


def make_view(length: int, released: Callable[[], None] = lambda: None) -> memoryview:
    """Memory with arbitrary contents; ``released`` is called when the last view of it is gone, in any thread."""
    owner: _SmallBuffer | ctypes.Array[ctypes.c_char]
    if _HUGE_PAGE <= length <= CHUNK_SIZE:
        memory = _take()
        owner = (ctypes.c_char * length).from_buffer(memory)
        weakref.finalize(owner, _keep, memory).atexit = False
    else:
        owner = _SmallBuffer(length)
    weakref.finalize(owner, released).atexit = False
    return memoryview(owner).cast("B")


def _take() -> mmap.mmap:
    """Kept memory, or new: in huge pages where the system has them, which cost a tenth of small ones to get."""
    with contextlib.suppress(IndexError):
        return _kept.pop()
    memory = mmap.mmap(-1, CHUNK_SIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):
        # Kernels may be built without them.
        memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _keep(memory: mmap.mmap) -> None:
    if len(_kept) < MOST_KEPT:
        _kept.append(memory)
