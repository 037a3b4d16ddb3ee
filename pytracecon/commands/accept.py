"""Every inbound TCP connection, as a process accepts it: tcpaccept, with its
options and columns.
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
  pytracecon accept -P 80,443         who comes to these ports of ours
  pytracecon accept --wait            how long they waited for the process

  # pytracecon accept --wait
  PID    COMM         IP RADDR            RPORT LADDR            LPORT WAIT(ms)
  15474  python3      4  10.0.0.5         48968 10.0.0.7         8080  3.24
  15474  python3      4  10.0.0.5         48970 10.0.0.7         8080  0.06
"""


class _Accept(Tool):
    name = "accept"
    about = __doc__
    examples = _EXAMPLES
    what = "inbound TCP connections"
    also = MappingProxyType({"--local-port": ("-P",)})
    without = ("--direction", "--failed", "--min-latency", "--host")
    named = False

    def add_options(self, parser: Parser) -> None:
        group = parser.add_argument_group("table")
        group.add_argument("-T", "--time", action="store_true", help="first the time of day")
        group.add_argument("-t", "--timestamp", action="store_true", help="first the seconds since the first event")
        group.add_argument("--wait", action="store_true", help="with the time from the handshake to the accept")

    def events(self, _options: argparse.Namespace) -> list[str]:
        return ["accept"]

    def table(self, options: argparse.Namespace, _answers: Answers, target: Sink) -> Output:
        from pytracecon.views import accept  # noqa: PLC0415 - not for --help

        shown = accept.cells(time=options.time, timestamp=options.timestamp, utc=options.utc, wait=options.wait)
        return accept.table([*shown, *show.columns(options)], target.terminal_width)


VERB = _Accept()
parser, run = VERB.parser, VERB.run
