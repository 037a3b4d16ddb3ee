"""How an event loop waits for a tracer."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from pytracecon.wire import ASLEEP, AWAKE

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytracecon.reader import Reader

__all__ = ["rest"]


async def rest(reader: Reader, stopping: Callable[[], bool]) -> None:
    """A nap, then until the ring's descriptor is readable."""
    import asyncio  # noqa: PLC0415 - 100 ms that a plain loop need not wait for

    from pytracecon.reader import NAP  # noqa: PLC0415 - imported meanwhile

    if not reader.drained or stopping():
        return
    await asyncio.sleep(NAP)
    if not reader.rest(ASLEEP) or stopping():
        reader.rest(AWAKE)
        return
    readable = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(reader.epoll.fileno(), readable.set)
    try:
        # The kernel side may have looked just before it was told: the first sleep is a short one.
        try:
            await asyncio.wait_for(readable.wait(), NAP)
        except TimeoutError:
            if reader.rest(ASLEEP) and not stopping():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(readable.wait(), reader.until_due(None))
    finally:
        loop.remove_reader(reader.epoll.fileno())
        reader.rest(AWAKE)
        reader.calm()
