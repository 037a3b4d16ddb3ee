"""The columns of `top`: what is sorted by, what stands in a cell, and which of them fit a terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from pytracecon.clock import SECOND
from pytracecon.connections import Connection
from pytracecon.events import ConnectionEvent
from pytracecon.text import safe, width
from pytracecon.top.rows import HISTORY, Group, Item, Picture, key_of, waits
from pytracecon.views.wording import UNKNOWN, endpoint

__all__ = ["COLUMNS", "DEFAULT_SORT", "SORTS", "Column", "Glyphs", "count", "layout", "quantity", "remote", "sparkline"]


_MOST, _DISPENSABLE = 99, 46
"""Ranks of columns: of that which says what a row is, and of those that are left out before it is cut."""


@dataclass(frozen=True, slots=True)
class Glyphs:
    """What a terminal can show: `bars` from least to most, behind a blank for nothing."""

    bars: str = "▁▂▃▄▅▆▇█"
    out: str = "→"
    into: str = "←"
    path: str = "└"
    down: str = "▼"
    up: str = "▲"
    cut: str = "…"

    @classmethod
    def plain(cls) -> Glyphs:
        """ASCII alone, for terminals whose fonts have no more."""
        return cls(bars="_.-=+*#@", out=">", into="<", path="`", down="v", up="^", cut="~")


@dataclass(frozen=True, slots=True)
class Look:
    """What a cell may need besides its row."""

    picture: Picture
    glyphs: Glyphs


@dataclass(frozen=True, slots=True)
class Column:
    """At least `width` wide; where there is room first `good`, then `widest`. Where there is none, the least `rank`
    goes first.

    `key` is what it is called to sort by, `value` what is compared; there are columns that nothing is sorted by.
    """

    key: str
    title: str
    width: int
    good: int
    widest: int
    rank: int
    text: Callable[[Any, Look], str]
    value: Callable[[Any], Any] | None = None
    right: bool = True
    ascending: bool = False
    keep: int | None = None
    """Of text that is too long so many characters and then the end is shown: that tells whose a name is."""
    history: int | None = None
    """It is a picture of the rates out (0) or in (1)."""

    def cell(self, item: Item, look: Look, wide: int) -> str:
        if self.history is not None:
            rates = [rates[self.history] for rates in look.picture.rates(key_of(item))]
            return sparkline(rates, wide, look.glyphs.bars)
        return fit(self.text(item, look), wide, look.glyphs.cut, right=self.right, keep=self.keep)


def fit(text: str, wide: int, cut: str, *, right: bool = False, keep: int | None = None) -> str:
    """`text` in exactly `wide` columns. If it is too long it loses its end, or what is behind its first `keep`."""
    if width(text) > wide:
        first, rest = ("", text) if keep is None else (text[:keep], text[keep:])
        room = wide - width(first) - 1
        while rest and width(rest) > room:
            rest = rest[:-1] if keep is None else rest[1:]
        text = (rest + cut if keep is None else first + cut + rest) if room >= 0 else ""
    room = wide - width(text)
    return " " * room + text if right else text + " " * room


def layout(columns: Sequence[Column], wide: int) -> list[tuple[Column, int]]:
    """Those that fit, each with the width that it gets. What can be done without leaves room for what matters most."""
    chosen = list(columns)
    most = max(column.good - column.width for column in chosen if column.rank == _MOST)
    while len(chosen) > 1:
        least = min(chosen, key=lambda column: column.rank)
        needed = sum(column.width for column in chosen) + len(chosen) - 1
        if needed + (most if least.rank < _DISPENSABLE else 0) <= wide:
            break
        chosen.remove(least)
    widths = [column.width for column in chosen]
    room = wide - sum(widths) - len(chosen) + 1
    if room < 0:
        return [(chosen[0], wide)]
    order = sorted(range(len(chosen)), key=lambda at: -chosen[at].rank)
    for wanted in ([column.good for column in chosen], [column.widest for column in chosen]):
        for at in order:
            more = max(0, min(room, wanted[at] - widths[at]))
            widths[at] += more
            room -= more
    return list(zip(chosen, widths, strict=True))


def quantity(count: float | None) -> str:
    """At most five columns, with three significant digits in powers of a thousand."""
    if count is None:
        return ""
    if count < 999.5:
        return f"{count:.0f}"
    units = "kMGTPE"
    value = count / 1000
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units = units[1:]
    decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
    return f"{value:.{decimals}f}{units[0]}"


def count(number: int | None) -> str:
    """At most four columns: exact as far as that goes."""
    if number is None or number < 10_000:
        return "" if number is None else str(number)
    units = "kMGTPE"
    value = number / 1000
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units = units[1:]
    return f"{value:.1f}{units[0]}" if value < 9.95 else f"{value:.0f}{units[0]}"


def sparkline(values: Sequence[float], wide: int, bars: str) -> str:
    """The latest on the right; the largest of those that are shown is the highest, and nothing is a blank."""
    shown = values[-wide:] if wide else ()
    most = max(shown, default=0.0)
    marks = [bars[min(int(value / most * len(bars)), len(bars) - 1)] if value > 0 else " " for value in shown]
    return "".join(marks).rjust(wide)


def _frequency(number: float | None) -> str:
    if number is None or number == 0:
        return "" if number is None else "0"
    return f"{number:.1f}" if number < 9.95 else count(round(number))


def _milliseconds(nanoseconds: int | None) -> str:
    if nanoseconds is None:
        return ""
    value = nanoseconds / 1e6
    return f"{value:.3f}" if value < 0.9995 else f"{value:.2f}" if value < 99.995 else quantity(value)


def _age(nanoseconds: int | None) -> str:
    if nanoseconds is None:
        return ""
    seconds = nanoseconds // SECOND
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


_STATES = {
    "ESTABLISHED": "estab",
    "SYN_SENT": "syn-sent",
    "SYN_RECV": "syn-recv",
    "FIN_WAIT1": "fin-w1",
    "FIN_WAIT2": "fin-w2",
    "TIME_WAIT": "time-w",
    "CLOSE_WAIT": "close-w",
    "LAST_ACK": "last-ack",
    "NEW_SYN_RECV": "syn-recv",
}


def _state(item: Connection) -> str:
    if item.outcome in ("closed", "failed"):
        return item.outcome
    if item.outcome == "listening":
        return "listen"
    if item.proto == "udp":
        return safe(item.app or "udp")
    return item.outcome if item.state is None else _STATES.get(item.state, item.state.lower())


def remote(item: Connection | ConnectionEvent) -> str:
    """Its name or address, and its port."""
    if item.host is None:
        return endpoint(item.remote_addr, item.remote_port)
    return f"{safe(item.host)}:{UNKNOWN if item.remote_port is None else item.remote_port}"


def _towards(item: Connection, look: Look) -> str:
    if waits(item):
        waiting = "" if item.backlog is None else f" ({item.backlog}/{item.backlog_limit})"
        return f"* {endpoint(item.local_addr, item.local_port)}{waiting}"
    arrow = look.glyphs.into if item.direction == "in" else look.glyphs.out
    said = remote(item)
    if item.subflow_of is not None:
        said = f"{endpoint(item.local_addr, item.local_port)} {arrow} {said}"
        return f"{look.glyphs.path} {said}"
    return f"{arrow} {said}"


def _comm(item: Connection, look: Look) -> str:
    return f"{look.glyphs.path} path" if item.subflow_of is not None else _name(item.comm)


def _name(name: str | None) -> str:
    return UNKNOWN if name is None else safe(name)


def _lower(name: str) -> Callable[[Any], str | None]:
    get = attrgetter(name)

    def value(item: Item) -> str | None:
        found = get(item)
        return None if found is None else str(found).lower()

    return value


def _number(name: str) -> tuple[Callable[[Any, Look], str], Callable[[Any], Any]]:
    get = attrgetter(name)
    return lambda item, _: quantity(get(item)), get


def _busiest(group: Group, _: Look) -> str:
    """Of a process whom it talks to, of a host who does."""
    if group.busiest is None or (group.busiest.remote_addr is None and group.busiest.host is None):
        return ""
    return remote(group.busiest) if group.key[0] == "process" else _name(group.busiest.comm)


def _pid(item: Item, _: Look) -> str:
    return UNKNOWN if item.pid is None else str(item.pid)


_TX_RATE = Column("tx_rate", "OUT/s", 5, 5, 5, 98, *_number("tx_rate"))
_RX_RATE = Column("rx_rate", "IN/s", 5, 5, 5, 97, *_number("rx_rate"))
_TX_SPARK = Column("", "", 5, 10, HISTORY, 60, lambda *_: "", history=0)
_RX_SPARK = Column("", "", 5, 10, HISTORY, 59, lambda *_: "", history=1)
_TX_BYTES = Column("tx_bytes", "OUT", 5, 5, 5, 50, *_number("tx_bytes"))
_RX_BYTES = Column("rx_bytes", "IN", 5, 5, 5, 49, *_number("rx_bytes"))
_RTT = Column("rtt", "RTTms", 5, 5, 5, 55, lambda item, _: _milliseconds(item.rtt_ns), attrgetter("rtt_ns"))
_RESENT = Column("retransmits", "RTX", 4, 4, 4, 45, lambda item, _: count(item.retransmits), attrgetter("retransmits"))
_NEW = Column("new", "NEW", 4, 4, 4, 54, lambda item, _: _frequency(item.new), attrgetter("new"))
_FAILED = Column("failed", "FAIL", 4, 4, 4, 53, lambda item, _: _frequency(item.failed), attrgetter("failed"))
_CONNECTIONS = Column(
    "connections", "CONN", 4, 4, 4, 56, lambda item, _: count(item.connections), attrgetter("connections")
)
_PID = Column("pid", "PID", 7, 7, 7, 52, _pid, attrgetter("pid"), ascending=True)
_TRAFFIC = (_TX_RATE, _TX_SPARK, _RX_RATE, _RX_SPARK, _TX_BYTES, _RX_BYTES, _RTT, _RESENT)

COLUMNS: dict[str, tuple[Column, ...]] = {
    "process": (
        _PID,
        Column(
            "comm",
            "PROCESS",
            8,
            10,
            16,
            99,
            lambda item, _: _name(item.name),
            _lower("name"),
            right=False,
            ascending=True,
        ),
        _CONNECTIONS,
        *_TRAFFIC,
        _NEW,
        _FAILED,
        Column("", "TALKS TO", 16, 32, 48, 30, _busiest, right=False, keep=0),
    ),
    "connection": (
        Column("comm", "PROCESS", 8, 10, 16, 96, _comm, _lower("comm"), right=False, ascending=True),
        Column("pid", "PID", 7, 7, 7, 40, _pid, attrgetter("pid"), ascending=True),
        Column(
            "local",
            "LOCAL",
            15,
            21,
            47,
            25,
            lambda item, _: endpoint(item.local_addr, item.local_port),
            lambda item: None if item.local_addr is None else (item.local_addr, item.local_port or 0),
            right=False,
            ascending=True,
        ),
        Column(
            "remote",
            "REMOTE",
            8,
            20,
            50,
            99,
            _towards,
            lambda item: None if item.remote_addr is None else (remote(item).lower(), item.local_port or 0),
            right=False,
            ascending=True,
            keep=2,
        ),
        Column("state", "STATE", 8, 8, 8, 58, lambda item, _: _state(item), _state, right=False, ascending=True),
        *_TRAFFIC,
        Column("age", "AGE", 4, 4, 4, 35, lambda item, _: _age(item.age_ns), attrgetter("age_ns")),
    ),
    "host": (
        Column(
            "host",
            "HOST",
            8,
            18,
            48,
            99,
            lambda item, _: _name(item.name),
            _lower("name"),
            right=False,
            ascending=True,
            keep=0,
        ),
        _CONNECTIONS,
        *_TRAFFIC,
        _NEW,
        _FAILED,
        Column("", "PROCESS", 10, 10, 16, 30, _busiest, right=False),
    ),
}
"""By what a row is, in their order."""

DEFAULT_SORT = "rate"

_BOTH = lambda item: (item.tx_rate or 0.0) + (item.rx_rate or 0.0)  # noqa: E731 - a value like those of the columns

SORTS: dict[str, dict[str, tuple[Callable[[Any], Any], bool]]] = {
    by: {DEFAULT_SORT: (_BOTH, False)}
    | {column.key: (column.value, column.ascending) for column in columns if column.value is not None}
    for by, columns in COLUMNS.items()
}
"""By what a row is, and by the names to sort by: what is compared, and whether the least comes first."""
