"""A tracer under test, and what it has told so far."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from pytracecon import ConnectionEvent, Event, Failed, Lost, Tracer
from traffic.actor import DEADLINE
from traffic.end import End
from traffic.network import Network
from traffic.story import Told, assert_story, describe, story, strangers


class Beacon:
    """A refused attempt in a namespace of its own. A ring keeps order: when it is read, so is all that came before."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._actor = network.actor("beacon")
        self._flashes = 0

    def flash(self) -> int:
        """The port that was asked for, another one each time."""
        self._flashes += 1
        port = 1 + self._flashes % 60_000
        assert self._actor.do("refused", 1, "127.0.0.1", port).result == 1
        return port

    def is_in(self, events: list[Event], port: int) -> bool:
        return any(
            isinstance(event, Failed) and event.remote_port == port and event.netns == self._network.inode
            for event in reversed(events)
        )


def _is_of_the_tests(event: Event) -> bool:
    return not isinstance(event, ConnectionEvent) or event.netns is None or event.netns in Network.inodes


class Trace:
    """The events of one tracer, as a test reads them."""

    def __init__(self, tracer: Tracer, beacon: Beacon | None = None) -> None:
        self.tracer = tracer
        self.events: list[Event] = []
        self._beacon = beacon

    def until(self, condition: Callable[[list[Event]], bool], *, within: float = DEADLINE) -> bool:
        """Read until the condition holds of all events so far; false when it did not in time."""
        deadline = time.monotonic() + within
        while not condition(self.events):
            if time.monotonic() > deadline:
                return False
            self._take(self.tracer.read(timeout=0.2))
        return True

    def _take(self, batch: list[Event]) -> None:
        """What a tracer shared by all tests says of the rest of the machine is nobody's business here."""
        self.events += batch if self._beacon is None else filter(_is_of_the_tests, batch)

    def settle(self) -> list[Event]:
        """Read all that was told up to now."""
        if self._beacon is None:
            self.tracer.stop()
            while batch := self.tracer.read(timeout=DEADLINE):
                self._take(batch)
            return self.events
        while not self._has_seen(self._beacon):
            pass
        return self.events

    def _has_seen(self, beacon: Beacon) -> bool:
        """False if something was lost, which may have been the beacon: a tracer of the whole machine is told of
        whatever else goes on there.
        """
        lost = self.tracer.stats.lost
        port = beacon.flash()
        self.until(lambda events: beacon.is_in(events, port) or self.tracer.stats.lost > lost)
        seen = beacon.is_in(self.events, port)
        assert seen or self.tracer.stats.lost > lost, f"the beacon was not seen: {self.tracer.stats}"
        return seen

    def restart(self) -> None:
        """Forget what was told up to now."""
        self.settle()
        self.events.clear()

    def tells(self, *all_told: Told, alone: bool = True, silent: Iterable[End] = ()) -> None:
        """Exactly these stories are told, and (`alone`) nothing else of the namespaces that they are in.

        Nothing is told of the `silent` ends.
        """
        self.await_told(all_told)
        self.settle()
        assert [event for event in self.events if isinstance(event, Lost)] == []
        for told in all_told:
            assert_story(self.events, told)
        for end in silent:
            assert story(self.events, end) == []
        if alone:
            assert strangers(self.events, [told.end for told in all_told]) == []

    def older_direction(self, end: End) -> str:
        """What is told of the direction of an end older than the tracer: where nothing tells it any more, `unknown`."""
        told = {event.direction for event in story(self.events, end)}
        assert len(told) == 1 and told <= {end.direction, "unknown"}, describe(self.events, end)
        return told.pop()

    def await_told(self, all_told: Iterable[Told]) -> bool:
        """Until as many events came as there should be; false if they did not."""
        waiting = list(all_told)

        def complete(events: list[Event]) -> bool:
            waiting[:] = [told for told in waiting if len(story(events, told.end)) < len(told.kinds)]
            return not waiting

        return self.until(complete, within=10)
