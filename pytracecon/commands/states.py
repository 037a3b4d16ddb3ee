"""Every change of a TCP socket's state, and how long it was in the one before:
tcpstates, with its options and columns; the owner is right whoever runs then.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pytracecon.commands import show
from pytracecon.commands.console import Parser, say
from pytracecon.commands.options import Formats
from pytracecon.commands.tool import Tool
from pytracecon.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytracecon.events import Event
    from pytracecon.outputs import Output
    from pytracecon.outputs.sink import Sink
    from pytracecon.tracer import Tracer
    from pytracecon.upkeep import Upkeep
    from pytracecon.views.answers import Answers
    from pytracecon.views.beginnings import Beginnings

_EXAMPLES = """\
examples:
  pytracecon states -w                room for IPv6 addresses
  pytracecon states -L 22,80          of our ports 22 and 80
  pytracecon states --meaning         who closed, and who was refused
  pytracecon states --service         the real servers behind virtual addresses
  pytracecon states -stT              as tcpstates' CSV, with both times

  # pytracecon states --template '{comm} {remote_port}: {old} {new} {meaning}'
  curl 8080: CLOSE SYN_SENT open
  curl 8080: SYN_SENT ESTABLISHED ?
"""


class _States(Tool):
    name = "states"
    about = __doc__
    examples = _EXAMPLES
    what = "states of TCP connections"
    also = MappingProxyType({"--local-port": ("-L", "--localport"), "--port": ("-D", "--remoteport")})
    without = ("--failed", "--min-latency")

    def add_options(self, parser: Parser) -> None:
        group = parser.add_argument_group("table")
        group.add_argument("-T", "--time", action="store_true", help="first the time of day")
        group.add_argument("-t", "--timestamp", action="store_true", help="first the seconds since the first event")
        group.add_argument("-w", "--wide", action="store_true", help="wide columns for addresses, and the family")
        group.add_argument(
            "--meaning", action="store_true", help="with a word for what it means: open, refused, closed_by_server..."
        )

        group.add_argument(
            "--service",
            action="store_true",
            help="with the real server: behind IPVS or a packet filter's rule; and with --meaning",
        )
        group.add_argument(
            "--service-details",
            action="store_true",
            help="and how IPVS is set up: the service's scheduler, the server's weight and how it is reached",
        )
        group.add_argument("--service-only", action="store_true", help="that, of connections through IPVS alone")

    def add_formats(self, formats: Formats) -> None:
        formats.add_argument("-s", "--csv", action="store_true", help="tcpstates' own CSV, with its fields")
        formats.add_argument(
            "-Y",
            "--journal",
            dest="format",
            action="store_const",
            const="journal",
            default=argparse.SUPPRESS,
            help="as --format journal",
        )

    def events(self, _options: argparse.Namespace) -> list[str]:
        return ["state"]

    def given(self, options: argparse.Namespace) -> dict[str, Any]:
        if options.csv and options.show:
            raise InvalidValue(
                "-s: it has the fields of tcpstates; leave --show out, or take --format csv with every key"
            )
        given = super().given(options)
        if _with_services(options):
            _judge_services(options)
        return given

    def shows_names(self, options: argparse.Namespace) -> bool:
        """What sees the packets that name connections sees where these go, too."""
        return _with_services(options)

    def shows(self, options: argparse.Namespace, answers: Answers) -> Callable[[Event], bool] | None:
        shown = super().shows(options, answers)
        if not options.service_only:
            return shown

        from pytracecon.events import ConnectionEvent  # noqa: PLC0415 - not for --help

        def served(event: Event) -> bool:
            through = not isinstance(event, ConnectionEvent) or event.service is not None
            return through and (shown is None or shown(event))

        return served

    def holds(self, options: argparse.Namespace) -> Callable[[Tracer], Beginnings] | None:
        if not _with_services(options):
            return None

        def make(tracer: Tracer) -> Beginnings:
            from pytracecon.views.beginnings import Beginnings  # noqa: PLC0415 - not for --help

            return Beginnings(tracer.complete, alone=options.service_only, finish=finish)

        finish = None
        if options.service_details:
            from pytracecon.virtual_services import VirtualServices  # noqa: PLC0415 - for those who ask for it

            finish = VirtualServices().fill
        return make

    def uses(self, options: argparse.Namespace) -> Collection[Upkeep]:
        from pytracecon.upkeep import SERVICE_DETAILS  # noqa: PLC0415 - not for --help

        return [SERVICE_DETAILS] if options.service_details else ()

    def table(self, options: argparse.Namespace, _answers: Answers, target: Sink) -> Output:
        from pytracecon.views import states  # noqa: PLC0415 - not for --help

        if options.csv:
            return states.Csv(
                states.fields(
                    time=options.time,
                    timestamp=options.timestamp,
                    utc=options.utc,
                    meaning=options.meaning or _with_services(options),
                    service=_with_services(options),
                    details=options.service_details,
                )
            )
        shown = states.cells(
            time=options.time,
            timestamp=options.timestamp,
            utc=options.utc,
            wide=options.wide,
            meaning=options.meaning or _with_services(options),
            service=_with_services(options),
            details=options.service_details,
        )
        return states.table([*shown, *show.columns(options)], target.terminal_width)


def _judge_services(options: argparse.Namespace) -> None:
    from pytracecon.probes import has_kprobes, is_loaded  # noqa: PLC0415 - not for --help

    if not has_kprobes():
        missing = "this kernel has no kprobes (CONFIG_KPROBES), by which alone it is seen what IPVS does"
        if options.service_only:
            raise InvalidValue(f"--service-only: {missing}; --service shows the rules of packet filters")
        say(f"{missing}: of services only the rules of packet filters are shown")
    elif not is_loaded("ip_vs"):
        say("IPVS is not loaded here (modprobe ip_vs): its services are shown as soon as it is")


def _with_services(options: argparse.Namespace) -> bool:
    return bool(options.service or options.service_only or options.service_details)


VERB = _States()
parser, run = VERB.parser, VERB.run
