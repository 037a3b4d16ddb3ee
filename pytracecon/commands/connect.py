"""Every outbound TCP connection that a process asks for, as its first SYN leaves:
tcpconnect, with its options and columns.
"""

from __future__ import annotations

import argparse
from types import MappingProxyType
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
  pytracecon connect -t -P 80,443     who goes to the web, and when
  pytracecon connect -d               by which name, and how long after it
  pytracecon connect -c               how often, told at Ctrl-C
  pytracecon connect --failed         what cannot connect, and why

  # pytracecon connect -d -P 8080
  PID    COMM         IP SADDR            DADDR            DPORT  QUERY
  15588  curl         4  10.0.0.5         10.0.0.7         8080   db.example.com
  15590  curl         4  10.0.0.5         10.0.0.7         8080   No DNS Query
"""


class _Connect(Tool):
    name = "connect"
    about = __doc__
    examples = _EXAMPLES
    what = "outbound TCP connections"
    also = MappingProxyType({"--port": ("-P",), "--uid": ("-u",)})
    without = ("--direction", "--failed", "--min-latency")

    def add_options(self, parser: Parser) -> None:
        group = parser.add_argument_group("table")
        group.add_argument("-t", "--timestamp", action="store_true", help="first the seconds since the first event")
        group.add_argument("-U", "--print-uid", action="store_true", help="with the user's number")
        group.add_argument("-L", "--lport", action="store_true", help="with the local port")
        group.add_argument(
            "-d",
            "--dns",
            action="store_true",
            help="with the name that was asked for, and how long ago where its answer is older than 100 ms",
        )
        group.add_argument("-c", dest="counts", action="store_true", help="nothing but counts, at the end, most first")
        group = parser.add_argument_group("events").add_mutually_exclusive_group()
        group.add_argument("--failed", action="store_true", help="failed attempts only, with their error and reason")
        group.add_argument("--all", action="store_true", help="failed attempts too")

    def events(self, options: argparse.Namespace) -> list[str]:
        return ["failed"] if options.failed else ["connect", "failed"] if options.all else ["connect"]

    def given(self, options: argparse.Namespace) -> dict[str, Any]:
        if options.counts and options.dns:
            raise InvalidValue("-c: counts connections of all names together; leave -d out, or give it without -c")
        if options.counts and options.all:
            raise InvalidValue("-c: counts attempts, and those that fail are among them; leave --all out")
        if options.counts and not shows_table(options):
            raise InvalidValue("-c: its counts are a table; leave it out, or the other format")
        if options.counts and options.show:
            raise InvalidValue("-c: its counts are of events together, and have no more columns; leave --show out")
        if options.dns and not options.names:
            raise InvalidValue("-d: --no-names leaves every connection without a name; leave one of them out")
        return super().given(options)

    def shows_answers(self, options: argparse.Namespace) -> bool:
        return bool(options.dns)

    def table(self, options: argparse.Namespace, answers: Answers, target: Sink) -> Output:
        from pytracecon.views import connect  # noqa: PLC0415 - not for --help

        if options.counts:
            return connect.Counts(target.terminal_width)
        shown = connect.cells(
            timestamp=options.timestamp,
            print_uid=options.print_uid,
            lport=options.lport,
            failures=options.failed or options.all,
            answers=answers if options.dns else None,
        )
        return connect.table([*shown, *show.columns(options)], target.terminal_width)


VERB = _Connect()
parser, run = VERB.parser, VERB.run
