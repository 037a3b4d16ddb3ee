"""What a command did on the network, from its events: where it connected, how that went, what it should not have."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pytracecon.connections import Connection, Joined
from pytracecon.events import Event, Lookup, Lost

if TYPE_CHECKING:
    from pytracecon.guard import Guard

__all__ = ["Accepted", "Destination", "Reached", "Summary"]

_MOST = 10_000
_MOST_ADDRESSES = 64


@dataclass(slots=True, kw_only=True)
class Totals:
    """Of connections that belong together. Bytes are those of the closed ones: of others they are not known."""

    connections: int = 0
    still_open: int = 0
    tx_bytes: int = 0
    rx_bytes: int = 0

    def count(self, connection: Connection) -> None:
        self.connections += 1
        self.still_open += not connection.over
        self.tx_bytes += connection.tx_bytes or 0
        self.rx_bytes += connection.rx_bytes or 0


@dataclass(slots=True, kw_only=True)
class Destination(Totals):
    """A name and a port, or where there is no name an address and a port."""

    host: str | None
    host_source: str | None
    port: int | None
    addresses: dict[str, None] = field(default_factory=dict)
    failures: Counter[str] = field(default_factory=Counter)
    latencies: array[int] = field(default_factory=lambda: array("q"))

    @property
    def failed(self) -> int:
        return self.failures.total()

    def count(self, connection: Connection) -> None:
        if connection.outcome == "failed":
            self.failures[connection.reason or connection.error or "unknown"] += 1
        else:
            Totals.count(self, connection)
            if connection.latency_ns is not None:
                self.latencies.append(connection.latency_ns)
        if connection.remote_addr is not None and len(self.addresses) < _MOST_ADDRESSES:
            self.addresses[connection.remote_addr] = None

    def latency(self) -> tuple[int, int, int] | None:
        """The least, the median (of an even number the lower one) and the greatest, in nanoseconds."""
        if not self.latencies:
            return None
        ordered = sorted(self.latencies)
        return ordered[0], ordered[(len(ordered) - 1) // 2], ordered[-1]


@dataclass(slots=True, kw_only=True)
class Accepted(Totals):
    """Connections that others made to one of its ports."""

    port: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """What a guard does not allow: by which process, and where to."""

    pid: int | None
    comm: str | None
    host: str | None
    address: str | None
    port: int | None

    @classmethod
    def by(cls, connection: Connection) -> Reached:
        return cls(
            pid=connection.pid,
            comm=connection.comm,
            host=connection.host,
            address=connection.remote_addr,
            port=connection.remote_port,
        )


class Summary:
    """What is known of the events that it was given; after `finish()` that is all.

    Bounded: of more than 10,000 destinations the later ones are `others`, and only counted.
    """

    def __init__(self, guard: Guard | None = None) -> None:
        self.guard = guard
        self.destinations: dict[tuple[str | None, int | None], Destination] = {}
        self.others = 0
        self.accepted: dict[int | None, Accepted] = {}
        self.lookups = 0
        self.lookups_failed: Counter[tuple[str | None, str | None]] = Counter()
        self.not_allowed: Counter[Reached] = Counter()
        self.lost: Counter[str] = Counter()
        self._joined = Joined()

    @property
    def unfinished(self) -> list[Connection]:
        """The connections that are not over yet."""
        return list(self._joined.unfinished.values())

    @property
    def connections(self) -> int:
        """That were made: without those that failed and those that others made."""
        return sum(each.connections for each in self.destinations.values())

    @property
    def failed(self) -> int:
        return sum(each.failed for each in self.destinations.values())

    def take(self, event: Event) -> None:
        if isinstance(event, Lost):
            self.lost[event.where] += event.count
        elif isinstance(event, Lookup):
            if event.within is None:
                self._looked_up(event)
        else:
            connection = self._joined.take(event)
            if connection is not None and connection.over:
                self._count(connection)

    def finish(self) -> None:
        """There will be no more events."""
        for connection in self.unfinished:
            self._count(connection)
        self._joined.unfinished.clear()

    def _looked_up(self, event: Lookup) -> None:
        self.lookups += 1
        if event.result != "ok":
            what = event.name, event.result
            if what in self.lookups_failed or len(self.lookups_failed) < _MOST:
                self.lookups_failed[what] += 1

    def _count(self, connection: Connection) -> None:
        if connection.direction == "in":
            port = connection.local_port
            self.accepted.setdefault(port, Accepted(port=port)).count(connection)
            return
        # By now its name is as certain as it will be: the server name of a TLS connection comes with its first data.
        if self.guard is not None and not self.guard.allows(connection):
            reached = Reached.by(connection)
            if reached in self.not_allowed or len(self.not_allowed) < _MOST:
                self.not_allowed[reached] += 1
        key = connection.host or connection.remote_addr, connection.remote_port
        if key not in self.destinations:
            if len(self.destinations) >= _MOST:
                self.others += 1
                return
            self.destinations[key] = Destination(
                host=connection.host, host_source=connection.host_source, port=connection.remote_port
            )
        self.destinations[key].count(connection)

    def document(self) -> dict[str, Any]:
        """For JSON. What is not known, and what there is none of, is left out; counts are always there."""
        return {
            "connections": self.connections,
            "failed": self.failed,
            "lookups": self.lookups,
            "lost": self.lost.total(),
            "destinations": [_destination(each) for each in self.in_order()],
            "accepted": [_known(port=each.port, **_totals(each)) for each in self.accepted.values()],
            "lookups_failed": [
                _known(name=name, result=result, count=count)
                for (name, result), count in self.lookups_failed.most_common()
            ],
            **({} if self.guard is None else {"not_allowed": list(self._violations())}),
            **({"destinations_left_out": self.others} if self.others else {}),
        }

    def in_order(self) -> list[Destination]:
        """Those that were most often connected to, or tried, first."""
        return sorted(self.destinations.values(), key=lambda each: -(each.connections + each.failed))

    def _violations(self) -> Iterator[dict[str, Any]]:
        for each, count in self.not_allowed.items():
            yield _known(
                pid=each.pid, comm=each.comm, host=each.host, address=each.address, port=each.port, count=count
            )


def _destination(each: Destination) -> dict[str, Any]:
    latency = each.latency()
    return _known(
        host=each.host,
        host_source=each.host_source,
        addresses=list(each.addresses),
        port=each.port,
        **_totals(each),
        failed=each.failed,
        failures=dict(each.failures) or None,
        latency_ns=None if latency is None else dict(zip(("min", "median", "max"), latency, strict=True)),
    )


def _totals(each: Totals) -> dict[str, Any]:
    return {
        "connections": each.connections,
        "still_open": each.still_open or None,
        "tx_bytes": each.tx_bytes,
        "rx_bytes": each.rx_bytes,
    }


def _known(**keys: Any) -> dict[str, Any]:
    return {name: value for name, value in keys.items() if value is not None}
