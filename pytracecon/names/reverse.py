"""`Reverse`: what the owner of an address calls it (PTR records), asked in the background, for `--reverse`.

Nobody waits for it: an address gets its name some time after somebody asked, or never.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from pytracecon import forks
from pytracecon.names.libc_results import host_of, text_of

__all__ = ["Reverse", "ptr_of"]

_THREADS = 4
_QUEUE = 1_024
_KNOWN = 8_192
_LIFETIME = 600
_FAILURE_LIFETIME = 60
_MAPPED = bytes(10) + b"\xff\xff"


def ptr_of(address: bytes) -> str | None:
    """Ask the resolver of this machine, for as long as it takes. None: the address has no name, or none that is one."""
    if address.startswith(_MAPPED):
        text = socket.inet_ntop(socket.AF_INET, address[len(_MAPPED) :])
    else:
        text = socket.inet_ntop(socket.AF_INET6, address)
    try:
        name, _ = socket.getnameinfo((text, 0), socket.NI_NAMEREQD | socket.NI_NUMERICSERV)
    except OSError:
        return None
    return host_of(text_of(os.fsencode(name)))


class Reverse:
    """Names of addresses, kept for ten minutes; that there is none, for one. `dropped` counts what was not even asked.

    Threads begin with the first question. A child after fork() has none of them, and gets no more names.
    """

    def __init__(
        self, resolve: Callable[[bytes], str | None] = ptr_of, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.dropped = 0
        self._resolve = resolve
        self._clock = clock
        self._closed = False
        self._threads = 0
        self._changed = threading.Condition()
        self._queue: deque[bytes] = deque()
        self._pending: set[bytes] = set()
        self._known: OrderedDict[bytes, tuple[str | None, float]] = OrderedDict()
        forks.cut_off(self, self._cut_off)

    def ask(self, address: bytes) -> None:
        """Have the name looked up, unless that is under way or was done of late. Returns at once."""
        with self._changed:
            if self._closed or address in self._pending or self._kept(address) is not None:
                return
            if len(self._queue) >= _QUEUE or not self._started():
                self.dropped += 1
                return
            self._pending.add(address)
            self._queue.append(address)
            self._changed.notify()

    def name_of(self, address: bytes) -> str | None:
        """What is known now. Returns at once."""
        with self._changed:
            kept = self._kept(address)
            return None if kept is None else kept[0]

    def close(self) -> None:
        """Ask nothing more. A question under way is not waited for, not even when the interpreter ends."""
        with self._changed:
            self._closed = True
            self._queue.clear()
            self._pending.clear()
            self._changed.notify_all()

    def _cut_off(self) -> None:
        """In a child after fork(): a thread that is not there any more may hold the lock."""
        self._changed = threading.Condition()
        self.close()

    def _kept(self, address: bytes) -> tuple[str | None, float] | None:
        kept = self._known.get(address)
        return None if kept is None or kept[1] <= self._clock() else kept

    def _started(self) -> bool:
        while self._threads < _THREADS:
            # ThreadPoolExecutor's threads would be joined when the interpreter ends, however long a resolver hangs.
            thread = threading.Thread(target=self._work, name="pytracecon-ptr", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no more threads are allowed: fewer will do, and next time there may be more
                break
            self._threads += 1
        return self._threads > 0

    def _work(self) -> None:
        # Signals are for the threads of the program that uses this.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if self._closed:
                    return
                address = self._queue.popleft()
            name = self._resolve(address)
            with self._changed:
                self._pending.discard(address)
                self._known.pop(address, None)
                self._known[address] = name, self._clock() + (_FAILURE_LIFETIME if name is None else _LIFETIME)
                if len(self._known) > _KNOWN:
                    self._known.popitem(last=False)
