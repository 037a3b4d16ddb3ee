"""What of a picture is looked at, in which order, and what a key changes in that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pytracecon.connections import Connection
from pytracecon.top.columns import DEFAULT_SORT, SORTS
from pytracecon.top.rows import BY, Group, Item, Key, Picture, key_of, waits
from pytracecon.views.wording import endpoint

__all__ = ["Page", "View"]

_LONGEST_FILTER = 200


@dataclass(slots=True)
class Page:
    """Text in place of the rows: `lines` makes it for a width, of how things stand now."""

    title: str
    lines: Callable[[int], list[str]]
    words: str = ""
    """For the filter: those that choose the connections that it is about."""
    peer: str | None = None
    """The other end of the connection that it is about, where that is on this host."""
    offset: int = 0


@dataclass(slots=True)
class View:
    by: str = "process"
    sorts: dict[str, str] = field(default_factory=dict)
    """By what a row is: the column that it is sorted by, if not the usual one."""
    reversed: dict[str, bool] = field(default_factory=dict)
    words: str = ""
    typing: bool = False
    listeners: bool = False
    frozen: bool = False
    picture: Picture | None = None
    page: Page | None = None
    selected: Key = None
    """None: the first row, whichever that is."""
    offset: int = 0
    _latest: Picture | None = None
    _rows: list[Item] | None = None
    _place: int = 0
    _lower: list[str] = field(default_factory=list)

    def take(self, picture: Picture) -> None:
        self._latest = picture
        if not self.frozen:
            self._show(picture)

    def _show(self, picture: Picture) -> None:
        self.picture = picture
        self._rows = None

    @property
    def sort(self) -> str:
        return self.sorts.get(self.by, DEFAULT_SORT)

    @property
    def is_reversed(self) -> bool:
        return self.reversed.get(self.by, False)

    @property
    def least_first(self) -> bool:
        return SORTS[self.by][self.sort][1] != self.is_reversed

    @property
    def rows(self) -> list[Item]:
        """Those that pass the filter, in their order; the paths of a connection below it."""
        if self._rows is None:
            self._rows = [] if self.picture is None else self._chosen(self.picture)
        return self._rows

    def _chosen(self, picture: Picture) -> list[Item]:
        if self.by == "connection":
            return self._connections(picture)
        groups = picture.processes if self.by == "process" else picture.hosts
        if self.by == "process" and not self.listeners:
            groups = [each for each in groups if each.connections or not each.listeners or each.failed or each.new]
        return list(self._sorted([each for each in groups if self._passes(each)]))

    def _connections(self, picture: Picture) -> list[Item]:
        found = picture.connections
        if not self.listeners:
            found = [each for each in found if not waits(each)]
        if self.words:
            paths = picture.paths
            found = [each for each in found if self._passes(each) or any(map(self._passes, paths.get(each.conn, ())))]
        ordered = self._sorted(found)
        if not picture.paths:
            return ordered
        return [row for each in ordered for row in (each, *picture.paths.get(str(key_of(each)), ()))]

    def _sorted(self, items: list[Item] | list[Connection] | list[Group]) -> list[Item]:
        """What has no value comes last, whichever way it goes; equals keep their order."""
        values = list(map(SORTS[self.by][self.sort][0], items))
        known = [at for at, value in enumerate(values) if value is not None]
        known.sort(key=values.__getitem__, reverse=not self.least_first)
        return [items[at] for at in known] + [items[at] for at, value in enumerate(values) if value is None]

    def _passes(self, item: Item) -> bool:
        """All words are somewhere in it, in any case."""
        if not self._lower:
            return True
        text = _text(item)
        return all(word in text for word in self._lower)

    @property
    def position(self) -> int:
        """Of the selected row; if it is not there any more, of what stands in its place."""
        if self.selected is None:
            return 0
        found = next((at for at, row in enumerate(self.rows) if key_of(row) == self.selected), None)
        self._place = max(0, min(self._place, len(self.rows) - 1)) if found is None else found
        return self._place

    def scroll(self, height: int) -> int:
        """The first row that is shown, so that the selected one is among `height`."""
        if height <= 0:
            return 0
        at = self.position
        self.offset = min(max(self.offset, at - height + 1), at, max(0, len(self.rows) - height))
        return self.offset

    def move(self, by: int, height: int) -> None:
        """The selection, or the text of a page."""
        if self.page is not None:
            self.page.offset = max(0, self.page.offset + by)
        elif self.rows:
            at = min(max(self.position + by, 0), len(self.rows) - 1)
            self.selected = key_of(self.rows[at]) if at else None
            self.scroll(height)

    def item(self) -> Item | None:
        return self.rows[self.position] if self.rows else None

    def show_by(self, by: str) -> None:
        if by != self.by:
            self.by, self.selected, self.offset, self._rows = by, None, 0, None

    def next_by(self, step: int = 1) -> None:
        self.show_by(BY[(BY.index(self.by) + step) % len(BY)])

    def sort_by_next(self, step: int) -> None:
        names = list(SORTS[self.by])
        self.sorts[self.by] = names[(names.index(self.sort) + step) % len(names)]
        self._rows = None

    def reverse(self) -> None:
        self.reversed[self.by] = not self.is_reversed
        self._rows = None

    def freeze(self) -> None:
        """Or go on, with how things stand now."""
        self.frozen = not self.frozen
        if not self.frozen and self._latest is not None:
            self._show(self._latest)

    def show_listeners(self) -> None:
        self.listeners = not self.listeners
        self._rows = None

    def filter(self, words: str) -> None:
        printable = "".join(character for character in words if character.isprintable())
        self.words, self._rows = printable[:_LONGEST_FILTER], None
        self._lower = self.words.lower().split()


def _text(item: Item) -> str:
    """What the filter looks at."""
    if isinstance(item, Connection):
        ends = f"{endpoint(item.local_addr, item.local_port)} {endpoint(item.remote_addr, item.remote_port)}"
        more = f"{item.comm} {item.pid} {item.host} {item.proto} {item.state} {item.outcome} {item.app} {item.conn}"
        return f"{ends} {more} {_of_process(item)}".lower()
    busiest = item.busiest
    more = "" if busiest is None else f"{busiest.host} {busiest.remote_addr} {busiest.comm} {_of_process(busiest)}"
    return f"{item.name} {item.pid} {more}".lower()


def _of_process(item: object) -> str:
    process = getattr(item, "process", None)
    return "" if process is None else f"{process.exe} {process.unit} {process.container} {process.container_name}"
