"""How an event loop waits for a tracer."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from pytracecon.wire import ASLEEP, AWAKE

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from pytracecon.reader import Reader

__all__ = ["rest"]


async def rest(reader: Reader, lock: threading.RLock, stopping: Callable[[], bool]) -> None:
    """A nap, then until the ring's descriptor is readable, or the reader closed.

    Whoever closes it holds the lock, be it another thread: no page and no descriptor goes away while it is used here.
    """
    import asyncio  # noqa: PLC0415 - 100 ms that a plain loop need not wait for

    from pytracecon.reader import NAP  # noqa: PLC0415 - imported meanwhile

    woken = asyncio.Event()
    loop = asyncio.get_running_loop()

    def asleep() -> bool:
        with lock:
            return not reader.closed and reader.rest(ASLEEP) and not stopping()

    def until_due() -> float | None:
        with lock:
            return 0 if reader.closed else reader.until_due(None)

    def awake() -> None:
        with lock:
            reader.when_closed.discard(closed)
            if not reader.closed:
                reader.rest(AWAKE)
                reader.calm()

    def closed() -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed before, and nobody goes on
            loop.call_soon_threadsafe(woken.set)

    if not reader.drained or stopping():
        return
    await asyncio.sleep(NAP)
    with lock:
        if reader.closed:
            return
        if not asleep():
            reader.rest(AWAKE)
            return
        # A number of our own: when the reader is closed, its number may be another's at once, whom the loop waits for.
        try:
            descriptor = os.dup(reader.epoll.fileno())
        except OSError:  # none is left: it goes on by naps
            reader.rest(AWAKE)
            return
        reader.when_closed.add(closed)
    loop.add_reader(descriptor, woken.set)
    try:
        # The kernel side may have looked just before it was told: the first sleep is a short one.
        try:
            await asyncio.wait_for(woken.wait(), NAP)
        except TimeoutError:
            if asleep():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(woken.wait(), until_due())
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
        awake()
