"""Who talks to whom, how much and how fast, on a screen that is kept open:
processes, connections or hosts, with what they send and receive, round trip
times, what is sent again, new connections and failed attempts.

? shows the keys. Without a terminal: pytracecon flows --watch, or --once.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from pytracecon.commands.console import Parser, show
from pytracecon.commands.options import add_filters, add_names, add_tracer, tracer_keywords
from pytracecon.commands.privileges import add_privileges, give_up, judge
from pytracecon.commands.signals import Signals

if TYPE_CHECKING:
    from pytracecon.top.columns import Glyphs
    from pytracecon.top.feed import TracerFeed
    from pytracecon.top.view import View

_EXAMPLES = """\
examples:
  pytracecon top                                  processes, the busiest first
  pytracecon top --by connection --sort rtt       the slowest connections
  pytracecon top --by host --direction out        which hosts are talked to
  pytracecon top --once --interval 5              five seconds, as text

  # pytracecon top --once --by host
  20:19:19  4 hosts  out 44.8MB/s  in 44.8MB/s  new 10/s  failed 4/s  6 open
  HOST               CONN OUT/s▼          IN/s▼        OUT    IN RTTms  NEW FAIL
  www.example.com       3   373        █ 44.8M     █ 1.54k  182M 0.024  5.2    0
  10.0.0.5              2 44.7M        █     0        189M   164  5.83  0.5    0
  10.0.0.7              1 2.12k        █   373     █ 7.80k 1.38k 0.022  4.6    0
  db.example.com        0     0              0           0     0          0  4.3
"""

_BY = ("process", "connection", "host")
_EVENTS = ("connect", "established", "failed", "accept", "close", "retransmit", "reset", "flow")
_LIMIT = 10_000
_MOST = 1_000_000
_WIDE, _HIGH = 80, 24


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="pytracecon top",
        usage="pytracecon top [options]",
        description=(__doc__ or "").strip(),
        epilog=_EXAMPLES,
    )
    group = parser.add_argument_group("the screen")
    group.add_argument(
        "--by",
        choices=_BY,
        default=_BY[0],
        metavar="|".join(_BY),
        help="what a row is, at first; default: process",
    )
    group.add_argument(
        "--sort", metavar="COLUMN", help="rate (both ways together; the default), tx_rate, rtt and others: see ?"
    )
    group.add_argument("--interval", metavar="S", default="1", help="seconds from one look to the next; default: 1")
    group.add_argument("--limit", metavar="N", default=str(_LIMIT), help="connections at most; default: 10000")
    group.add_argument("--once", action="store_true", help="one screen as text, of what happens in one interval")
    when = ("auto", "always", "never")
    group.add_argument(
        "--color", choices=when, default="auto", metavar="|".join(when), help="auto: unless NO_COLOR is set"
    )
    add_filters(parser, without=("--failed", "--min-latency"))
    add_names(parser)
    add_privileges(parser)
    add_tracer(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    with Signals() as signals:
        from pytracecon.filters.values import number, seconds  # noqa: PLC0415 - not for --help

        view = _view(options)
        interval = seconds("--interval", options.interval)
        limit = number("--limit", options.limit, 1, _MOST)
        given = keywords(options)
        judge(options)
        if options.once:
            show("")  # raises where there is no output, before anything is loaded
        else:
            _judge_terminal()
        if signals.asked:
            return 0
        from pytracecon.top.feed import TracerFeed  # noqa: PLC0415
        from pytracecon.tracer import Tracer  # noqa: PLC0415

        with Tracer(**given) as tracer:
            tracer.prepare_snapshots()
            give_up(options, tracer)
            feed = TracerFeed(tracer, interval=interval, limit=limit)
            if not options.once:
                return _on_terminal(options, signals, feed, view)
            signals.stop_at_signal(tracer)
            try:
                return _once(feed, view)
            finally:
                signals.stop_at_signal(None)


def keywords(options: argparse.Namespace) -> dict[str, Any]:
    """Of the tracer, judged."""
    from pytracecon.filters import Filters  # noqa: PLC0415 - not for --help

    given = tracer_keywords(options) | {"events": [*_EVENTS, *(["lookup"] if options.names else [])]}
    Filters.parse(**given)
    return given


def _view(options: argparse.Namespace) -> View:
    from pytracecon.filters.values import choice  # noqa: PLC0415 - not for --help
    from pytracecon.top.columns import SORTS  # noqa: PLC0415
    from pytracecon.top.view import View  # noqa: PLC0415

    view = View(by=options.by)
    if options.sort is not None:
        view.sorts[options.by] = choice("--sort", options.sort, tuple(SORTS[options.by]))
    return view


def _judge_terminal() -> None:
    from pytracecon.top.screen import judge  # noqa: PLC0415 - not for --help

    judge(os.environ)


def _on_terminal(options: argparse.Namespace, signals: Signals, feed: TracerFeed, view: View) -> int:
    from pytracecon.outputs import colour  # noqa: PLC0415 - none of these is for --help
    from pytracecon.top.app import Top  # noqa: PLC0415
    from pytracecon.top.screen import is_monochrome  # noqa: PLC0415

    coloured = colour.wanted(options.color, terminal=not is_monochrome(os.environ))
    app = Top(feed, view, glyphs=_glyphs(), coloured=coloured)
    signals.stop_at_signal(app)
    try:
        app.run(mouse=False)
    finally:
        feed.stop()
        signals.stop_at_signal(None)
    if app.failure is not None:
        raise app.failure
    return app.return_code or 0


def _once(feed: TracerFeed, view: View) -> int:
    from pytracecon.top.once import once  # noqa: PLC0415 - not for --help

    show(once(feed, view, *_size(), _glyphs()))
    return 0


def _glyphs() -> Glyphs:
    from pytracecon.top.screen import glyphs_of  # noqa: PLC0415 - not for --help

    return glyphs_of(os.environ, sys.stdout.encoding)


def _size() -> tuple[int, int]:
    """Of a screen as text: that of the terminal, or what COLUMNS and LINES say, or 80x24."""
    import shutil  # noqa: PLC0415 - it imports half of what makes archives

    found = shutil.get_terminal_size((_WIDE, _HIGH))
    return found.columns, found.lines
