"""Events counted by the values of their keys: how many, how many bytes, how long they took. Knows no kernel, no clock.

Memory is bounded. Groups beyond `most` are counted together, as others. A group's latencies are counted in buckets,
of which 32 share each power of two: a percentile is at most 1.6 % off, and the smallest and the largest are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from pytracecon.events import Close, Event, Flow

__all__ = ["MEASURES", "MOST_GROUPS", "PERCENTILES", "Count", "Group", "Groups", "Latencies", "Value"]

MOST_GROUPS = 10_000
PERCENTILES = {"p50": 50, "p90": 90, "p99": 99}

_SHARE = 5  # 32 buckets for each power of two
_LARGEST = (1 << 48) - 1  # 78 hours, in the last bucket whatever is longer

Value = Any
"""Of a key: a text, a number, a flag, a tuple of texts; None if it is not known."""


class Latencies:
    """How many took how long: a count for each bucket that is not empty, some 1,400 at most."""

    __slots__ = ("_buckets", "count", "largest", "smallest")

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self.count = 0
        self.smallest: int | None = None
        self.largest: int | None = None

    def add(self, nanoseconds: int) -> None:
        bucket = _bucket(nanoseconds)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1
        self.count += 1
        self._widen(nanoseconds, nanoseconds)

    def merge(self, other: Latencies) -> None:
        for bucket, count in other._buckets.items():
            self._buckets[bucket] = self._buckets.get(bucket, 0) + count
        self.count += other.count
        if other.smallest is not None and other.largest is not None:
            self._widen(other.smallest, other.largest)

    def percentile(self, percent: int) -> int | None:
        """What `percent` in a hundred, or more, do not exceed (the nearest rank): the middle of its bucket."""
        if self.smallest is None or self.largest is None:
            return None
        left = -(-percent * self.count // 100)
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                return min(max(_middle(bucket), self.smallest), self.largest)
        return self.largest

    def _widen(self, smallest: int, largest: int) -> None:
        if self.smallest is None or smallest < self.smallest:
            self.smallest = smallest
        if self.largest is None or largest > self.largest:
            self.largest = largest


def _bucket(value: int) -> int:
    """Each value below 64 has its own; above, a bucket has the value's size and its five bits behind the first."""
    value = min(max(value, 0), _LARGEST)
    shift = max(0, value.bit_length() - 1 - _SHARE)
    return (shift << _SHARE) + (value >> shift)


def _middle(bucket: int) -> int:
    shift = max(0, (bucket >> _SHARE) - 1)
    low = (bucket - (shift << _SHARE)) << shift
    return low + ((1 << shift) - 1) // 2


@dataclass(slots=True)
class Group:
    """What the events of a group come to. Bytes are those of `close`, which counts a connection's; None without one."""

    events: int = 0
    tx_bytes: int | None = None
    rx_bytes: int | None = None
    latencies: Latencies = field(default_factory=Latencies)

    def add(self, event: Event) -> None:
        self.events += 1
        if isinstance(event, (Close, Flow)):
            self.tx_bytes = _sum(self.tx_bytes, event.tx_bytes)
            self.rx_bytes = _sum(self.rx_bytes, event.rx_bytes)
        latency = getattr(event, "latency_ns", None)
        if latency is not None:
            self.latencies.add(latency)

    def merge(self, other: Group) -> None:
        self.events += other.events
        self.tx_bytes = _sum(self.tx_bytes, other.tx_bytes)
        self.rx_bytes = _sum(self.rx_bytes, other.rx_bytes)
        self.latencies.merge(other.latencies)


def _sum(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else one + other


@dataclass(slots=True)
class Count(Event):
    """A group as it stands at `time_ns`. `kind` is `group`, `others` (beyond the top, or the most), or `none`."""

    event: ClassVar[str] = "count"

    from_ns: int
    kind: str
    by: dict[str, Value]
    """The keys, and what they are in this group: nothing known in `others` and `none`."""
    events: int = 0
    groups: int | None = None
    """How many the others are, where that is known."""
    tx_bytes: int | None = None
    rx_bytes: int | None = None
    latencies: int = 0
    """Events that have a latency."""
    p50: int | None = None
    p90: int | None = None
    p99: int | None = None
    max: int | None = None


MEASURES = ("events", "tx_bytes", "rx_bytes", "p50", "p90", "p99", "max")


class Groups:
    """Events by the values of `keys`, which `value` takes out of an event."""

    def __init__(self, keys: Sequence[str], value: Callable[[Event, str], Value], *, most: int = MOST_GROUPS) -> None:
        self._keys = tuple(keys)
        self._value = value
        self._most = most
        self._groups: dict[tuple[Value, ...], Group] = {}
        self._others = Group()

    def add(self, event: Event) -> None:
        name = tuple([_hashable(self._value(event, key)) for key in self._keys])
        group = self._groups.get(name)
        if group is None:
            if len(self._groups) < self._most:
                group = self._groups[name] = Group()
            else:
                group = self._others
        group.add(event)

    def clear(self) -> None:
        self._groups.clear()
        self._others = Group()

    def counts(self, from_ns: int, until_ns: int, *, sort: str, top: int | None) -> list[Count]:
        """The groups, sorted: by a measure the most first, by a key from the least. Behind `top` all are others."""
        ordered = self._ordered(sort)
        shown = ordered if top is None else ordered[:top]
        counts = [
            _count(group, from_ns, until_ns, "group", dict(zip(self._keys, name, strict=True))) for name, group in shown
        ]
        others = Group()
        others.merge(self._others)
        for _, group in ordered[len(shown) :]:
            others.merge(group)
        if others.events:
            known = None if self._others.events else len(ordered) - len(shown)
            counts.append(_count(others, from_ns, until_ns, "others", dict.fromkeys(self._keys), known))
        return counts or [Count(until_ns, from_ns, "none", dict.fromkeys(self._keys))]

    def _ordered(self, sort: str) -> list[tuple[tuple[Value, ...], Group]]:
        # Groups that are equal in what counts stand in the order of their keys: the same events, the same rows.
        ordered = sorted(self._groups.items(), key=lambda item: [_rank(value) for value in item[0]])
        if sort in self._keys:
            at = self._keys.index(sort)
            ordered.sort(key=lambda item: _rank(item[0][at]))
        else:
            ordered.sort(key=lambda item: _size(item[1], sort), reverse=True)
        return ordered


def _size(group: Group, measure: str) -> int:
    """What is not known comes behind everything that is."""
    if measure in PERCENTILES:
        found = group.latencies.percentile(PERCENTILES[measure])
    elif measure == "max":
        found = group.latencies.largest
    else:
        found = getattr(group, measure)
    return -1 if found is None else found


def _rank(value: Value) -> tuple[Any, ...]:
    """Values of any kind have an order: numbers, texts, several, unknown."""
    if value is None:
        return (3,)
    if isinstance(value, tuple):
        return 2, value
    return (0, value) if isinstance(value, int) else (1, value)


def _hashable(value: Value) -> Value:
    return tuple(value) if isinstance(value, list) else value


def _count(
    group: Group, from_ns: int, until_ns: int, kind: str, by: dict[str, Value], groups: int | None = None
) -> Count:
    percentiles = {name: group.latencies.percentile(percent) for name, percent in PERCENTILES.items()}
    return Count(
        until_ns,
        from_ns,
        kind,
        by,
        events=group.events,
        groups=groups,
        tx_bytes=group.tx_bytes,
        rx_bytes=group.rx_bytes,
        latencies=group.latencies.count,
        **percentiles,
        max=group.latencies.largest,
    )
