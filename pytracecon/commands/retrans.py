"""Every TCP segment that is sent again, of SYNs and FINs as well: tcpretrans, with
its options and columns; the process is the connection's own.
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
  pytracecon retrans --segment        what it was that had to be sent again
  pytracecon retrans --reset          resets too, sent and received
  pytracecon retrans -c               on which connection, told at Ctrl-C

  # pytracecon retrans
  TIME     PID     IP LADDR:LPORT          T> RADDR:RPORT          STATE
  14:22:39 15588   4  10.0.0.5:48968       R> 10.0.0.9:8080        SYN_SENT
"""


class _Retrans(Tool):
    name = "retrans"
    about = __doc__
    examples = _EXAMPLES
    what = "TCP segments sent again"
    without = ("--failed", "--min-latency")

    def add_options(self, parser: Parser) -> None:
        group = parser.add_argument_group("table")
        group.add_argument(
            "--segment", action="store_true", help="with what it is: SYN, SYNACK, DATA or FIN, and how many segments"
        )
        group.add_argument(
            "-c",
            dest="counts",
            action="store_true",
            help="nothing but the number of segments of each connection, at the end, most first",
        )
        group = parser.add_argument_group("events")
        group.add_argument("--reset", action="store_true", help="resets too: R> RST sent, <R received; with --segment")

    def events(self, options: argparse.Namespace) -> list[str]:
        return ["retransmit", "reset"] if options.reset else ["retransmit"]

    def given(self, options: argparse.Namespace) -> dict[str, Any]:
        if options.counts and options.reset:
            raise InvalidValue("-c: counts segments sent again, and a reset is none; leave --reset out")
        if options.counts and options.segment:
            raise InvalidValue("-c: counts segments of all kinds together; leave --segment out")
        if options.counts and not shows_table(options):
            raise InvalidValue("-c: its counts are a table; leave it out, or the other format")
        if options.counts and options.show:
            raise InvalidValue("-c: its counts are of events together, and have no more columns; leave --show out")
        return super().given(options)

    def shows(self, _options: argparse.Namespace, _answers: Answers) -> None:
        """Everything: of an MPTCP connection it is the paths that send again."""

    def table(self, options: argparse.Namespace, _answers: Answers, target: Sink) -> Output:
        from pytracecon.views import retrans  # noqa: PLC0415 - not for --help

        if options.counts:
            return retrans.Counts(target.terminal_width)
        shown = retrans.cells(utc=options.utc, segment=options.segment or options.reset)
        return retrans.table([*shown, *show.columns(options)], target.terminal_width)


VERB = _Retrans()
parser, run = VERB.parser, VERB.run
