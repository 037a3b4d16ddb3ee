"""Every TCP connection, as it ends: who held it, how much went each way, how long
it lasted. tcplife, with its options and columns; the owner is right whoever
closes first.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from pytracecon.commands.console import Parser
from pytracecon.commands.launch import launch
from pytracecon.commands.options import (
    add_filters,
    add_names,
    add_output,
    add_run,
    add_tracer,
    shows_table,
    tracer_keywords,
)
from pytracecon.commands.signals import Signals

if TYPE_CHECKING:
    from pytracecon.events import Event
    from pytracecon.outputs import Output
    from pytracecon.outputs.sink import Sink

_EXAMPLES = """\
examples:
  pytracecon life -w                  room for IPv6 addresses
  pytracecon life -L 22               connections to our port 22
  pytracecon life --bytes --how       to the byte, and how each one ended

# pytracecon life -D 8080
PID    COMM       LADDR           LPORT RADDR           RPORT TX_KB  RX_KB  MS
15588  curl       10.0.0.5        48968 10.0.0.7        8080  0.09   47.27  7.10
"""


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="pytracecon life",
        usage="pytracecon life [options]",
        description=(__doc__ or "").strip(),
        epilog=_EXAMPLES,
    )
    group = parser.add_argument_group("table")
    group.add_argument("-T", "--time", action="store_true", help="first the time of day")
    group.add_argument("-t", "--timestamp", action="store_true", help="first the seconds since the first event")
    group.add_argument("-w", "--wide", action="store_true", help="wide columns for addresses")
    group.add_argument(
        "--bytes",
        action="store_true",
        help="bytes in place of KB: those that TCP took, those of them that arrived, those received",
    )
    group.add_argument(
        "--how", action="store_true", help="with how it ended, the segments sent again, the round trip time"
    )
    add_filters(
        parser,
        also={"--local-port": ("-L", "--localport"), "--port": ("-D", "--remoteport")},
        without={"--failed"},
    )
    add_names(parser)
    add_output(parser)
    add_run(parser)
    add_tracer(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    with Signals() as signals:
        return launch(
            options,
            signals,
            keywords(options),
            what="ends of TCP connections",
            table=partial(_table, options),
            shows=shows(options),
        )


def keywords(options: argparse.Namespace) -> dict[str, Any]:
    """Of the tracer, judged. Names that nobody would see are left out."""
    from pytracecon.filters import Filters  # noqa: PLC0415 - not for --help

    given = tracer_keywords(options) | {"events": ["close"]}
    if shows_table(options) and not options.host and not options.reverse:
        given["names"] = False
    Filters.parse(**given)
    return given


def shows(options: argparse.Namespace) -> Callable[[Event], bool] | None:
    """Not the paths of a connection that has a row itself, unless -v is given."""
    from pytracecon.views.columns import is_whole  # noqa: PLC0415

    return is_whole if shows_table(options) and not options.verbose else None


def _table(options: argparse.Namespace, target: Sink) -> Output:
    from pytracecon.views import life  # noqa: PLC0415

    shown = life.cells(
        time=options.time,
        timestamp=options.timestamp,
        utc=options.utc,
        wide=options.wide,
        narrow=life.is_narrow(target.terminal_width),
        exact=options.bytes,
        how=options.how,
    )
    return life.table(shown, target.terminal_width)
