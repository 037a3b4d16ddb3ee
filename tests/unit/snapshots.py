"""Snapshots of a host that does what a test says, and a feed that plays them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from pytracecon.connections import Connection
from pytracecon.events import Accept, Established, Event, Failed
from pytracecon.snapshots import Snapshot
from pytracecon.top.feed import Update

SECOND = 1_000_000_000
BEGAN = 1_700_000_000 * SECOND


def conn(number: int) -> str:
    return f"{number:016x}"


def connection(number: int, **more: Any) -> Connection:
    """An open one of curl's, to 10.0.0.7:443, that nothing is sent over."""
    known: dict[str, Any] = {
        "conn": conn(number),
        "proto": "tcp",
        "direction": "out",
        "time_ns": BEGAN,
        "outcome": "open",
        "local_addr": "10.0.0.5",
        "local_port": 40_000 + number,
        "remote_addr": "10.0.0.7",
        "remote_port": 443,
        "pid": 100,
        "comm": "curl",
        "state": "ESTABLISHED",
        "tx_bytes": 0,
        "rx_bytes": 0,
        "retransmits": 0,
        "rtt_ns": 1_000_000,
        "tx_rate": 0.0,
        "rx_rate": 0.0,
    }
    return Connection(**(known | more))


def snapshot(*connections: Connection, at: float = 1, elapsed: float | None = 1, left_out: int = 0) -> Snapshot:
    """`at` so many seconds from the beginning, `elapsed` since the one before."""
    return Snapshot(
        list(connections),
        time_ns=BEGAN + round(at * SECOND),
        elapsed_ns=None if elapsed is None else round(elapsed * SECOND),
        left_out=left_out,
    )


def _event(kind: type[Any], number: int, **more: Any) -> Any:
    known = {
        "time_ns": BEGAN + SECOND // 2,
        "conn": conn(number),
        "proto": "tcp",
        "direction": "out",
        "local_addr": "10.0.0.5",
        "local_port": 40_000 + number,
        "remote_addr": "10.0.0.7",
        "remote_port": 443,
        "pid": 100,
        "comm": "curl",
    }
    return kind(**(known | more))


def established(number: int, **more: Any) -> Established:
    made: Established = _event(Established, number, **({"latency_ns": 2_000_000} | more))
    return made


def accepted(number: int, **more: Any) -> Accept:
    made: Accept = _event(Accept, number, **({"direction": "in", "pid": 200, "comm": "nginx"} | more))
    return made


def failed(number: int, **more: Any) -> Failed:
    made: Failed = _event(Failed, number, **({"error": "ECONNREFUSED", "reason": "refused"} | more))
    return made


class Played:
    """A feed of what was recorded: all of it at once, and then whatever the test adds."""

    def __init__(self, *updates: tuple[Snapshot, Iterable[Event]]) -> None:
        self._updates = [Update(taken, list(events)) for taken, events in updates]
        self._deliver: Callable[[Update], None] | None = None
        self.fail: Callable[[BaseException], None]
        self.stopped = False

    def start(self, deliver: Callable[[Update], None], failed: Callable[[BaseException], None]) -> None:
        self._deliver, self.fail = deliver, failed
        for update in self._updates:
            deliver(update)

    def add(self, taken: Snapshot, *events: Event) -> None:
        assert self._deliver
        self._deliver(Update(taken, list(events)))

    def stop(self) -> None:
        self.stopped = True
