"""`top` on a terminal that is not there: keys go in, recorded snapshots too, and lines come out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import pytest
from textual.events import Key, Paste
from textual.pilot import Pilot
from textual.strip import Strip

from pytracecon.connections import Connection
from pytracecon.errors import UnsupportedKernel
from pytracecon.events import Close, Event, Process
from pytracecon.snapshots import Snapshot
from pytracecon.text import width
from pytracecon.top.app import Top
from pytracecon.top.columns import Glyphs
from pytracecon.top.view import View
from unit.snapshots import SECOND, Played, conn, connection, established, failed, snapshot

Script = Callable[["Driven"], Awaitable[None]]


NGINX: dict[str, Any] = {"pid": 200, "comm": "nginx", "direction": "in"}


def hosts_of_all_kinds(rate: float = 1.0, at: float = 1) -> Snapshot:
    """Three processes, five connections of which two are to one host, and a listener."""
    return snapshot(
        connection(1, host="www.example.com", tx_rate=100 * rate, rx_rate=5000 * rate, tx_bytes=900, rx_bytes=70_000),
        connection(2, host="www.example.com", tx_rate=30 * rate, rtt_ns=30_000_000),
        connection(3, **NGINX, remote_addr="10.0.0.9", remote_port=80, tx_rate=4e6 * rate),
        connection(4, **NGINX, remote_addr="2001:db8::9", remote_port=5001),
        connection(5, pid=300, comm="resolver", proto="udp", remote_port=53, state=None, rtt_ns=None, rx_rate=9.0),
        connection(6, pid=200, comm="nginx", outcome="listening", state="LISTEN", remote_addr=None, remote_port=None),
        at=at,
    )


FIRST = snapshot(at=0, elapsed=None), ()
USUAL = [FIRST, (hosts_of_all_kinds(), ())]


CHARACTERS = {"question_mark": "?", "slash": "/", "space": " ", "less_than_sign": "<"}


class Driven:
    """An app under a pilot."""

    def __init__(self, app: Top, pilot: Pilot[None], feed: Played) -> None:
        self.app, self.pilot, self.feed = app, pilot, feed

    async def press(self, *keys: str) -> list[str]:
        """Textual's own `press` waits after each of them."""
        for key in keys:
            character = CHARACTERS.get(key, key)
            self.app.post_message(Key(key, character if len(character) == 1 else None))
        return await self.lines()

    async def show(self, taken: Snapshot, *events: Event) -> list[str]:
        self.feed.add(taken, *events)
        return await self.lines()

    async def lines(self) -> list[str]:
        """As they are on the screen, not as they were made."""
        await self.pilot.pause()
        wide, high = self.app.size
        return [strip.text.rstrip() for strip in self.strips() if strip.cell_length == wide][:high]

    def strips(self) -> list[Any]:
        return self.app.screen._compositor.render_strips()

    def styles(self, y: int) -> list[str]:
        return [str(segment.style) for segment in self.strips()[y]]

    async def first(self) -> list[str]:
        """What the first column says, row by row."""
        return [line.split()[0] for line in (await self.lines())[2:-1] if line]


def drive(
    script: Script,
    *updates: tuple[Snapshot, Iterable[Event]],
    size: tuple[int, int] = (80, 24),
    coloured: bool = True,
    glyphs: Glyphs | None = None,
    view: View | None = None,
) -> Top:
    feed = Played(*(updates or USUAL))
    app = Top(feed, view or View(), glyphs=glyphs or Glyphs(), coloured=coloured)

    async def run() -> None:
        async with app.run_test(size=size) as pilot:
            await script(Driven(app, pilot, feed))

    asyncio.run(run())
    assert feed.stopped
    return app


def test_a_screen_of_80_columns() -> None:
    async def script(top: Driven) -> None:
        clock, *lines = await top.lines()
        assert re.fullmatch(
            r"\d\d:\d\d:\d\d  3 processes  out 4\.00MB/s  in 5\.01kB/s  new 1/s  failed 0/s  5 open", clock
        )
        assert lines[:4] == [
            "    PID PROCESS    CONN OUT/s▼       IN/s▼        OUT    IN RTTms  RTX  NEW FAIL",
            "    200 nginx         2 4.00M     █     0           0     0  1.00    0    0    0",
            "    100 curl          2   130     █ 5.00k     █   900 70.0k 30.00    0    0    0",
            "    300 resolver      1     0           9     █     0     0          0  1.0    0",
        ]
        assert set(lines[4:-1]) == {""}
        assert lines[-1] == "? help  q quit  / filter  Tab by  s sort  r reverse  Space freeze  Enter open"

    drive(script)


def test_connections_say_whom_they_lead_to() -> None:
    async def script(top: Driven) -> None:
        lines = await top.press("c")
        assert lines[1:7] == [
            "PROCESS  REMOTE               STATE    OUT/s▼       IN/s▼        OUT    IN RTTms",
            "nginx    ← 10.0.0.9:80        estab    4.00M     █     0           0     0  1.00",
            "curl     → …w.example.com:443 estab      100     █ 5.00k     █   900 70.0k  1.00",
            "curl     → …w.example.com:443 estab       30     █     0           0     0 30.00",
            "resolver → 10.0.0.7:53        udp          0           9     █     0     0",
            "nginx    ← [2001:db8::9]:5001 estab        0           0           0     0  1.00",
        ]

    drive(script)


def test_hosts_stand_under_their_names() -> None:
    async def script(top: Driven) -> None:
        await top.press("h")
        assert await top.first() == ["10.0.0.9", "www.example.com", "10.0.0.7", "2001:db8::9"]

    drive(script)


def test_tab_goes_round() -> None:
    async def script(top: Driven) -> None:
        said = [(await top.lines())[0]]
        said += [(await top.press("tab"))[0] for _ in range(3)]
        said += [(await top.press("shift+tab"))[0]]
        assert [line.split()[2] for line in said] == ["processes", "connections", "hosts", "processes", "hosts"]

    drive(script)


@pytest.mark.parametrize("by", ["p", "c", "h"])
@pytest.mark.parametrize("size", [(80, 24), (20, 5), (200, 60), (33, 7)])
def test_any_terminal_is_filled_and_not_run_over(by: str, size: tuple[int, int]) -> None:
    async def script(top: Driven) -> None:
        for keys in ((by,), ("down", "enter"), ("end",), ("escape", "question_mark"), ("escape", "slash", "x")):
            await top.press(*keys)
            assert [width(strip.text) for strip in top.strips()] == [size[0]] * size[1]

    drive(script, size=size)


def test_the_smallest_terminal_shows_who_and_how_fast() -> None:
    async def script(top: Driven) -> None:
        lines = await top.lines()
        assert re.fullmatch(r"\d\d:\d\d:\d\d", lines[0])
        assert lines[1:] == [
            "PROCESS  OUT/s▼ IN/s",
            "nginx    4.00M     0",
            "curl       130 5.00k",
            "? help  q quit 1-2/3",
        ]
        assert (await top.press("down", "down"))[2:4] == ["curl       130 5.00k", "resolver     0     9"]

    drive(script, size=(20, 5))


@pytest.mark.parametrize("size", [(19, 24), (80, 4), (1, 1), (7, 2)])
def test_a_terminal_that_is_too_small_is_told_so_in_one_line(size: tuple[int, int]) -> None:
    async def script(top: Driven) -> None:
        lines = await top.lines()
        assert lines[0].rstrip("…") == f"{size[0]}x{size[1]} is too small: 20x5"[: len(lines[0].rstrip("…"))]
        assert set(lines[1:]) <= {""}
        assert await top.press("down", "enter", "escape", "s")

    drive(script, size=size)


def test_it_follows_the_size_of_the_terminal() -> None:
    async def script(top: Driven) -> None:
        for size in ((60, 10), (20, 5), (10, 3), (120, 30)):
            await top.pilot.resize_terminal(*size)
            await top.lines()
            assert [width(strip.text) for strip in top.strips()] == [size[0]] * size[1]
        assert "TALKS TO" in (await top.lines())[1]

    drive(script)


def test_it_is_sorted_by_any_column_either_way() -> None:
    async def script(top: Driven) -> None:
        orders = {}
        while top.app.view.sort not in orders:
            name = top.app.view.sort
            await top.press("s")
            orders[name] = top.app.view.sort
        assert list(orders)[:4] == ["rate", "pid", "comm", "connections"]
        await top.press("s")
        assert await top.first() == ["100", "200", "300"]
        await top.press("r")
        assert await top.first() == ["300", "200", "100"]
        lines = await top.press("s")  # each column has its own direction; this one goes up like pid
        assert "PROCESS▼" in lines[1].replace(" ", "")
        await top.press("less_than_sign", "less_than_sign")
        assert top.app.view.sort == "rate"

    drive(script)


def test_what_has_no_value_comes_last_either_way() -> None:
    async def script(top: Driven) -> None:
        assert (await top.first())[-1] == "300"  # UDP has no round trips
        await top.press("r")
        assert (await top.first())[-1] == "300"

    drive(script, view=View(sorts={"process": "rtt"}))


def test_rows_are_filtered_while_one_types() -> None:
    async def script(top: Driven) -> None:
        assert (await top.press("slash"))[-1] == "/_"
        lines = await top.press("E", "x", "a")
        assert lines[-1] == "/Exa_"
        assert " 1 of 3 processes " in lines[0]
        assert await top.first() == ["100"]
        await top.press("backspace", "backspace", "backspace", "q", "q")
        assert (await top.lines())[2] == "nothing matches qq"
        await top.press("ctrl+u", "n", "g", "space", "2", "0", "0", "enter")
        assert await top.first() == ["200"]
        assert (await top.lines())[-1].startswith("/ng 200 (Esc: all)")
        await top.press("c")
        assert await top.first() == ["nginx", "nginx"]
        await top.press("escape")
        assert len(await top.first()) == 5

    drive(script)


def test_what_is_pasted_is_typed() -> None:
    async def script(top: Driven) -> None:
        await top.press("slash")
        top.app.post_message(Paste("ngi\x1bnx\n"))
        assert (await top.lines())[-1] == "/nginx_"

    drive(script)


def test_frozen_it_stays_as_it_is_and_goes_on_with_what_is_then() -> None:
    async def script(top: Driven) -> None:
        before = await top.lines()
        frozen = await top.press("space")
        assert " FROZEN " in frozen[0]
        assert frozen[1:] == before[1:]
        after = await top.show(hosts_of_all_kinds(2.0, at=2))
        assert after == frozen
        assert await top.first() == ["200", "100", "300"]
        await top.press("s")  # what is frozen can still be looked at in another order
        assert await top.first() == ["100", "200", "300"]
        thawed = await top.press("space")
        assert "FROZEN" not in thawed[0]
        assert " 8.00M    ▅█ " in thawed[3]

    drive(script)


def test_the_row_that_was_chosen_stays_chosen() -> None:
    async def script(top: Driven) -> None:
        await top.press("c", "down")
        assert top.app.view.selected == conn(1)
        assert "reverse" in "".join(top.styles(3))
        await top.show(snapshot(connection(1, tx_rate=9e9), connection(3, tx_rate=1.0), at=2))
        assert "reverse" in "".join(top.styles(2))
        await top.show(snapshot(connection(3), connection(7), at=3))
        assert top.app.view.selected == conn(1)
        assert top.app.view.position == 0
        await top.press("escape")
        assert top.app.view.selected is None

    drive(script)


def test_many_rows_are_scrolled() -> None:
    many = snapshot(*(connection(at, tx_rate=float(1000 - at)) for at in range(1, 101)))

    async def script(top: Driven) -> None:
        assert (await top.press("c"))[-1].endswith(" 1-7/100")
        assert (await top.press("pagedown"))[-1].endswith(" 2-8/100")
        assert (await top.press("end"))[-1].endswith(" 94-100/100")
        assert (await top.press("up", "up"))[-1].endswith(" 94-100/100")
        assert (await top.press("home"))[-1].endswith(" 1-7/100")
        await top.press(*["down"] * 200)
        assert top.app.view.position == 99

    drive(script, FIRST, (many, ()), size=(80, 10))


def test_listeners_are_shown_on_demand() -> None:
    async def script(top: Driven) -> None:
        await top.press("c")
        assert len(await top.first()) == 5
        lines = await top.press("l")
        assert any("* 10.0.0.5:40006" in line and "listen" in line for line in lines)
        assert "1 listen" in lines[0]

    drive(script, size=(100, 24))


def opened() -> tuple[Snapshot, list[Event]]:
    process = Process(exe="/usr/bin/curl", args=["curl", "-s", "https://www.example.com/"], unit="test.service")
    one = connection(
        1,
        host="www.example.com",
        host_source="getaddrinfo",
        tx_rate=1000.0,
        tx_bytes=5000,
        process=process,
        fd=5,
        age_ns=3 * SECOND,
        tx_queue=77,
        rx_queue=0,
        retransmits=1,
        peer=conn(2),
    )
    two = connection(2, pid=200, comm="nginx", direction="in", peer=conn(1))
    return snapshot(one, two), [established(1, host="www.example.com", host_source="getaddrinfo", process=process)]


def test_a_connection_opens_with_what_is_known_and_its_timeline() -> None:
    async def script(top: Driven) -> None:
        lines = await top.press("c", "enter")
        assert lines[:8] == [
            "curl (100) → www.example.com:443",
            "now          ESTABLISHED, since 3.00 s, descriptor 5",
            "out          5000 B, 1000 B/s  █",
            "in           0 B, 0 B/s",
            "waiting      77 B not acknowledged, 0 B not read",
            "round trip   1.00 ms",
            "sent again   1 segment",
            f"other end    {conn(2)}, nginx (200): on this host",
        ]
        text = "\n".join(lines)
        assert "not among these events" not in text
        assert "program      /usr/bin/curl: curl -s https://www.example.com/" in text
        assert "name         www.example.com, it asked its libc (getaddrinfo)" in text
        assert re.search(r"^\d\d:\d\d:\d\d\.500000 +2\.00 ms established 2\.00 ms$", text, re.MULTILINE)
        close = Close(**{**vars_of(established(1)), "tx_bytes": 6000, "rx_bytes": 0, "ended": "local_close"})
        lines = await top.show(snapshot(connection(1, outcome="closed", tx_bytes=6000), at=2), close)
        assert any("closed by this side (the client)" in line for line in lines)
        assert any(re.search(r" close +6000 B out, 0 B in, closed by local$", line) for line in lines)
        assert (await top.press("escape"))[1].startswith("PROCESS  REMOTE")

    drive(script, FIRST, opened())


def vars_of(event: Event) -> dict[str, Any]:
    """The fields that all events of a connection have."""
    names = [name for kind in type(event).__mro__ for name in getattr(kind, "__slots__", ())]
    return {name: getattr(event, name) for name in names if name not in ("latency_ns", "syn_retransmits", "fastopen")}


def test_one_end_leads_to_the_other() -> None:
    async def script(top: Driven) -> None:
        assert (await top.press("c", "enter"))[0].startswith("curl (100)")
        lines = await top.press("o")
        assert lines[0] == "nginx (200) ← 10.0.0.7:443"
        assert lines[-1] == "Esc back  o other end  q quit"
        assert (await top.press("o"))[0].startswith("curl (100)")

    drive(script, FIRST, opened())


def test_one_that_is_older_than_the_tracer_opens_too() -> None:
    async def script(top: Driven) -> None:
        lines = await top.press("c", "enter")
        assert "missing      it is older than the tracer: how it began was not seen" in lines

    drive(script, FIRST, (snapshot(connection(1, pre_existing=True)), ()))


def test_a_process_opens_with_its_program_its_connections_and_its_events() -> None:
    async def script(top: Driven) -> None:
        lines = await top.press("enter")
        assert lines[0] == "curl (100)"
        assert "program      /usr/bin/curl" in lines
        assert "arguments    curl -s https://www.example.com/" in lines
        assert "unit         test.service" in lines
        assert sum(line.startswith("curl     → ") for line in lines) == 1
        assert sum(" established " in line for line in lines) == 1
        assert not any("nginx" in line for line in lines)

    drive(script, FIRST, opened())


def test_an_open_process_leads_to_its_connections() -> None:
    async def script(top: Driven) -> None:
        lines = await top.press("down", "enter", "c")
        assert lines[-1].startswith("/curl 100 (Esc: all)")
        assert await top.first() == ["curl", "curl"]
        await top.press("enter", "c")  # of a connection there are none
        assert top.app.view.page is not None

    drive(script)


def test_a_host_opens_with_the_connections_of_all_processes_to_it() -> None:
    async def script(top: Driven) -> None:
        lines = await top.press("h", "down", "enter")
        assert lines[0] == "10.0.0.7"
        assert sum(line.startswith("nginx    ") for line in lines) == 1

    drive(script, FIRST, opened())


def test_mptcp_is_one_row_with_its_paths_beneath() -> None:
    whole = connection(1, proto="mptcp", tx_rate=5.0)
    paths = [connection(at, subflow_of=conn(1), tx_rate=99.0, remote_addr=f"10.0.{at}.7") for at in (2, 3)]

    async def script(top: Driven) -> None:
        lines = await top.press("c")
        assert [" ".join(line.split()).partition(":443")[0] for line in lines[2:6]] == [
            "curl 100 10.0.0.5:40001 → 10.0.0.7",
            "└ path 100 10.0.0.5:40002 └ 10.0.0.5:40002 → 10.0.2.7",
            "└ path 100 10.0.0.5:40003 └ 10.0.0.5:40003 → 10.0.3.7",
            "curl 100 10.0.0.5:40009 → 10.0.0.7",
        ]
        assert " 2 connections " in lines[0]

    drive(script, FIRST, (snapshot(connection(9), whole, *paths), ()), size=(160, 24))


def test_what_failed_is_red_and_what_ended_is_dim() -> None:
    told = snapshot(
        connection(1, tx_rate=5.0),
        connection(2, outcome="failed", tx_rate=2.0),
        connection(3, outcome="closed", tx_rate=1.0),
    )

    async def script(top: Driven) -> None:
        await top.press("c", "end")
        assert ["red" in "".join(top.styles(y)) for y in (2, 3, 4)] == [False, True, False]
        await top.press("home", "down")
        assert "dim" in "".join(top.styles(4))

    drive(script, FIRST, (told, [failed(2)]))


def test_monochrome_has_no_colour_at_all() -> None:
    async def script(top: Driven) -> None:
        for key in ("c", "end", "enter", "escape", "question_mark"):
            await top.press(key)
            for strip in top.strips():
                for segment in strip:
                    assert segment.style is None or {segment.style.color, segment.style.bgcolor} <= {None}

    told = snapshot(connection(1), connection(2, outcome="failed"), connection(3, outcome="closed"))
    drive(script, FIRST, (told, [failed(2)]), coloured=False)


def test_plain_terminals_get_ascii() -> None:
    async def script(top: Driven) -> None:
        for key in ("c", "h", "p", "slash"):
            assert all(line.isascii() for line in await top.press(key))

    drive(script, glyphs=Glyphs.plain())


def test_nothing_that_others_chose_reaches_the_terminal() -> None:
    bad = connection(1, comm="\x1b]52;c;eA==\x07", host="x\r\n\x9b31m\u202e.test", app="\x1b[2J")
    told = established(1, comm="\x1b]52;c;eA==\x07", host="x\r\n\x9b31m\u202e.test")

    async def script(top: Driven) -> None:
        for keys in (("p",), ("enter",), ("escape", "c"), ("enter",), ("escape", "h"), ("enter",)):
            await top.press(*keys)
            assert [strip.text for strip in top.strips() if not strip.text.isprintable()] == []

    drive(script, FIRST, (snapshot(bad), [told]))


def test_help_names_the_columns_to_sort_by() -> None:
    async def script(top: Driven) -> None:
        text = "\n".join(await top.press("question_mark"))
        assert "process: rate, pid, comm, connections, tx_rate" in text
        assert "Space        freeze" in text

    drive(script, size=(120, 40))


@pytest.mark.parametrize("key", ["q", "ctrl+c", "ctrl+q"])
def test_keys_that_end_it(key: str) -> None:
    async def script(top: Driven) -> None:
        await top.press(key)
        assert top.app.return_code == 0

    drive(script)


def test_before_the_first_snapshot_it_says_what_it_does() -> None:
    async def script(top: Driven) -> None:
        assert (await top.lines())[:3] == ["pytracecon top", "", "looking around"]
        await top.press("enter", "down", "s", "r", "space", "slash", "x", "escape")

    feed = Played()
    app = Top(feed, View(), glyphs=Glyphs(), coloured=True)

    async def run() -> None:
        async with app.run_test() as pilot:
            await script(Driven(app, pilot, feed))

    asyncio.run(run())


def test_an_error_of_the_feed_ends_it() -> None:
    error = UnsupportedKernel("this kernel has no such iterator")

    async def script(top: Driven) -> None:
        top.feed.fail(error)
        await top.lines()

    assert drive(script).failure is error


def test_stopped_before_it_began_it_ends_at_once() -> None:
    app = Top(Played(*USUAL), View(), glyphs=Glyphs(), coloured=True)
    app.stop()

    async def run() -> None:
        async with app.run_test() as pilot:
            await pilot.pause()

    asyncio.run(run())
    assert app.return_code == 0


def test_only_lines_that_changed_are_drawn_again() -> None:
    """Over a slow line the rest would be most of what is sent."""

    async def script(top: Driven) -> None:
        drawn: list[int] = []
        panel = top.app._panel
        render = panel.render_line

        def rendered(y: int) -> Strip:
            drawn.append(y)
            return render(y)

        panel.render_line = rendered  # type: ignore[method-assign]
        before = await top.show(snapshot(*hosts(1.0), at=2))
        drawn.clear()
        after = await top.show(snapshot(*hosts(2.0), at=3))
        assert set(drawn) == {y for y, line in enumerate(before) if line != after[y]} == {0, 2, 3}

    def hosts(rate: float) -> list[Connection]:
        return [connection(1, tx_rate=1e6), connection(2, pid=200, comm="nginx", rx_rate=rate), connection(3, pid=300)]

    drive(script, FIRST)
