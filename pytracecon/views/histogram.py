"""Latencies by powers of two, as bcc prints them, told at the end: all together, or for each host."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from pytracecon.events import ConnectionEvent, Established, Event, Failed
from pytracecon.outputs import Piece
from pytracecon.views import trace, wording
from pytracecon.views.wording import UNKNOWN

__all__ = ["Histogram", "Histograms", "host"]

_STARS = 40
_LONGEST_NAME = 255
_MOST_KEYS = 4096
_OTHERS = "*"


class Histogram:
    """Counts of whole numbers: in the first slot 0 and 1, in the next 2 and 3, then 4 to 7, and so on."""

    def __init__(self) -> None:
        self._slots: Counter[int] = Counter()

    @property
    def total(self) -> int:
        return self._slots.total()

    def add(self, value: int) -> None:
        self._slots[max(0, value.bit_length() - 1)] += 1

    def text(self, unit: str) -> str:
        highest = max(self._slots, default=-1)
        most = max(self._slots.values(), default=0)
        narrow = highest <= 31
        edge, stars = (10, _STARS) if narrow else (20, _STARS // 2)
        lines = [f"{'':<{5 if narrow else 15}}{unit:<{20 if narrow else 30}}: count     distribution\n"]
        for slot in range(highest + 1):
            low, high = (1 << slot) if slot else 0, (2 << slot) - 1
            count = self._slots[slot]
            bar = "*" * (stars * count // most)
            lines.append(f"{low:>{edge}} -> {high:<{edge}} : {count:<8} |{bar:<{stars}}|\n")
        return "".join(lines)


class Histograms:
    """An output that tells its histograms at the end, those of most latencies first.

    `key` says which one an event belongs to (None: there is one). A key beyond the first 4,096 is one of the
    others, `*`.
    """

    def __init__(
        self, terminal: Callable[[], int | None], *, name: str = "", key: Callable[[ConnectionEvent], str] | None = None
    ) -> None:
        self._terminal = terminal
        self._name = name
        self._key = key
        self._by_key: dict[str, Histogram] = {}
        self._lost: list[str] = []
        self._without = 0

    @property
    def untold(self) -> int:
        return sum(each.total for each in self._by_key.values()) + len(self._lost) + self._without

    def header(self) -> bytes:
        return b""

    def render(self, events: Iterable[Event]) -> list[Piece]:
        for event in events:
            if isinstance(event, (Established, Failed)):
                self._add(event)
            else:
                self._lost.append(trace.detail(event))
        return []

    def _add(self, event: Established | Failed) -> None:
        if event.latency_ns is None:
            self._without += 1
            return
        key = "" if self._key is None else self._key(event)
        if key not in self._by_key and len(self._by_key) >= _MOST_KEYS:
            key = _OTHERS
        self._by_key.setdefault(key, Histogram()).add(event.latency_ns // 1000)

    def sum_up(self, *, last: bool) -> list[Piece]:
        """Behind the ^C of a terminal, on a line of its own."""
        if not last:
            return []
        told = [("" if self._terminal() is None else "\n", 0)]
        for key, histogram in sorted(self._by_key.items(), key=lambda item: -item[1].total):
            title = f"\n{self._name} = {key}\n" if self._key is not None else ""
            told.append((title + histogram.text("usecs"), histogram.total))
        if self._without:
            told.append((f"{self._without} without a latency\n", self._without))
        told += [(f"{lost}\n", 1) for lost in self._lost]
        self._by_key.clear()
        self._lost.clear()
        self._without = 0
        return [(text.encode(), count) for text, count in told]


def host(event: ConnectionEvent) -> str:
    """The remote's name, or its address where it has none."""
    return wording.host(event.host, _LONGEST_NAME) if event.host is not None else event.remote_addr or UNKNOWN
