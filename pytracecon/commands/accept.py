"""Every inbound TCP connection, as a process accepts it: tcpaccept, with its
options and columns.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from pytracecon.commands.console import Parser
from pytracecon.commands.launch import launch
from pytracecon.commands.options import add_filters, add_output, add_run, add_tracer, shows_table, tracer_keywords
from pytracecon.commands.signals import Signals

if TYPE_CHECKING:
    from pytracecon.events import Event
    from pytracecon.outputs import Output
    from pytracecon.outputs.sink import Sink

_EXAMPLES = """\
examples:
  pytracecon accept -P 80,443         who comes to these ports of ours
  pytracecon accept --wait            how long they waited for the process

  # pytracecon accept --wait
  PID    COMM         IP RADDR            RPORT LADDR            LPORT WAIT(ms)
  15474  python3      4  10.0.0.5         48968 10.0.0.7         8080  3.24
  15474  python3      4  10.0.0.5         48970 10.0.0.7         8080  0.06
"""


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="pytracecon accept",
        usage="pytracecon accept [options]",
        description=(__doc__ or "").strip(),
        epilog=_EXAMPLES,
    )
    group = parser.add_argument_group("table")
    group.add_argument("-T", "--time", action="store_true", help="first the time of day")
    group.add_argument("-t", "--timestamp", action="store_true", help="first the seconds since the first event")
    group.add_argument("--wait", action="store_true", help="with the time from the handshake to the accept")
    add_filters(parser, also={"--local-port": ("-P",)}, without={"--direction", "--failed", "--min-latency", "--host"})
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
            what="inbound TCP connections",
            table=partial(_table, options),
            shows=shows(options),
        )


def keywords(options: argparse.Namespace) -> dict[str, Any]:
    """Of the tracer, judged. Whoever comes has no name that was asked for."""
    from pytracecon.filters import Filters  # noqa: PLC0415 - not for --help

    given = tracer_keywords(options) | {"events": ["accept"], "names": False}
    Filters.parse(**given)
    return given


def shows(options: argparse.Namespace) -> Callable[[Event], bool] | None:
    """Not the paths of a connection that has a row itself, unless -v is given."""
    from pytracecon.views.columns import is_whole  # noqa: PLC0415

    return is_whole if shows_table(options) and not options.verbose else None


def _table(options: argparse.Namespace, target: Sink) -> Output:
    from pytracecon.views import accept  # noqa: PLC0415

    shown = accept.cells(time=options.time, timestamp=options.timestamp, utc=options.utc, wait=options.wait)
    return accept.table(shown, target.terminal_width)
