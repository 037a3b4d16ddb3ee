"""What the events' fields are called in JSON and CSV, and in which order: as the dataclasses state them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from operator import attrgetter
from typing import Any

from pytracecon.clock import rfc3339
from pytracecon.events import (
    Accept,
    Close,
    Connect,
    Established,
    Event,
    Existing,
    Failed,
    Flow,
    Lookup,
    Lost,
    Process,
    Reset,
    Retransmit,
    State,
)

__all__ = ["all_keys", "keys", "values"]

_INSTANTS = {"from_ns": "from", "to_ns": "to"}
_TYPES: tuple[type[Event], ...] = (
    Connect,
    Established,
    Failed,
    Accept,
    Close,
    Existing,
    State,
    Retransmit,
    Reset,
    Flow,
    Lookup,
    Lost,
)


def keys(kind: type[Event]) -> list[str]:
    """All but `event` and `time`, which come first everywhere."""
    return [_INSTANTS.get(name, name) for name in _names(kind)]


def all_keys() -> list[str]:
    """The keys of every kind of event: those of a connection, then what each kind adds."""
    return list(dict.fromkeys(key for kind in _TYPES for key in keys(kind)))


def values(kind: type[Event]) -> Callable[[Any], tuple[Any, ...]]:
    """A function that takes the values of `keys(kind)` out of an event."""
    names = _names(kind)
    get: Callable[[Any], tuple[Any, ...]] = attrgetter(*names)
    instants = [index for index, name in enumerate(names) if name in _INSTANTS]
    if not instants:
        return get

    def with_instants(event: Any) -> tuple[Any, ...]:
        found = list(get(event))
        for index in instants:
            if found[index] is not None:
                found[index] = rfc3339(found[index])
        return tuple(found)

    return with_instants


def _names(kind: type[Event]) -> list[str]:
    """What `process` tells stands in its place."""
    names: list[str] = []
    for field in fields(kind):
        if field.name == "process":
            names += [each.name for each in fields(Process)]
        elif field.name != "time_ns":
            names.append(field.name)
    return names
