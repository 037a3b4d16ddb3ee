"""pytest: which connections a test makes, and which it may make.

    def test_it_asks_once(connections):
        fetch("http://intranet.example.com/")
        (made,) = connections.wait()
        assert (made.host, made.tx_bytes) == ("intranet.example.com", 96)

    pytest --allow-net loopback --allow-host '*.example.com'

The fixture `connections` gives the TCP connections that this process and its children make from then on until the test
ends. With one of the options, a test that reaches anything else fails. Both need what tracing needs: root. Without it
a test that asks for the fixture is skipped, and with one of the options every test fails.

Nothing is loaded before a test asks for it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, overload

import pytest

if TYPE_CHECKING:
    from pytracecon.connections import Connection
    from pytracecon.guard import Guard
    from pytracecon.tracer import Tracer

__all__ = ["Connections", "connections"]

_CLOSING = 1.0
_LOOK_AGAIN = 0.02


class Connections(Sequence["Connection"]):
    """The outbound connections of a test so far, in the order in which they began; a failed attempt is one, too.

    Each look at them takes in what has happened up to then, and brings those that it gave before up to date.
    """

    def __init__(self, watch: _Watch) -> None:
        self._watch = watch
        self._all: list[Connection] = []
        self.lost = 0
        """How many records are missing: with any, this list may not be complete."""

    @property
    def accepted(self) -> list[Connection]:
        """Those that others made to this process and its children."""
        self._watch.catch_up()
        return [each for each in self._all if each.direction == "in"]

    def wait(
        self, until: int | Callable[[list[Connection]], bool] | None = None, *, timeout: float = 5.0
    ) -> list[Connection]:
        """The connections, once `until` holds of them: a condition, or how many there are; else that all are over.

        TimeoutError after so many seconds without that.
        """
        deadline = time.monotonic() + timeout
        while not _holds(until, found := list(self)):
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"after {timeout} s there are {found or 'no connections'}")
            self._watch.read(min(left, _LOOK_AGAIN))
        return found

    @overload
    def __getitem__(self, at: int) -> Connection: ...
    @overload
    def __getitem__(self, at: slice) -> list[Connection]: ...
    def __getitem__(self, at: int | slice) -> Connection | list[Connection]:
        return list(self)[at]

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __iter__(self) -> Iterator[Connection]:
        self._watch.catch_up()
        return iter([each for each in self._all if each.direction != "in"])

    def __repr__(self) -> str:
        return f"<Connections {list(self)}>"

    def _add(self, connection: Connection) -> None:
        self._all.append(connection)


def _holds(until: int | Callable[[list[Connection]], bool] | None, found: list[Connection]) -> bool:
    if until is None:
        return all(each.over for each in found)
    return len(found) >= until if isinstance(until, int) else until(found)


class _Watch:
    """One tracer of this process, for all tests. Only who looks reads it: no thread disturbs a test that forks."""

    def __init__(self) -> None:
        from pytracecon.connections import Joined  # noqa: PLC0415 - none of these is for those who do not ask
        from pytracecon.tracer import Tracer  # noqa: PLC0415

        self._tracer: Tracer = Tracer(pid=os.getpid(), children=True)
        self._process = os.getpid()
        self._joined = Joined()
        self._known: set[str] = set()
        self._watching: list[Connections] = []

    @property
    def ours(self) -> bool:
        """Not the parent's, before a fork."""
        return self._process == os.getpid()

    def begin(self) -> Connections:
        """From now on, until `end`."""
        self.catch_up()
        self._watching.append(Connections(self))
        return self._watching[-1]

    def end(self, watched: Connections) -> None:
        """All that happened is told; what is being closed has a moment for it."""
        self.catch_up()
        deadline = time.monotonic() + _CLOSING
        while any(self._is_closing(each) for each in watched._all) and time.monotonic() < deadline:  # noqa: SLF001
            self.read(_LOOK_AGAIN)
        self._watching.remove(watched)

    def _is_closing(self, connection: Connection) -> bool:
        """Its process is gone, so nobody holds it any more."""
        return not connection.over and not os.path.exists(f"/proc/{connection.pid}")  # noqa: PTH110

    def catch_up(self) -> None:
        from pytracecon.recording import told_so_far  # noqa: PLC0415

        for batch in told_so_far(self._tracer):
            self._take(batch)

    def read(self, timeout: float) -> None:
        self._take(self._tracer.read(timeout))

    def _take(self, batch: Sequence[object]) -> None:
        from pytracecon.events import Event, Lost  # noqa: PLC0415

        for event in batch:
            if isinstance(event, Lost):
                for watched in self._watching:
                    watched.lost += event.count
            elif isinstance(event, Event) and (connection := self._joined.take(event)) is not None:
                if connection.conn not in self._known:
                    self._known.add(connection.conn)
                    for watched in self._watching:
                        watched._add(connection)  # noqa: SLF001 - the same module's
                if connection.over:
                    self._known.discard(connection.conn)

    def close(self) -> None:
        self._tracer.close()


_GUARD = "pytracecon-guard"
_WATCH = pytest.StashKey[_Watch]()
_REFUSED = pytest.StashKey[Exception]()
_WATCHED = pytest.StashKey[Connections]()
_TOLD = pytest.StashKey[set[str]]()


def _watch(config: pytest.Config) -> _Watch:
    """The one of this process. Raises `PytraceconError` where nothing can be traced; that is tried once."""
    from pytracecon import errors  # noqa: PLC0415

    refused = config.stash.get(_REFUSED, None)
    if refused is not None:
        raise refused
    found = config.stash.get(_WATCH, None)
    if found is None or not found.ours:
        try:
            found = config.stash[_WATCH] = _Watch()
        except errors.PytraceconError as error:
            config.stash[_REFUSED] = error
            raise
    return found


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("pytracecon", "network guard (pytracecon)")
    group.addoption(
        "--allow-net",
        metavar="CIDR",
        action="append",
        help="fail tests that reach other addresses: 10.0.0.0/8,::1; or loopback, or none; repeatable",
    )
    group.addoption(
        "--allow-host",
        metavar="PATTERN",
        action="append",
        help="fail tests that reach other names than such as '*.example.com'; repeatable",
    )


def pytest_configure(config: pytest.Config) -> None:
    allow_net, allow_host = config.getoption("allow_net", None), config.getoption("allow_host", None)
    if allow_net is None and allow_host is None:
        return
    from pytracecon import errors, guard  # noqa: PLC0415

    try:
        allowed = guard.Guard.parse(allow_net, allow_host)
    except errors.InvalidValue as error:
        raise pytest.UsageError(str(error)) from None
    if allowed is not None:
        config.pluginmanager.register(_Guarding(allowed), _GUARD)


def pytest_unconfigure(config: pytest.Config) -> None:
    watch = config.stash.get(_WATCH, None)
    if watch is not None and watch.ours:
        watch.close()


@pytest.fixture
def connections(request: pytest.FixtureRequest) -> Generator[Connections]:
    """The TCP connections that this process and its children make, from now on until the test ends."""
    from pytracecon import errors  # noqa: PLC0415

    try:
        watch = _watch(request.config)
    except errors.PytraceconError as error:
        (pytest.fail if request.config.pluginmanager.has_plugin(_GUARD) else pytest.skip)(
            f"connections cannot be traced: {error}"
        )
    watched = watch.begin()
    yield watched
    watch.end(watched)
    if watched.lost:
        pytest.fail(_lost(watched), pytrace=False)


class _Guarding:
    """Looks at what each test reaches, from before its fixtures are made until after they are torn down."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None]:
        """Whatever happens, the others' part is done: pytest's own teardown relies on that."""
        from pytracecon import errors  # noqa: PLC0415

        refused = None
        item.stash[_TOLD] = set()
        try:
            item.stash[_WATCHED] = _watch(item.config).begin()
        except errors.PytraceconError as error:
            refused = str(error)
        done = yield
        if refused is not None:
            pytest.fail(f"what this test reaches cannot be guarded: {refused}", pytrace=False)
        return done

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None]:
        """A test that fails by itself fails for that. What is still open may get its name later: after the teardown."""
        done = yield
        self._judge(item, lambda each: each.over or not self._guard.hosts)
        return done

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None]:
        try:
            done = yield
        finally:
            watched = item.stash.get(_WATCHED, None)
            if watched is not None:
                _watch(item.config).end(watched)
        if watched is not None:
            self._judge(item, lambda _: True)
        return done

    def _judge(self, item: pytest.Item, ripe: Callable[[Connection], bool]) -> None:
        """Each connection is held against a test once."""
        from pytracecon.views.run import violations  # noqa: PLC0415

        watched, told = item.stash[_WATCHED], item.stash[_TOLD]
        found = [each for each in watched if each.conn not in told and ripe(each) and not self._guard.allows(each)]
        told.update(each.conn for each in found)
        if found:
            pytest.fail("\n".join(violations(found)), pytrace=False)
        if watched.lost and not told:
            told.add("lost")
            pytest.fail(_lost(watched), pytrace=False)


def _lost(watched: Connections) -> str:
    return f"{watched.lost} records were lost: whether these are all the connections of this test is not known"
