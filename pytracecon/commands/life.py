"""Every TCP connection, as it ends: who held it, how much went each way, how long
it lasted. tcplife, with its options and columns; the owner is right whoever
closes first.
"""

from __future__ import annotations

import argparse
from types import MappingProxyType
from typing import TYPE_CHECKING

from pytracecon.commands import show
from pytracecon.commands.console import Parser
from pytracecon.commands.tool import Tool

if TYPE_CHECKING:
    from pytracecon.outputs import Output
    from pytracecon.outputs.sink import Sink
    from pytracecon.views.answers import Answers

_EXAMPLES = """\
examples:
  pytracecon life -w                  room for IPv6 addresses
  pytracecon life -L 22               connections to our port 22
  pytracecon life --bytes --how       to the byte, and how each one ended

# pytracecon life -D 8080
PID    COMM       LADDR           LPORT RADDR           RPORT TX_KB  RX_KB  MS
15588  curl       10.0.0.5        48968 10.0.0.7        8080  0.09   47.27  7.10
"""


class _Life(Tool):
    name = "life"
    about = __doc__
    examples = _EXAMPLES
    what = "ends of TCP connections"
    also = MappingProxyType({"--local-port": ("-L", "--localport"), "--port": ("-D", "--remoteport")})
    without = ("--failed",)

    def add_options(self, parser: Parser) -> None:
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

    def events(self, _options: argparse.Namespace) -> list[str]:
        return ["close"]

    def table(self, options: argparse.Namespace, _answers: Answers, target: Sink) -> Output:
        from pytracecon.views import life  # noqa: PLC0415 - not for --help

        shown = life.cells(
            time=options.time,
            timestamp=options.timestamp,
            utc=options.utc,
            wide=options.wide,
            narrow=life.is_narrow(target.terminal_width),
            exact=options.bytes,
            how=options.how,
        )
        return life.table([*shown, *show.columns(options)], target.terminal_width)


VERB = _Life()
parser, run = VERB.parser, VERB.run
