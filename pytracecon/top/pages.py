"""What stands in place of the rows: what is known of one of them with its events, and the help."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pytracecon.connections import Connection
from pytracecon.events import ConnectionEvent, Event, Existing, Lookup
from pytracecon.lives import Life
from pytracecon.text import safe, width
from pytracecon.top.columns import SORTS, Glyphs, remote, sparkline
from pytracecon.top.frame import table, text_of
from pytracecon.top.rows import HISTORY, Board, Group, Item, Picture, key_of
from pytracecon.top.view import Page, View
from pytracecon.views import explain, trace
from pytracecon.views.wording import UNKNOWN, duration, size, value

__all__ = ["help_page", "page_of"]

_LABEL = 13
_MOST_EVENTS = 500

_HELP = """\
Tab, p c h   rows are processes, connections or hosts
Up, Down     choose a row; it stays chosen, wherever it moves to
PgUp, PgDn   a screenful; Home, End
Enter        open the row: its events with their times, and all else;
             from a process or host c leads to its connections, and
             o from one end of a connection to the other one
s S, < >     sort by the next column, or the one before
r            the other way round
/            show what has these words: names, addresses, pids, states
Esc          back; show all again
Space        freeze what is shown, and go on
l            listeners as well
q, Ctrl-C    end

OUT IN       payload so far, of what ended while this ran too; with /s the
             bytes per second, and those of the last refreshes as bars
RTTms        round trip time in milliseconds; of several the median
RTX          segments sent again
NEW FAIL     connections per second that began, and attempts that failed
CONN         those that are open

Both ends on this host are two rows. The paths of an MPTCP connection
stand below it, and count once. What ended stays for five refreshes.

Names to sort by, for --sort:"""


def help_page() -> Page:
    names = [f"  {by}: {', '.join(names)}" for by, names in SORTS.items()]
    lines = [*_HELP.splitlines(), *names]
    return Page("pytracecon top: keys and columns", lambda wide: list(_folded(lines, wide)))


def page_of(item: Item, view: View, board: Board, glyphs: Glyphs) -> Page:
    """It follows what is shown: frozen, it stays as it is."""
    key = key_of(item)
    last = [item]

    def lines(wide: int) -> list[str]:
        last[0] = _again(key, view) or last[0]
        found = last[0]
        if view.picture is None:
            return []
        if isinstance(found, Connection):
            return [*_folded(_now(found, view.picture, glyphs), wide), "", *_life(found, board, wide)]
        return _group(found, view, board, wide, glyphs)

    words = "" if isinstance(item, Connection) else f"{item.name or ''} {'' if item.pid is None else item.pid}".strip()
    return Page(_title(item, glyphs), lines, words, item.peer if isinstance(item, Connection) else None)


def _again(key: object, view: View) -> Item | None:
    picture = view.picture
    if picture is None:
        return None
    if isinstance(key, str):
        return picture.find(key)
    return next((each for each in (*picture.processes, *picture.hosts) if each.key == key), None)


def _title(item: Item, glyphs: Glyphs) -> str:
    if isinstance(item, Group):
        return _who(item.name, item.pid) if item.key[0] == "process" else safe(item.name or UNKNOWN)
    arrow = glyphs.into if item.direction == "in" else glyphs.out
    return f"{_who(item.comm, item.pid)} {arrow} {remote(item)}"


def _who(comm: str | None, pid: int | None) -> str:
    return f"{UNKNOWN if comm is None else safe(comm)} ({UNKNOWN if pid is None else pid})"


def _now(item: Connection, picture: Picture, glyphs: Glyphs) -> Iterator[str]:
    """As it stands, a line for each thing that is known."""
    state = [item.outcome if item.state is None else item.state]
    state += [] if item.age_ns is None else [f"since {duration(item.age_ns)}"]
    state += [] if item.fd is None else [f"descriptor {item.fd}"]
    state += [] if item.app is None else [safe(item.app)]
    yield f"{'now':<{_LABEL}}{', '.join(state)}"
    for label, way, rate, total, packets in (
        ("out", 0, item.tx_rate, item.tx_bytes, item.tx_packets),
        ("in", 1, item.rx_rate, item.rx_bytes, item.rx_packets),
    ):
        said = [] if total is None else [size(total)]
        said += [] if packets is None else [f"{packets} datagrams"]
        said += [] if rate is None else [f"{size(round(rate))}/s"]
        bars = sparkline([rates[way] for rates in picture.rates(item.conn)], HISTORY, glyphs.bars).strip()
        if said:
            yield f"{label:<{_LABEL}}{', '.join(said)}  {bars}".rstrip()
    waiting = [] if item.tx_queue is None else [f"{size(item.tx_queue)} not acknowledged"]
    waiting += [] if item.rx_queue is None else [f"{size(item.rx_queue)} not read"]
    waiting += [] if item.backlog is None else [f"{item.backlog} of {item.backlog_limit} connections not accepted"]
    if waiting:
        yield f"{'waiting':<{_LABEL}}{', '.join(waiting)}"
    if item.rtt_ns is not None:
        yield f"{'round trip':<{_LABEL}}{duration(item.rtt_ns)}"
    if item.retransmits:
        yield f"{'sent again':<{_LABEL}}{_segments(item.retransmits)}"
    if item.peer is not None:
        other = picture.find(item.peer)
        who = "" if other is None else f", {_who(other.comm, other.pid)}"
        yield f"{'other end':<{_LABEL}}{item.peer}{who}: on this host"


def _segments(count: int) -> str:
    return f"{count} segment{'' if count == 1 else 's'}"


def _life(item: Connection, board: Board, wide: int) -> list[str]:
    """What `explain` says of it. Of what began before this, no event tells."""
    life = board.lives.all.get(item.conn)
    if life is None:
        life = Life(item.conn, events=[_existing(item)])
    lost = board.lives.lost_in(life)
    return explain.screen(life, lambda: wide, lost=lost, live=True).splitlines()


def _existing(item: Connection) -> Existing:
    return Existing(
        time_ns=item.time_ns,
        conn=item.conn,
        proto=item.proto,
        direction=item.direction,
        local_addr=item.local_addr,
        local_port=item.local_port,
        remote_addr=item.remote_addr,
        remote_port=item.remote_port,
        v4_mapped=item.v4_mapped,
        netns=item.netns,
        pid=item.pid,
        comm=item.comm,
        uid=item.uid,
        owner=item.owner,
        cgroup=item.cgroup,
        process=item.process,
        host=item.host,
        host_source=item.host_source,
        host_candidates=item.host_candidates,
        service=item.service,
        nat=item.nat,
        pre_existing=item.pre_existing,
        subflow_of=item.subflow_of,
        partial=item.partial,
        state=item.state,
        tx_bytes=item.tx_bytes,
        rx_bytes=item.rx_bytes,
        retransmits=item.retransmits,
        rtt_ns=item.rtt_ns,
    )


def _group(group: Group, view: View, board: Board, wide: int, glyphs: Glyphs) -> list[str]:
    """Its program, its connections, and what was told of them of late."""
    lines: list[str] = []
    picture = view.picture
    if picture is None:
        return lines
    if group.key[0] == "process" and group.busiest is not None:
        lines += _folded(_owner(group.busiest), wide)
    said = f"{size(group.tx_bytes)} out, {size(group.rx_bytes)} in, {_segments(group.retransmits)} sent again"
    lines += _folded([f"{'payload':<{_LABEL}}{said}"], wide)
    for label, way in (("out", 0), ("in", 1)):
        rate = group.tx_rate if way == 0 else group.rx_rate
        bars = sparkline([rates[way] for rates in picture.rates(group.key)], HISTORY, glyphs.bars).strip()
        if rate is not None:
            lines.append(f"{label:<{_LABEL}}{size(round(rate))}/s  {bars}".rstrip())
    own = View(by="connection", listeners=True)
    own.take(picture)
    rows = [row for row in own.rows if isinstance(row, Connection) and _is_of(row, group)]
    header, drawn = table(own, rows, wide, glyphs)
    lines += ["", text_of(header), *map(text_of, drawn)]
    told = [event for event in board.events if _is_of(event, group)][-_MOST_EVENTS:]
    if told:
        lines += ["", *_told(told, wide)]
    return lines


def _owner(item: Connection | ConnectionEvent) -> Iterator[str]:
    if item.uid is not None:
        yield f"{'user':<{_LABEL}}{item.uid}"
    for label, key in (("program", "exe"), ("arguments", "args"), ("container", "container_name"), ("unit", "unit")):
        known = getattr(item, key)
        if known is not None:
            yield f"{label:<{_LABEL}}{value(key, known)}"


def _is_of(item: Connection | ConnectionEvent | Lookup, group: Group) -> bool:
    if group.key[0] == "process":
        return (item.comm if item.pid is None else item.pid) == group.key[1]
    if isinstance(item, Lookup):
        return item.name == group.name
    return (item.host or item.remote_addr) == group.name


def _told(events: Iterable[Event], wide: int) -> list[str]:
    made = trace.table(lambda: wide, utc=False)
    pieces = made.render(events)
    return (made.header() + b"".join(piece for piece, _ in pieces)).decode().splitlines()


def _folded(lines: Iterable[str], wide: int) -> Iterator[str]:
    """Each on as many lines as it needs, between words; the first words' column hangs over where there is room."""
    for line in lines:
        rest, hang = line, _LABEL if wide >= 3 * _LABEL else 0
        while width(rest) > wide:
            at = rest.rfind(" ", hang + 1, wide + 1)
            at = wide if at <= hang else at
            yield rest[:at].rstrip()
            rest = " " * hang + rest[at:].lstrip()
        yield rest
