"""Where `top` has its snapshots from, and the events between them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from pytracecon.errors import TracerClosed
from pytracecon.events import Event
from pytracecon.snapshots import Snapshot
from pytracecon.tracer import Tracer

__all__ = ["Feed", "TracerFeed", "Update"]


class Update(NamedTuple):
    """How things stand, and what was told since the update before."""

    snapshot: Snapshot
    events: list[Event]


class Feed(Protocol):
    def start(self, deliver: Callable[[Update], None], failed: Callable[[BaseException], None]) -> None:
        """From now on, in a thread of its own. What ends it before `stop` is given to `failed`."""

    def stop(self) -> None:
        """When this returns nothing more is delivered."""


class TracerFeed:
    """Takes a snapshot every `interval` seconds, as the clock goes, and reads what is told meanwhile."""

    def __init__(self, tracer: Tracer, *, interval: float, limit: int) -> None:
        self._tracer = tracer
        self._interval = interval
        self._limit = limit
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, deliver: Callable[[Update], None], failed: Callable[[BaseException], None]) -> None:
        self._thread = threading.Thread(target=self._run, args=(deliver, failed), name="pytracecon: feeds top")
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._tracer.stop()
            self._thread.join()
            self._thread = None

    def _run(self, deliver: Callable[[Update], None], failed: Callable[[BaseException], None]) -> None:
        try:
            self.pump(deliver)
        except BaseException as error:  # noqa: BLE001 - raised by whoever waits for this to end
            failed(error)

    def pump(self, deliver: Callable[[Update], None], *, most: int | None = None) -> None:
        """In this thread, until the tracer is stopped, or for so many updates."""
        due = time.monotonic()
        events: list[Event] = []
        while most != 0 and not self._stopping.is_set() and not self._tracer.stopped:
            events += self._tracer.read(max(0.0, due - time.monotonic()))
            now = time.monotonic()
            if now < due or self._stopping.is_set():
                continue
            try:
                snapshot = self._tracer.snapshot(self._limit)
            except TracerClosed:  # it was stopped just now, and there is nobody left to show it to
                return
            if not self._stopping.is_set():
                deliver(Update(snapshot, events))
            events = []
            most = None if most is None else most - 1
            # As the clock goes, however long this took; a moment that is over is left out.
            due += self._interval * ((now - due) // self._interval + 1)
