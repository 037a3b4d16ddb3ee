"""Groups of events (`grouping.Count`), and what was lost meanwhile, in every format but the table."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from pytracecon.clock import rfc3339
from pytracecon.events import Event, Lost
from pytracecon.grouping import Count
from pytracecon.outputs import Piece, journal, template
from pytracecon.outputs.json_lines import JsonLines, line
from pytracecon.outputs.keys import all_keys, keys
from pytracecon.text import cell

__all__ = ["KEYS", "MEASURED", "CountCsv", "CountJson", "fields", "value_of"]

MEASURED = {
    "events": "events",
    "groups": "groups",
    "tx_bytes": "tx_bytes",
    "rx_bytes": "rx_bytes",
    "latencies": "latencies",
    "latency_p50_ns": "p50",
    "latency_p90_ns": "p90",
    "latency_p99_ns": "p99",
    "latency_max_ns": "max",
}
"""What is told of a group besides its keys, and where `Count` has it."""

KEYS = ("event", *(key for key in all_keys() if key not in {*MEASURED, *keys(Lost)}))
"""What events can be grouped by."""


class CountJson:
    """An object a line; the group's keys are in an object of their own, `by`."""

    def __init__(self) -> None:
        self._losses = JsonLines()

    def header(self) -> bytes:
        return b""

    def render(self, events: Iterable[Event]) -> list[Piece]:
        pieces = []
        for event in events:
            if isinstance(event, Count):
                pieces.append((line(_object(event)), 1))
            else:
                pieces += self._losses.render([event])
        return pieces


def _object(count: Count) -> dict[str, Any]:
    told: dict[str, Any] = {"event": count.event, "time": count.time, "from": rfc3339(count.from_ns)}
    if count.kind == "group":
        told["by"] = {key: value for key, value in count.by.items() if value is not None}
    elif count.kind == "others":
        told["others"] = True
    return told | {name: value for name in MEASURED if (value := _measured(count, name)) is not None}


class CountCsv:
    """A row a group. `row` says what it is: group, others, none or lost."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = keys

    def header(self) -> bytes:
        return _row(["time", "from", "row", *self._keys, *MEASURED, "lost", "where"])

    def render(self, events: Iterable[Event]) -> list[Piece]:
        return [(_row(self._cells(event)), 1) for event in events]

    def _cells(self, event: Event) -> Iterator[Any]:
        yield event.time
        if isinstance(event, Count):
            yield rfc3339(event.from_ns)
            yield event.kind
            yield from (_csv_cell(event.by.get(key)) for key in self._keys)
            yield from (_measured(event, name) for name in MEASURED)
            yield from (None, None)
        elif isinstance(event, Lost):
            yield None if event.from_ns is None else rfc3339(event.from_ns)
            yield event.event
            yield from [None] * (len(self._keys) + len(MEASURED))
            yield event.count
            yield event.where


def _csv_cell(value: Any) -> Any:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return " ".join([cell(str(each)).replace(" ", r"\x20") for each in value])
    return cell(value) if isinstance(value, str) else value


def _row(cells: Iterable[Any]) -> bytes:
    written = io.StringIO(newline="")
    csv.writer(written).writerow(cells)
    return written.getvalue().encode()


def value_of(event: Event, key: str) -> Any:
    """What a template's key is in a row: one of the group's, or what is told of it."""
    if isinstance(event, Count):
        if key == "from":
            return rfc3339(event.from_ns)
        if key in event.by:
            return event.by[key]
        return _measured(event, key) if key in MEASURED else getattr(event, key)
    return event.event if key == "kind" else template.value_of(event, key)


def fields(event: Event, message: Callable[[Count], str]) -> Iterator[tuple[str, Any]]:
    """Of an entry of the journal."""
    if not isinstance(event, Count):
        yield from journal.fields(event)
        return
    yield "MESSAGE", message(event)
    yield from journal.COMMON
    told = _object(event)
    for key, value in (told | {f"by_{key}": value for key, value in told.pop("by", {}).items()}).items():
        yield f"{journal.OURS}{key.upper()}", value


def _measured(count: Count, name: str) -> int | None:
    value: int | None = getattr(count, MEASURED[name])
    return value
