"""How long the handshakes of outbound TCP connections take, from the first SYN to
the answer: tcpconnlat, with its options and columns.
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
from pytracecon.errors import InvalidValue

if TYPE_CHECKING:
    from pytracecon.events import Event
    from pytracecon.outputs import Output
    from pytracecon.outputs.sink import Sink
    from pytracecon.views.answers import Answers

_EXAMPLES = """\
examples:
  pytracecon latency 50               handshakes that take 50 ms or more
  pytracecon latency --all            refused and timed-out ones as well
  pytracecon latency --resolver       what the name took, beside the handshake
  pytracecon latency --histogram --by host    their spread, told at Ctrl-C

  # pytracecon latency 0.05
  PID    COMM         IP SADDR            DADDR            DPORT LAT(ms)
  15588  curl         4  10.0.0.5         10.0.0.7         8080  0.06
"""


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="pytracecon latency",
        usage="pytracecon latency [MIN_MS] [options]",
        description=(__doc__ or "").strip(),
        epilog=_EXAMPLES,
    )
    parser.add_argument(
        "min_ms", metavar="MIN_MS", nargs="?", help="only what took at least so long, from 0.001; as --min-latency"
    )
    group = parser.add_argument_group("table")
    group.add_argument("-t", "--timestamp", action="store_true", help="first the seconds since the first event")
    group.add_argument("-L", "--lport", action="store_true", help="with the local port")
    group.add_argument(
        "--resolver", action="store_true", help="with the time that the lookup of the name took, and the name"
    )
    group.add_argument(
        "--histogram", action="store_true", help="nothing but their spread, by powers of two, at the end"
    )
    group.add_argument("--by", choices=("host",), metavar="host", help="a histogram for each host")
    group = parser.add_argument_group("events").add_mutually_exclusive_group()
    group.add_argument("--failed", action="store_true", help="failed attempts only, with their outcome")
    group.add_argument("--all", action="store_true", help="failed attempts too, with their outcome")
    add_filters(parser, without={"--direction", "--failed"})
    add_names(parser)
    add_output(parser)
    add_run(parser)
    add_tracer(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    with Signals() as signals:
        _refuse(options)
        from pytracecon.views.answers import Answers  # noqa: PLC0415 - not for --help

        answers = Answers()
        return launch(
            options,
            signals,
            keywords(options),
            what="handshakes of outbound TCP connections",
            table=partial(_table, options, answers),
            shows=shows(options, answers),
        )


def keywords(options: argparse.Namespace) -> dict[str, Any]:
    """Of the tracer, judged. Names that nobody would see are left out, lookups are for those who see their time."""
    from pytracecon.filters import Filters, values  # noqa: PLC0415 - not for --help

    given = tracer_keywords(options)
    if options.min_ms is not None:
        if options.min_latency is not None:
            raise InvalidValue("MIN_MS: means the same as --min-latency; leave one of them out")
        values.milliseconds("MIN_MS", options.min_ms)
        given["min_latency"] = options.min_ms
    failed = given.pop("failed", False)
    given["events"] = ["failed"] if failed else ["established", "failed"] if options.all else ["established"]
    if shows_table(options):
        if options.resolver:
            given["events"].append("lookup")
        elif not options.by and not options.host and not options.reverse:
            given["names"] = False
    Filters.parse(**given)
    return given


def shows(options: argparse.Namespace, answers: Answers) -> Callable[[Event], bool] | None:
    """In the table not the lookups, which `answers` keeps; nor, unless -v is given, paths of what has a row itself."""
    from pytracecon.views.columns import is_whole  # noqa: PLC0415

    if not shows_table(options):
        return None
    return answers.passes if options.verbose else lambda event: is_whole(event) and answers.passes(event)


def _refuse(options: argparse.Namespace) -> None:
    if options.by and not options.histogram:
        raise InvalidValue("--by: it is histograms that are told by host; add --histogram")
    if options.histogram and options.resolver:
        raise InvalidValue("--resolver: the histogram is of handshakes alone; leave one of them out")
    if options.histogram and not shows_table(options):
        raise InvalidValue("--histogram: it is a table; leave it out, or the other format")
    for option, given in (("--resolver", options.resolver), ("--by host", options.by)):
        if given and not options.names:
            raise InvalidValue(f"{option}: --no-names leaves every connection without a name; leave one of them out")


def _table(options: argparse.Namespace, answers: Answers, target: Sink) -> Output:
    if options.histogram:
        from pytracecon.views import histogram  # noqa: PLC0415

        return histogram.Histograms(
            target.terminal_width, name=options.by or "", key=histogram.host if options.by else None
        )
    from pytracecon.views import latency  # noqa: PLC0415

    shown = latency.cells(
        timestamp=options.timestamp,
        lport=options.lport,
        outcome=options.failed or options.all,
        answers=answers if options.resolver else None,
    )
    return latency.table(shown, target.terminal_width)
