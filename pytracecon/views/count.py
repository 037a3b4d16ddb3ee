"""Groups of events, one a row, the most first."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial

from pytracecon.events import Event
from pytracecon.grouping import Count
from pytracecon.outputs.table import Cells, Column, Table
from pytracecon.views import trace, wording
from pytracecon.views.wording import duration, size, time_of_day

__all__ = ["message", "row", "table"]

_LONGEST = 48
_WIDTHS = {"comm": 10, "pid": 7, "host": 24, "remote_addr": 15, "local_addr": 15, "event": 11, "name": 24}

_EVENTS = Column("  EVENTS", 8, 8)
_BYTES = (Column("      TX", 8, 8), Column("      RX", 8, 8))
_LATENCIES = tuple(Column(f"{name:>9}", 9, 12) for name in ("P50", "P90", "P99", "MAX"))

_WITH_LATENCY = frozenset({"established", "failed", "lookup"})


def table(
    keys: Sequence[str], events: Collection[str], terminal: Callable[[], int | None], *, every: bool, utc: bool
) -> Table:
    """Bytes and latencies have columns if there are such `events`; with `every` interval told, a row has its time."""
    bytes_too, latencies_too = "close" in events, not _WITH_LATENCY.isdisjoint(events)
    columns = [Column("TIME", 8, 8)] if every else []
    columns += [Column(key.upper(), max(len(key), _WIDTHS.get(key, 0)), max(len(key), _LONGEST)) for key in keys]
    columns += [_EVENTS, *(_BYTES if bytes_too else ()), *(_LATENCIES if latencies_too else ())]
    make = partial(row, keys=keys, bytes_too=bytes_too, latencies_too=latencies_too, every=every, utc=utc)
    return Table(columns, make, terminal=terminal, hang=_EVENTS.name)


def row(
    event: Event, *, keys: Sequence[str], bytes_too: bool, latencies_too: bool, every: bool, utc: bool = False
) -> Cells:
    """The cells of a row. What is not known is `?` as a key, and empty as what is counted."""
    time = [time_of_day(event.time_ns, utc=utc, decimals=0)] if every else []
    if not isinstance(event, Count):
        columns = len(keys) + 1 + 2 * bytes_too + 4 * latencies_too
        return [*time, trace.detail(event), *[None] * (columns - 1)]
    cells = [str(event.events).rjust(_EVENTS.width)]
    if bytes_too:
        cells += [_known(size, count).rjust(_BYTES[0].width) for count in (event.tx_bytes, event.rx_bytes)]
    if latencies_too:
        latencies = (event.p50, event.p90, event.p99, event.max)
        cells += [_known(duration, latency).rjust(_LATENCIES[0].width) for latency in latencies]
    return [*time, *_name(event, keys), *cells]


def message(count: Count) -> str:
    """A row in words: `comm curl, remote_port 443: 12 events, 1056 B out, 4801 B in, p99 12.31 ms`."""
    if count.kind == "group":
        said = ", ".join(f"{key} {wording.value(key, value)}" for key, value in count.by.items())
    else:
        said = _stead(count)
    said += f": {count.events} event{'' if count.events == 1 else 's'}"
    for number, word in ((count.tx_bytes, "out"), (count.rx_bytes, "in")):
        said += "" if number is None else f", {size(number)} {word}"
    for word, latency in (("p50", count.p50), ("p90", count.p90), ("p99", count.p99), ("max", count.max)):
        said += "" if latency is None else f", {word} {duration(latency)}"
    return said


def _name(count: Count, keys: Sequence[str]) -> list[str | None]:
    if count.kind == "group":
        return [wording.value(key, count.by[key]) for key in keys]
    return [_stead(count), *[None] * (len(keys) - 1)]


def _stead(count: Count) -> str:
    """What stands where a group has its keys."""
    if count.kind == "none":
        return "no events"
    if count.groups is None:
        return "others"
    return f"{count.groups} other{'' if count.groups == 1 else 's'}"


def _known(say: Callable[[int], str], number: int | None) -> str:
    return "" if number is None else say(number)
