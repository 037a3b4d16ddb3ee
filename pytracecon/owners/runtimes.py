"""`Runtimes`: what people call a container, asked of Docker or podman by their API's socket, in the background.

Nobody waits for it: a container gets its name some time after somebody asked, or never.

Who answers is known from the socket: its owner, and the user under whom its server began to listen (SO_PEERCRED). Of
what runs below a user's own systemd (`shapes.user_of`), where this user calls any cgroup what it likes, only this
user's engines are asked; of all else only root's.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

from pytracecon import forks
from pytracecon.logs import logger
from pytracecon.owners import engines
from pytracecon.text import one_line

__all__ = ["Runtimes", "sockets_of_root"]

_SOCKETS = ("/run/docker.sock", "/run/podman/podman.sock")
_SOCKETS_OF_USER = ("podman/podman.sock", "docker.sock")
_USERS = "/run/user"

_QUEUE = 256
_OF_USER = 32
"""Of these, so many may be of one user's containers: who makes cgroups calls them as it likes."""
_QUIET = 30
"""Seconds for which an engine is not asked again that did not answer in time: others' names wait for it."""
_KNOWN = 4_096
_LIFETIME = 600  # then it may have been renamed
_FAILURE_LIFETIME = 30
_MOST_SAID = 64

_ID = re.compile(r"[0-9a-f]{64}")


class _Asked(NamedTuple):
    container: str
    user: int | None


class _Known(NamedTuple):
    name: str | None
    again: float


def sockets_of_root(environment: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Where root's engines listen; one that DOCKER_HOST names too, and it must be root's as well."""
    scheme, colons, path = environment.get("DOCKER_HOST", "").partition("://")
    further = (path,) if scheme == "unix" and colons and path.startswith("/") else ()
    return tuple(dict.fromkeys(_SOCKETS + further))


class Runtimes:
    """Names of containers, kept for ten minutes and then asked for again; that there is none, for half a minute.

    `on_named` is called, in a thread of its own, whenever a name came that was not known; also once while `close` runs.
    """

    def __init__(
        self,
        on_named: Callable[[], None] = lambda: None,
        *,
        sockets: tuple[str, ...] | None = None,
        users: str = _USERS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_named = on_named
        self._sockets = sockets_of_root() if sockets is None else sockets
        self._users = users
        self._clock = clock
        self._closed = False
        self._started = False
        self._changed = threading.Condition()
        self._queue: deque[_Asked] = deque()
        self._pending: set[_Asked] = set()
        self._known: OrderedDict[_Asked, _Known] = OrderedDict()
        self._said: set[str] = set()
        self._quiet: dict[str, float] = {}
        self._talking: socket.socket | None = None
        forks.cut_off(self, self._cut_off)

    def name_of(self, container: str, user: int | None = None) -> str | None:
        """What is known now; what is not is asked for. Returns at once. `user`: below whose systemd it runs."""
        asked = _Asked(container, user)
        with self._changed:
            known = self._known.get(asked)
            if known is None or known.again <= self._clock():
                self._ask(asked)
            return None if known is None else known.name

    def close(self) -> None:
        """Ask nothing more, and hang up where an answer is awaited."""
        with self._changed:
            self._closed = True
            self._queue.clear()
            self._pending.clear()
            if self._talking is not None:
                _hang_up(self._talking)
            self._changed.notify_all()

    def _cut_off(self) -> None:
        """In a child after fork(): a thread that is not there any more may hold the lock; the parent still talks."""
        self._changed = threading.Condition()
        self._talking = None
        self.close()

    def _ask(self, asked: _Asked) -> None:
        if self._closed or asked in self._pending or len(self._queue) >= _QUEUE or not _ID.fullmatch(asked.container):
            return
        if asked.user and sum(each.user == asked.user for each in self._pending) >= _OF_USER:
            return
        if not self._started:
            thread = threading.Thread(target=self._work, name="pytracecon-containers", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # no more threads are allowed; next time there may be
                self._say(f"containers are not asked for: {error}")
                return
            self._started = True
        self._pending.add(asked)
        self._queue.append(asked)
        self._changed.notify()

    def _work(self) -> None:
        # Signals are for the threads of the program that uses this.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if self._closed:
                    return
                asked = self._queue.popleft()
            name = self._answer(asked)
            with self._changed:
                if self._closed:
                    return
                came = self._keep(asked, name)
            if came:
                self._on_named()

    def _keep(self, asked: _Asked, name: str | None) -> bool:
        """Whether that is news. An engine that is gone does not take a name back."""
        self._pending.discard(asked)
        before = self._known.pop(asked, _Known(None, 0))
        again = self._clock() + (_FAILURE_LIFETIME if name is None else _LIFETIME)
        self._known[asked] = _Known(name or before.name, again)
        if len(self._known) > _KNOWN:
            self._known.popitem(last=False)
        return name is not None and name != before.name

    def _answer(self, asked: _Asked) -> str | None:
        user = asked.user or 0
        places = tuple(f"{self._users}/{user}/{path}" for path in _SOCKETS_OF_USER) if user else self._sockets
        for path in places:
            if self._quiet.get(path, 0) > self._clock():
                continue
            try:
                if (name := self._told(path, user, asked.container)) is not None:
                    return name
            except FileNotFoundError:  # no such engine here
                continue
            except engines.FAILURES as error:
                if isinstance(error, TimeoutError):
                    self._quiet[path] = self._clock() + _QUIET
                self._say(f"{path}: {error}")
        return None

    def _told(self, path: str, owner: int, container: str) -> str | None:
        with engines.connected(path, owner) as talking:
            with self._changed:
                if self._closed:
                    return None
                self._talking = talking
            try:
                return engines.name_of(talking, container)
            finally:
                with self._changed:
                    self._talking = None

    def _say(self, what: str) -> None:
        """Each failure once."""
        if what not in self._said and len(self._said) < _MOST_SAID:
            self._said.add(what)
            logger("pytracecon.owners").debug("%s", one_line(what))


def _hang_up(talking: socket.socket) -> None:
    with suppress(OSError):  # the other end was faster
        talking.shutdown(socket.SHUT_RDWR)
