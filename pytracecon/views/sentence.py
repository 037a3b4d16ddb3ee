"""An event in one line of words, for a log that has no columns."""

from __future__ import annotations

from pytracecon.events import ConnectionEvent, Event, Lookup
from pytracecon.text import safe
from pytracecon.views import trace, wording
from pytracecon.views.wording import UNKNOWN, endpoint, several

__all__ = ["sentence"]

_LONGEST_NAME = 255
_MOST_ADDRESSES = 6


def sentence(event: Event) -> str:
    """`curl 10.0.0.5:48968 → 10.0.0.7:8080 (www.example.com) established: 0.06 ms`."""
    detail = trace.detail(event)
    if isinstance(event, ConnectionEvent):
        ends = [endpoint(event.local_addr, event.local_port), endpoint(event.remote_addr, event.remote_port)]
        arrow = "←" if event.direction == "in" else "→"
        named = f" ({wording.host(event.host, _LONGEST_NAME)})" if event.host is not None else ""
        said = f"{_comm(event)} {f' {arrow} '.join(ends)}{named} {event.event}"
    elif isinstance(event, Lookup):
        name = UNKNOWN if event.name is None else wording.host(event.name, _LONGEST_NAME)
        answer = f" → {several(event.addresses, _MOST_ADDRESSES)}" if event.addresses else ""
        said = f"{_comm(event)} {event.event} {name}{answer}"
    else:
        return detail or event.event
    return f"{said}: {detail}" if detail else said


def _comm(event: ConnectionEvent | Lookup) -> str:
    return UNKNOWN if event.comm is None else safe(event.comm)
