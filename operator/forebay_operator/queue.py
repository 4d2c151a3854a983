"""Work by key: an object that changes ten times while it waits is looked at once."""

import asyncio
from typing import NamedTuple


class Key(NamedTuple):
    """The name of a custom resource to look at."""

    kind: str
    namespace: str
    name: str


NODE_FOLDERS = Key("NodeFolders", "", "")
"""No resource: the look at all Runtimes that may have folders on nodes."""


class KeyQueue:
    """Keys that wait, now or later. A key is never handed out twice at the same time."""

    def __init__(self) -> None:
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._waiting: set[Key] = set()
        self._working: set[Key] = set()
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}

    def add(self, key: Key) -> None:
        """Look at the key as soon as possible."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        if key in self._working:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            self._ready.put_nowait(key)

    def add_later(self, key: Key, delay: float) -> None:
        """Look at the key after ``delay`` seconds at the latest."""
        loop = asyncio.get_running_loop()
        timer = self._timers.get(key)
        if timer is not None:
            if timer.when() <= loop.time() + delay:
                return
            timer.cancel()
        self._timers[key] = loop.call_later(delay, self.add, key)

    async def take(self) -> Key:
        """The next key; ``done`` must follow."""
        key = await self._ready.get()
        self._waiting.discard(key)
        self._working.add(key)
        return key

    def done(self, key: Key) -> None:
        """The look at the key has ended; one that changed meanwhile is looked at again."""
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)
