"""All events as they happen, one a row.

A name stands in a column of its own where there is room for it, else in place of the remote's address. Columns of
the user's own stand before the words.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from pytracecon.events import (
    Accept,
    Close,
    Connect,
    ConnectionEvent,
    Established,
    Event,
    Existing,
    Failed,
    Flow,
    Lookup,
    Lost,
    Reset,
    Retransmit,
    State,
)
from pytracecon.outputs.table import Cells, Column, Table
from pytracecon.text import safe
from pytracecon.views import wording
from pytracecon.views.wording import UNKNOWN, duration, endpoint, several, size, time_of_day

if TYPE_CHECKING:
    from pytracecon.views.columns import Cell

__all__ = ["detail", "row", "table"]

_WIDEST_ENDPOINT = 47  # an IPv6 address without a zero, in brackets, with its port
_LONGEST_HOST = 48
_LONGEST_NARROW_HOST = 34

_COLUMNS = (
    Column("TIME", 15, 15),
    Column("PID", 6, 7),
    Column("COMM", 10, 16),
    Column("EVENT", 11, 11),
    Column("LOCAL", 21, _WIDEST_ENDPOINT),
    Column("REMOTE", 21, _WIDEST_ENDPOINT),
    Column("DETAIL", 16, 16),
)
# For 80 columns: the time to the second, and of the local end the port alone.
_NARROW_COLUMNS = (
    Column("TIME", 8, 8),
    Column("PID", 7, 7),
    Column("COMM", 9, 16),
    Column("EVENT", 11, 11),
    Column("LOCAL", 6, 6),
    Column("REMOTE", 17, _WIDEST_ENDPOINT),
    Column("DETAIL", 16, 16),
)
_WIDE_ENOUGH = 104
_HOST = Column("HOST", 16, _LONGEST_HOST)
_WIDE_ENOUGH_FOR_HOST = 122

_REASONS = {"timeout": "timed out", "no_address": "no address"}
_SAYS_IT_ALL = {"ECONNREFUSED", "ECONNRESET", "ETIMEDOUT"}
_ENDED = {
    "local_close": "closed by local",
    "remote_close": "closed by remote",
    "local_reset": "reset by local",
    "remote_reset": "reset by remote",
    "timeout": "timed out",
}
_SEGMENTS = {"syn": "SYN", "synack": "SYN-ACK", "fin": "FIN"}
_LOST_IN = {
    "ring": "ring full",
    "map": "map full",
    "names": "ring full, names and programs may be missing",
    "queue": "queue full",
    "output": "output not writable",
    "probe": "probe skipped",
}


def table(terminal: Callable[[], int | None], *, utc: bool, names: bool = True, shown: Sequence[Cell] = ()) -> Table:
    """For a terminal of the width that it has now, or for none; `names`: connections may have one."""
    wide = terminal()
    narrow = wide is not None and wide < _WIDE_ENOUGH
    host_column = names and (wide is None or wide >= _WIDE_ENOUGH_FOR_HOST)
    *columns, last = _NARROW_COLUMNS if narrow else _COLUMNS
    own = [cell.column for cell in shown]
    return Table(
        (*columns, *([_HOST] if host_column else []), *own, last),
        partial(row, utc=utc, narrow=narrow, host_column=host_column, shown=shown),
        terminal=terminal,
        hang="LOCAL",
        gap=1 if narrow else 2,
    )


def row(
    event: Event,
    *,
    utc: bool = False,
    narrow: bool = False,
    host_column: bool = False,
    shown: Sequence[Cell] = (),
) -> Cells:
    """The cells of a row. What is not known is `?`; what does not apply is empty, and so is an unknown name."""
    time = time_of_day(event.time_ns, utc=utc, decimals=0 if narrow else 6)
    last = [*[cell.of(event) for cell in shown], detail(event, narrow=narrow)]
    if isinstance(event, Lookup):
        spanned = (None, None) if host_column else (None,)
        return time, *_process(event), event.event, _answer(event, narrow=narrow), *spanned, *last
    if not isinstance(event, ConnectionEvent):
        return time, "", "", event.event, "", "", *([""] if host_column else []), *last
    if narrow:
        local = f":{UNKNOWN if event.local_port is None else event.local_port}"
    else:
        local = endpoint(event.local_addr, event.local_port)
    remote = endpoint(event.remote_addr, event.remote_port)
    if host_column:
        return time, *_process(event), event.event, local, remote, _host(event), *last
    if event.host is not None:
        port = f":{UNKNOWN if event.remote_port is None else event.remote_port}"
        remote = _host(event, port, longest=_LONGEST_NARROW_HOST if narrow else _LONGEST_HOST)
    return time, *_process(event), event.event, local, remote, *last


def _process(event: ConnectionEvent | Lookup) -> tuple[str, str]:
    return (
        UNKNOWN if event.pid is None else str(event.pid),
        UNKNOWN if event.comm is None else safe(event.comm),
    )


def _host(event: ConnectionEvent, port: str = "", *, longest: int = _LONGEST_HOST) -> str:
    """The remote's name, and what is to be said of it: others fit as well, or nobody here has asked for it."""
    if event.host is None:
        return ""
    shown = wording.host(event.host, longest) + port
    others = len(event.host_candidates or ()) - 1
    if others > 0:
        shown += f" (+{others})"
    return f"{shown} (ptr)" if event.host_source == "ptr" else shown


def _answer(event: Lookup, *, narrow: bool) -> str:
    name = UNKNOWN if event.name is None else wording.host(event.name, _LONGEST_HOST)
    return f"{name} → {several(event.addresses, 2 if narrow else 6)}" if event.addresses else name


def detail(event: Event, *, narrow: bool = False) -> str:
    """What is particular to this event, in words. What is as usual is left out, and so is what is not known."""
    said: list[str] = []
    match event:
        case Connect(fastopen=fastopen):
            said += _fastopen(fastopen)
        case Established(latency_ns=latency, syn_retransmits=retransmits, fastopen=fastopen):
            said += _duration(latency) + _count(retransmits, "SYN retransmit") + _fastopen(fastopen)
        case Failed(latency_ns=latency, syn_retransmits=retransmits):
            said += [_outcome(event), *_duration(latency), *_count(retransmits, "SYN retransmit")]
        case Accept(wait_ns=wait):
            said += [f"waited {duration(wait)}"] if wait is not None else []
        case Close(duration_ns=lasted, ended=ended):
            said += [*_duration(lasted), *_totals(event)]
            said += [_ENDED.get(ended, ended)] if ended is not None else []
        case Existing(state=state):
            said += [state] if state is not None else []
            said += _totals(event)
        case State(old=old, new=new, meaning=meaning):
            after = "" if event.in_old_ns is None else f" after {duration(event.in_old_ns)}"
            said += [f"{old or UNKNOWN} → {new or UNKNOWN}{after}", *_words(meaning)]
        case Retransmit(state=state, meaning=meaning):
            said += [" ".join([*_sent_again(event), *_in(state)]), *_words(meaning)]
        case Reset(sent=sent, state=state):
            way = [] if sent is None else ["sent" if sent else "received"]
            said.append(" ".join([*way, *_in(state)]))
        case Flow(duration_ns=lasted, ended=ended, app=app):
            said += [*_duration(lasted), *_datagrams(event), *_words(ended)]
            said += [app.upper()] if app is not None else []
        case Lookup(latency_ns=latency, result=result):
            said += [result] if result not in ("ok", None) else []
            said += [" ".join(_duration(latency) + _source(event, narrow=narrow))]
            said += ["partial"] if event.partial else []
        case Lost(count=count, where=where):
            said.append(f"lost {count} record{'' if count == 1 else 's'} ({_LOST_IN.get(where, where)})")
    if isinstance(event, ConnectionEvent):
        said += _remarks(event)
    return ", ".join(filter(None, said))


def _source(event: Lookup, *, narrow: bool) -> list[str]:
    """Who told it. That a packet asks for IPv4 addresses is as usual."""
    if narrow or event.source is None:
        return []
    said = [event.source if event.type in ("A", None) else f"{event.source} {event.type}"]
    said += [event.server] if event.server is not None else []
    said += [f"within {event.within}"] if event.within is not None else []
    return [f"({', '.join(said)})"]


def _sent_again(event: Retransmit) -> list[str]:
    if event.segment is None:
        return _count(event.segments, "segment")
    segment = _SEGMENTS.get(event.segment, event.segment)
    return [segment if event.segments in (None, 1) else f"{event.segments} segments of {segment}"]


def _in(state: str | None) -> list[str]:
    return [] if state is None else [f"in {state}"]


def _words(meaning: str | None) -> list[str]:
    return [] if meaning is None else [meaning.replace("_", " ")]


def _outcome(event: Failed) -> str:
    if event.reason is None:
        return event.error or "failed"
    reason = _REASONS.get(event.reason, event.reason)
    return reason if event.error is None or event.error in _SAYS_IT_ALL else f"{reason} ({event.error})"


def _totals(event: Close | Existing) -> list[str]:
    said = []
    if event.tx_bytes is not None:
        unacknowledged = 0 if event.tx_acked is None else event.tx_bytes - event.tx_acked
        said.append(
            f"{size(event.tx_bytes)} out" + (f" ({size(unacknowledged)} unacknowledged)" if unacknowledged else "")
        )
    if event.rx_bytes is not None:
        said.append(f"{size(event.rx_bytes)} in")
    return said + _count(event.retransmits, "retransmit")


def _datagrams(event: Flow) -> list[str]:
    said = []
    for way, octets, packets in (("out", event.tx_bytes, event.tx_packets), ("in", event.rx_bytes, event.rx_packets)):
        if octets is not None:
            said.append(" ".join([f"{size(octets)} {way}", *(f"({each})" for each in _count(packets, "datagram"))]))
    return said


def _remarks(event: ConnectionEvent) -> list[str]:
    said = []
    if event.proto != "tcp":
        said.append(event.proto.upper())
    if event.subflow_of is not None:
        said.append(f"subflow of {event.subflow_of}")
    if event.pre_existing and not isinstance(event, Existing):
        said.append("pre-existing")
    if event.partial:
        said.append("partial")
    return said


def _duration(nanoseconds: int | None) -> list[str]:
    return [] if nanoseconds is None else [duration(nanoseconds)]


def _count(number: int | None, what: str) -> list[str]:
    return [f"{number} {what}{'' if number == 1 else 's'}"] if number else []


def _fastopen(fastopen: bool | None) -> list[str]:
    return ["fast open"] if fastopen else []
