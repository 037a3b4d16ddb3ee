"""Columns of one's own: any keys of events, each headed by the key in capitals."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from pytracecon.events import Event, Lost
from pytracecon.outputs.keys import keys
from pytracecon.outputs.table import Column
from pytracecon.outputs.template import KEYS as EVERY_KEY
from pytracecon.outputs.template import value_of
from pytracecon.views import wording
from pytracecon.views.columns import Cell
from pytracecon.views.wording import UNKNOWN

__all__ = ["KEYS", "OF_NAMES", "OF_PROCESSES", "cells", "nearest", "of_connections", "text"]

KEYS = tuple(key for key in EVERY_KEY if key not in keys(Lost))
"""What stands in a row. A loss stands across it."""

OF_NAMES = frozenset({"host", "host_source", "host_candidates"})
_OF_CGROUP = frozenset({"container", "container_name", "pod", "unit"})
OF_PROCESSES = _OF_CGROUP | {"exe", "exe_source", "args", "args_cut", "parents"}

_ID_DIGITS = 64
_SHORT_ID_DIGITS = 12
"""As `docker ps` shows them."""

_WIDTHS = {
    "args": (32, 96),
    "comm": (12, 16),
    "conn": (16, 16),
    "container": (12, 40),
    "container_name": (16, 40),
    "cgroup": (8, 20),
    "exe": (24, 64),
    "host": (16, 48),
    "host_candidates": (24, 64),
    "name": (24, 64),
    "netns": (10, 10),
    "parents": (16, 48),
    "pod": (36, 36),
    "time": (30, 30),
    "unit": (20, 48),
}
_USUAL = 8, 20
_ADDRESS = 15, 39

_KEYS_OF: dict[type[Event], frozenset[str]] = {}

# Told only where there is something to be told of. That they are absent is known.
_EXCEPTIONS = frozenset(
    {"v4_mapped", "tid", "thread", "args_cut", "host_candidates", "pre_existing", "subflow_of", "partial"}
    | {"fastopen", "within", "service_scheduler", "service_weight", "service_forwarding"}
)


def cells(shown: Sequence[str]) -> list[Cell]:
    return [Cell(_column(key), partial(text, key=key)) for key in shown]


def text(event: Event, key: str) -> str:
    """What is not known is `?`; what this kind of event has not, or this event, is empty."""
    if key not in _keys_of(type(event)):
        return ""
    value = value_of(event, key)
    if key == "container":
        value = value_of(event, "container_name") or _short(value)
    if value is None:
        return "" if key in _EXCEPTIONS or _is_absent(event, key) or _is_of_others(event, key) else UNKNOWN
    if key == "args":
        return wording.value(key, value) + (" …" if value_of(event, "args_cut") else "")
    return wording.value(key, value)


def of_connections() -> Sequence[str]:
    """What stands in a row that is a connection, not one of its events."""
    from pytracecon.connections import Connection  # noqa: PLC0415 - most tables are of events

    return ("event", "time", *keys(Connection))


def nearest(key: str, known: Sequence[str] = KEYS) -> Sequence[str]:
    """Of the known keys those that look like this one; all of them if none does."""
    from difflib import get_close_matches  # noqa: PLC0415 - for a mistake only

    return get_close_matches(key.lower(), known, n=4, cutoff=0.5) or known


def _column(key: str) -> Column:
    width, widest = _WIDTHS.get(key, _ADDRESS if key.endswith("_addr") else _USUAL)
    return Column(key.upper(), max(width, len(key)), max(widest, len(key)))


def _keys_of(kind: type[Event]) -> frozenset[str]:
    if kind not in _KEYS_OF:
        _KEYS_OF[kind] = frozenset({"event", "time", *keys(kind)})
    return _KEYS_OF[kind]


def _is_absent(event: Event, key: str) -> bool:
    """All these come from one path: who has one of them is known not to have the others. Names come later."""
    if key not in _OF_CGROUP:
        return False
    known = [other for other in _OF_CGROUP if value_of(event, other) is not None]
    return bool(known) and not (key == "container_name" and "container" in known)


def _is_of_others(event: Event, key: str) -> bool:
    """Of a whole connection most keys are for some kinds alone: how it failed, how full its backlog is."""
    return event.event == "connection" and key not in KEYS


def _short(container: str | None) -> str | None:
    """Of a machine, which has a name and no number, the whole."""
    if container is None or len(container) != _ID_DIGITS:
        return container
    return container[:_SHORT_ID_DIGITS] if set(container) <= set("0123456789abcdef") else container
