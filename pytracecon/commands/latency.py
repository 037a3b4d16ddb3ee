"""How long the handshakes of outbound TCP connections take, from the first SYN to
the answer: tcpconnlat, with its options and columns.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from pytracecon.commands import show
from pytracecon.commands.console import Parser
from pytracecon.commands.options import shows_table
from pytracecon.commands.tool import Tool
from pytracecon.errors import InvalidValue

if TYPE_CHECKING:
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


class _Latency(Tool):
    name = "latency"
    about = __doc__
    examples = _EXAMPLES
    what = "handshakes of outbound TCP connections"
    arguments = "[MIN_MS] [options]"
    without = ("--direction", "--failed")

    def add_options(self, parser: Parser) -> None:
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

    def events(self, options: argparse.Namespace) -> list[str]:
        return ["failed"] if options.failed else ["established", "failed"] if options.all else ["established"]

    def given(self, options: argparse.Namespace) -> dict[str, Any]:
        from pytracecon.filters import values  # noqa: PLC0415 - not for --help

        if options.by and not options.histogram:
            raise InvalidValue("--by: it is histograms that are told by host; add --histogram")
        if options.histogram and options.resolver:
            raise InvalidValue("--resolver: the histogram is of handshakes alone; leave one of them out")
        if options.histogram and not shows_table(options):
            raise InvalidValue("--histogram: it is a table; leave it out, or the other format")
        if options.histogram and options.show:
            raise InvalidValue("--histogram: it is of events together, and has no columns; leave --show out")
        for option, given in (("--resolver", options.resolver), ("--by host", options.by)):
            if given and not options.names:
                nameless = "--no-names leaves every connection without a name; leave one of them out"
                raise InvalidValue(f"{option}: {nameless}")
        given = super().given(options)
        if options.min_ms is not None:
            if options.min_latency is not None:
                raise InvalidValue("MIN_MS: means the same as --min-latency; leave one of them out")
            values.milliseconds("MIN_MS", options.min_ms)
            given["min_latency"] = options.min_ms
        return given

    def shows_names(self, options: argparse.Namespace) -> bool:
        return options.by is not None

    def shows_answers(self, options: argparse.Namespace) -> bool:
        return bool(options.resolver)

    def table(self, options: argparse.Namespace, answers: Answers, target: Sink) -> Output:
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
        return latency.table([*shown, *show.columns(options)], target.terminal_width)


VERB = _Latency()
parser, run = VERB.parser, VERB.run
