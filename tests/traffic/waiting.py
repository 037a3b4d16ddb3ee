"""Waiting for a descriptor, whatever its number: select() takes none above 1,023."""

from __future__ import annotations

import select


def readable(descriptor: int, within: float) -> bool:
    """Whether there is something to read, or an end; after so many seconds at most."""
    return _ready(descriptor, select.POLLIN, within)


def writable(descriptor: int, within: float = 0) -> bool:
    return _ready(descriptor, select.POLLOUT, within)


def _ready(descriptor: int, event: int, within: float) -> bool:
    waits = select.poll()
    waits.register(descriptor, event)
    return bool(waits.poll(within * 1000))
