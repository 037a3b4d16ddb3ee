r"""CSV as RFC 4180 has it: a header, then a row for each event, with every column that any of them can have.

What is not known is an empty cell. Foreign text is escaped (`\x1b`, and a backslash as two), and stands behind an
apostrophe if a spreadsheet would take it for a formula; `pytracecon.text.restore_cell` gives the original back.
Of several values each is such a text, its blanks written as `\x20`, and a blank stands between them. Our own words,
numbers and addresses stand as they are.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from operator import itemgetter
from typing import Any

from pytracecon.events import Event
from pytracecon.outputs import Piece
from pytracecon.outputs.keys import all_keys, keys, values
from pytracecon.text import cell

__all__ = ["CsvRows"]


# What others chose. The rest are numbers and words of ours, and addresses.
_FOREIGN = frozenset({"comm", "thread", "container", "container_name", "pod", "unit", "exe", "host", "name"})
_FOREIGN_LISTS = frozenset({"args", "host_candidates"})
_LISTS = frozenset({"addresses", "parents"})
_FLAGS = frozenset({"v4_mapped", "args_cut", "pre_existing", "partial", "fastopen", "sent"})


class CsvRows:
    """`columns`: of what can come, behind time and event; those of every event if they are not given."""

    def __init__(self, columns: Sequence[str] | None = None) -> None:
        self._columns = all_keys() if columns is None else list(columns)
        self._foreign = self._places(_FOREIGN)
        self._foreign_lists = self._places(_FOREIGN_LISTS)
        self._lists = self._places(_LISTS)
        self._flags = self._places(_FLAGS)
        self._arrangements: dict[type[Event], _Arrangement] = {}
        self._lines: list[str] = []
        self._write = csv.writer(_Lines(self._lines)).writerow

    def _places(self, keys: frozenset[str]) -> list[int]:
        return [at for at, column in enumerate(self._columns) if column in keys]

    def header(self) -> bytes:
        self._write(["time", "event", *self._columns])
        return self._taken()

    def render(self, events: Iterable[Event]) -> list[Piece]:
        for event in events:
            kind = type(event)
            if kind not in self._arrangements:
                self._arrangements[kind] = _arrangement(kind, self._columns)
            get, arrange = self._arrangements[kind]
            cells = list(arrange((*get(event), None)))
            for at in self._foreign:
                if cells[at]:
                    cells[at] = cell(cells[at])
            for at in self._foreign_lists:
                if cells[at] is not None:
                    cells[at] = " ".join([cell(text).replace(" ", r"\x20") for text in cells[at]])
            for at in self._lists:
                if cells[at] is not None:
                    cells[at] = " ".join(map(str, cells[at]))
            for at in self._flags:
                if cells[at] is not None:
                    cells[at] = "true" if cells[at] else "false"
            self._write([event.time, event.event, *cells])
        count = len(self._lines)
        return [(self._taken(), count)]

    def _taken(self) -> bytes:
        taken = "".join(self._lines).encode()
        self._lines.clear()
        return taken


_Take = Callable[[Any], tuple[Any, ...]]
_Arrangement = tuple[_Take, _Take]


def _arrangement(kind: type[Event], columns: list[str]) -> _Arrangement:
    """What takes an event's values, and what puts them, with an unknown behind the last, into the columns' order."""
    places = {key: at for at, key in enumerate(keys(kind))}
    return values(kind), itemgetter(*[places.get(column, len(places)) for column in columns])


class _Lines:
    """What csv.writer writes to: a list of lines."""

    def __init__(self, lines: list[str]) -> None:
        self.write = lines.append
