"""One connection's life on a screen: who and to whom, how it ended, how long each phase took, and all its events."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

from pytracecon.clock import SECOND
from pytracecon.events import (
    Accept,
    Close,
    Connect,
    Event,
    Failed,
    Lookup,
    Reset,
    Retransmit,
)
from pytracecon.lives import Life, Phase
from pytracecon.outputs import colour
from pytracecon.outputs.table import Cells, Column, Table
from pytracecon.text import one_line, safe, width
from pytracecon.views import shown, trace, wording
from pytracecon.views.ending import outcome, why
from pytracecon.views.wording import UNKNOWN, duration, endpoint, several, size, time_of_day

__all__ = ["choice", "screen"]

Terminal = Callable[[], int | None]

_LABEL = 13
_BAR = 40
_LONGEST_NAME = 60
_ID_DIGITS = 64
_SHORT_ID_DIGITS = 12
_LIKE_EACH_OTHER = 4
"""So many segments sent again in a row are told as one."""

_OWNED = {"connect": "connected", "accept": "accepted", "listen": "listens", "existing": "found at the start"}
_KNOWN_BY = {
    "getaddrinfo": "it asked its libc (getaddrinfo)",
    "gethostbyname": "it asked its libc (gethostbyname)",
    "dns": "asked for by DNS packets",
    "sni": "sent in its TLS ClientHello",
    "ptr": "a PTR record's word: nobody asked for it",
}
_BEHIND = {"service": "behind the virtual service of IPVS", "nat": "as a rule for packets translates it"}
_SEGMENTS = {"syn": "SYN", "synack": "SYN-ACK", "data": "data", "fin": "FIN"}


def screen(
    life: Life, terminal: Terminal, *, utc: bool = False, coloured: bool = False, lost: int = 0, live: bool = False
) -> str:
    """`lost`: so many records are missing from its time. `live`: the end of one that has none is still to come."""
    wide = terminal()
    style = "" if life.end is None else colour.style(life.end)
    text = _painted(_folded(_headline(life), 0, wide), style or colour.HEADER, coloured)
    for label, said in _facts(life, lost, utc=utc, live=live):
        folded = _folded(f"{label:<{_LABEL - 1}} {one_line(said)}", _LABEL, wide)
        text += _painted(folded, style if label == "end" else "", coloured)
    return text + _phases(life, wide, coloured=coloured) + _timeline(life, terminal, utc=utc, coloured=coloured)


def choice(lives: Iterable[Life], terminal: Terminal, *, utc: bool = False, coloured: bool = False) -> str:
    """A row for each of them."""
    by_event = {id(life.end or life.events[-1]): life for life in lives}
    columns = [Column("TIME", 8, 8), Column("CONN", 16, 16), Column("PROCESS", 14, 32), Column("TO", 20, 64)]
    table = Table(
        [*columns, Column("END", 16, 16)],
        lambda event: _choice_row(by_event[id(event)], utc=utc),
        terminal=terminal,
        hang="CONN",
        gap=1,
    )
    table.coloured = coloured
    pieces = table.render(life.end or life.events[-1] for life in by_event.values())
    return (table.header() + b"".join(piece for piece, _ in pieces)).decode()


def _choice_row(life: Life, *, utc: bool) -> Cells:
    began = time_of_day(life.began_ns, utc=utc, decimals=0)
    return [one_line(cell) for cell in (began, life.conn, _process(life), _remote(life), outcome(life))]


def _headline(life: Life) -> str:
    arrow = "←" if life.last("direction") == "in" else "→"
    return one_line(f"{_process(life)} {arrow} {_remote(life)}: {outcome(life)}")


def _process(life: Life) -> str:
    comm, pid = life.last("comm"), life.last("pid")
    return f"{UNKNOWN if comm is None else safe(comm)} ({UNKNOWN if pid is None else pid})"


def _remote(life: Life) -> str:
    host, port = life.last("host"), life.last("remote_port")
    if host is None:
        return endpoint(life.last("remote_addr"), port)
    return f"{wording.host(host, _LONGEST_NAME)}:{UNKNOWN if port is None else port}"


def _facts(life: Life, lost: int, *, utc: bool, live: bool) -> Iterator[tuple[str, str]]:
    """Each with its label. What is not known has no line."""
    yield "connection", _connection(life)
    for label, key in (("real server", "service"), ("goes to", "nat")):
        if life.last(key) is not None:
            yield label, f"{life.last(key)} ({_BEHIND[key]})"
    yield "began", _moment(life.began_ns, utc=utc)
    yield "process", _owner(life)
    if life.last("exe") is not None or life.last("args") is not None:
        yield "program", _program(life)
    places = list(_places(life))
    if places:
        yield "part of", ", ".join(places)
    if life.last("host") is not None:
        yield "name", _name(life)
    yield from _traffic(life)
    if life.end is not None or not live:
        yield "end", why(life)
    missing = list(_missing(life, lost))
    if missing:
        yield "missing", "; ".join(missing)


def _places(life: Life) -> Iterator[str]:
    number, name = life.last("container"), life.last("container_name")
    if number is not None:
        short = number[:_SHORT_ID_DIGITS] if len(number) == _ID_DIGITS else number
        yield f"container {safe(short)}" if name is None else f"container {safe(name)} ({safe(short)})"
    for key in ("pod", "unit"):
        if life.last(key) is not None:
            yield f"{key} {safe(life.last(key))}"


def _connection(life: Life) -> str:
    arrow = "←" if life.last("direction") == "in" else "→"
    local = endpoint(life.last("local_addr"), life.last("local_port"))
    remote = endpoint(life.last("remote_addr"), life.last("remote_port"))
    said = [f"{local} {arrow} {remote}", str(life.last("proto")).upper()]
    said += ["IPv4 over an IPv6 socket"] if life.last("v4_mapped") else []
    said += ["fast open"] if any(getattr(event, "fastopen", None) for event in life.events) else []
    path = life.last("subflow_of")
    said += [] if path is None else [f"a path of {path}"]
    return f"{life.conn}: {', '.join(said)}"


def _moment(time_ns: int, *, utc: bool) -> str:
    seconds = time_ns // SECOND
    date = time.strftime("%Y-%m-%d", time.gmtime(seconds) if utc else time.localtime(seconds))
    return f"{date} {time_of_day(time_ns, utc=utc)}{' UTC' if utc else ''}"


def _owner(life: Life) -> str:
    said = [_process(life)]
    uid, tid, owner = life.last("uid"), life.last("tid"), life.last("owner")
    said += [] if uid is None else [f"user {uid}"]
    said += [] if tid is None else [f"thread {safe(life.last('thread') or UNKNOWN)} ({tid})"]
    said += [] if owner is None else [_OWNED.get(owner, owner)]
    netns = life.last("netns")
    said += [] if netns is None else [f"network namespace {netns}"]
    return ", ".join(said)


def _program(life: Life) -> str:
    exe, args = life.last("exe"), life.last("args")
    latest = next(event for event in reversed(life.events) if event.process is not None)
    said = UNKNOWN if exe is None else safe(exe)
    if args is not None:
        said += f": {shown.text(latest, 'args')}"
    return said + (" (from /proc: older than the tracer)" if life.last("exe_source") == "proc" else "")


def _name(life: Life) -> str:
    source, host = life.last("host_source"), life.last("host")
    said = f"{wording.host(host, 255)}, {_KNOWN_BY.get(source, source)}"
    others = [wording.host(each, _LONGEST_NAME) for each in life.last("host_candidates") or () if each != host]
    return said + (f"; {several(others, 6)} would fit as well" if others else "")


def _traffic(life: Life) -> Iterator[tuple[str, str]]:
    close = life.the(Close)
    if close is not None and (close.tx_bytes is not None or close.rx_bytes is not None):
        said = [] if close.tx_bytes is None else [f"{size(close.tx_bytes)} out"]
        if close.tx_bytes is not None and close.tx_acked is not None and close.tx_acked < close.tx_bytes:
            said[0] += f" ({size(close.tx_bytes - close.tx_acked)} of them not acknowledged)"
        yield "payload", ", ".join([*said, *([] if close.rx_bytes is None else [f"{size(close.rx_bytes)} in"])])
    resent = _resent(life)
    if resent:
        yield "sent again", resent
    resets = [f"{'sent' if each.sent else 'received'} in {each.state or UNKNOWN}" for each in life.all(Reset)]
    if resets:
        yield "reset", several(resets, 4)
    if close is not None and close.rtt_ns is not None:
        yield "round trip", duration(close.rtt_ns)


def _resent(life: Life) -> str:
    """How many segments as the kernel counts them, and which as far as that was told."""
    counted = [event.retransmits for event in life.all(Close)] + [event.syn_retransmits for event in life.all(Failed)]
    told: Counter[str] = Counter()
    for event in life.all(Retransmit):
        told[_SEGMENTS.get(event.segment or "", "unknown")] += event.segments or 1
    total = next((count for count in counted if count is not None), told.total())
    if not total and not told:
        return ""
    kinds = ", ".join(f"{count} {segment}" for segment, count in told.items())
    return f"{total} segment{'' if total == 1 else 's'}" + (f": {kinds}" if kinds else "")


def _missing(life: Life, lost: int) -> Iterator[str]:
    if any(event.pre_existing for event in life.events):
        yield "it is older than the tracer: how it began was not seen"
    elif not life.has_beginning:
        yield "how it began is not among these events"
    if any(event.partial for event in life.events):
        yield "the tracer's table was full, and it forgot something of this connection"
    if lost:
        yield f"{lost} record{'' if lost == 1 else 's'} lost in this time, perhaps of this connection"
    if life.left_out:
        yield f"{life.left_out} more segments sent again or resets, not listed"


def _phases(life: Life, wide: int | None, *, coloured: bool) -> str:
    """A bar for each stands where it was in the whole."""
    phases = life.phases()
    if not phases:
        return ""
    began = min(phase.began_ns for phase in phases)
    whole = max(phase.began_ns + phase.took_ns for phase in phases) - began
    room = _BAR if wide is None else min(_BAR, wide - 32)
    lines = [f"{phase.name:<14} {duration(phase.took_ns):>12}  {_bar(phase, began, whole, room)}" for phase in phases]
    return (
        "\n"
        + _painted(f"{'PHASE':<14} {'TOOK':>12}\n", colour.HEADER, coloured)
        + "".join(f"{line.rstrip()}\n" for line in lines)
    )


def _bar(phase: Phase, began: int, whole: int, room: int) -> str:
    """At least one mark, and no mark for what is not there."""
    if room < 8 or whole <= 0:
        return ""
    start = min((phase.began_ns - began) * room // whole, room - 1)
    marks = max(1, round(phase.took_ns * room / whole)) if phase.took_ns else 0
    return f"|{' ' * start}{'#' * min(marks, room - start):<{room - start}}|"


def _timeline(life: Life, terminal: Terminal, *, utc: bool, coloured: bool) -> str:
    told = [] if life.lookup is None else [life.lookup]
    events: list[Event] = sorted([*told, *life.events], key=lambda event: event.time_ns)
    began = life.began_ns
    runs = {id(run[0]): run for run in _runs(events)}
    columns = [Column("TIME", 15, 15), Column("      SINCE", 11, 14), Column("EVENT", 11, 11)]
    table = Table(
        [*columns, Column("WHAT", 24, 24)],
        lambda event: _timeline_row(event, runs[id(event)], began, utc=utc),
        terminal=terminal,
        hang="WHAT",
        gap=1,
    )
    table.coloured = coloured
    pieces = table.render(run[0] for run in runs.values())
    return "\n" + (table.header() + b"".join(piece for piece, _ in pieces)).decode()


def _runs(events: list[Event]) -> Iterator[list[Event]]:
    """Each event by itself; segments like each other that were sent again in a row together."""

    def alike(event: Event) -> tuple[object, ...]:
        return (event.segment, event.state) if isinstance(event, Retransmit) else (id(event),)

    for _, group in groupby(events, alike):
        run = list(group)
        if len(run) >= _LIKE_EACH_OTHER:
            yield run
        else:
            yield from ([event] for event in run)


def _timeline_row(event: Event, run: list[Event], began: int, *, utc: bool) -> Cells:
    since = f"{duration(event.time_ns - began):>11}"
    return [time_of_day(event.time_ns, utc=utc), since, event.event, one_line(_what(event, run, began))]


def _what(event: Event, run: list[Event], began: int) -> str:
    said = trace.detail(event)
    if isinstance(event, Lookup):
        name = UNKNOWN if event.name is None else wording.host(event.name, _LONGEST_NAME)
        return f"{name} → {several(event.addresses or [], 4)}, {said}"
    if len(run) > 1:
        said += f", {len(run)} times until {duration(run[-1].time_ns - began)}"
    if isinstance(event, Accept) and not said:
        return "taken by the process"
    if isinstance(event, Connect) and not said:
        return "the first SYN left"
    return said


def _folded(text: str, hang: int, wide: int | None) -> str:
    """On as many lines as it needs, the others below the column `hang`."""
    if wide is None or width(text) <= wide:
        return f"{text}\n"
    hang = hang if wide - hang >= 24 else 0
    lines = [""]
    for word in text.split(" "):
        rest = word
        if lines[-1].strip() and width(lines[-1]) + 1 + width(rest) > wide:
            lines.append(" " * hang)
        elif lines[-1].strip():
            lines[-1] += " "
        while width(lines[-1] + rest) > wide:
            most = next(at for at in range(len(rest), 0, -1) if at == 1 or width(lines[-1] + rest[:at]) <= wide)
            lines[-1] += rest[:most]
            rest = rest[most:]
            lines.append(" " * hang)
        lines[-1] += rest
    return "".join(f"{line.rstrip()}\n" for line in lines if line.strip())


def _painted(lines: str, style: str, coloured: bool) -> str:
    return colour.painted(lines, style) if coloured and style else lines
