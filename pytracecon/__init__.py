"""Every TCP connection of a Linux host, from the kernel to a typed Python event.

    from pytracecon import Close, Tracer

    with Tracer(port=443) as tracer:
        for event in tracer:
            if isinstance(event, Close):
                print(event.comm, event.remote_addr, event.tx_bytes, event.rx_bytes)

`Tracer` and the errors are imported when they are first asked for: `pytracecon --help` needs neither.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytracecon.connections import Connection
    from pytracecon.dropping import drop_privileges
    from pytracecon.errors import PytraceconError
    from pytracecon.events import (
        Accept,
        Close,
        Connect,
        ConnectionEvent,
        Endpoint,
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
    from pytracecon.json_lines import JsonBatch
    from pytracecon.probes import Probe
    from pytracecon.snapshots import Snapshot
    from pytracecon.tracer import Stats, Tracer

__version__ = "0.1.0"

__all__ = [
    "Accept",
    "Close",
    "Connect",
    "Connection",
    "ConnectionEvent",
    "Endpoint",
    "Established",
    "Event",
    "Existing",
    "Failed",
    "Flow",
    "JsonBatch",
    "Lookup",
    "Lost",
    "Probe",
    "Process",
    "PytraceconError",
    "Reset",
    "Retransmit",
    "Snapshot",
    "State",
    "Stats",
    "Tracer",
    "drop_privileges",
]

_HOMES = {
    "Connection": "connections",
    "JsonBatch": "json_lines",
    "Probe": "probes",
    "PytraceconError": "errors",
    "Snapshot": "snapshots",
    "Stats": "tracer",
    "Tracer": "tracer",
    "drop_privileges": "dropping",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'events')}"), name)
