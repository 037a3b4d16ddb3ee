"""Every TCP connection, as it happens: who opened it, how long the handshake
took, how much went each way, how and by whom it ended.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING, Any

from pytracecon.commands import SHELLS, VERBS, console, show
from pytracecon.commands.console import Parser
from pytracecon.commands.launch import launch
from pytracecon.commands.options import (
    add_filters,
    add_names,
    add_output,
    add_run,
    add_tracer,
    shows_processes,
    shows_table,
    tracer_keywords,
)
from pytracecon.commands.signals import Signals

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytracecon.events import Event
    from pytracecon.outputs import Output
    from pytracecon.outputs.sink import Sink

_EXAMPLES = """\
examples:
  pytracecon                                      everything
  pytracecon --port 443 --direction out           who goes out, and where
  pytracecon --failed                             what cannot connect, and why
  pytracecon --host '*.example.com'               by the name that was asked for
  pytracecon -p 1234 --children --format json     a process and its children
  pytracecon --remote 10.0.0.0/8 --min-latency 50 slow handshakes in the house

  # pytracecon --comm curl --comm psql
  TIME     PID     COMM      EVENT       LOCAL  REMOTE            DETAIL
  09:32:56 15588   curl      lookup      app.example.com → 10.0.0.7 1.24 ms
  09:32:56 15588   curl      established :48968 app.example.com:8080 0.06 ms
  09:32:56 15588   curl      close       :48968 app.example.com:8080 7.10 ms,
                                         88 B out, 48401 B in, closed by local
  09:32:56 15592   psql      failed      :57964 10.0.0.7:5432     refused
"""


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="pytracecon",
        usage="pytracecon [options]\n       pytracecon VERB [options]",
        description=(__doc__ or "").strip(),
        epilog="verbs:\n" + "".join(f"  {name:<10} {what}\n" for name, what in VERBS.items()) + "\n" + _EXAMPLES,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="say it and exit")
    parser.add_argument(
        "--completion",
        action=_Completion,
        choices=SHELLS,
        metavar="|".join(SHELLS),
        help="for this shell: say it and exit",
    )
    parser.add_argument("--man", action=_Man, nargs=0, help="the man page, for man -l: say it and exit")
    parser.add_argument("--service-unit", action=_Unit, nargs=0, help="systemd's unit for a service: say it and exit")
    group = parser.add_argument_group("events")
    group.add_argument(
        "--events",
        metavar="LIST",
        action="append",
        help="of connect, established, failed, accept, close, lookup, and of state, retransmit, reset, flow, which are "
        "told if they are named only; default: all others, in the table all but connect, whose outcome follows; lookup "
        "not with a filter that only a connection can meet. What was lost is always said",
    )
    group.add_argument("--existing", action="store_true", help="first those that are open now, as they stand")
    add_filters(parser)
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
            what="TCP connections",
            table=partial(_table, options),
            shows=shows(options),
        )


def keywords(options: argparse.Namespace) -> dict[str, Any]:
    """Of the tracer, judged. In the table a connect event is left out: its outcome follows."""
    from pytracecon.filters import Filters  # noqa: PLC0415 - not for --help

    given = tracer_keywords(options)
    filters = Filters.parse(**given)
    if shows_table(options) and options.events is None:
        given["events"] = sorted(filters.events - {"connect"})
    if not shows_processes(options, show.keys(options)):
        given["processes"] = False
    return given


def shows(options: argparse.Namespace) -> Callable[[Event], bool] | None:
    """Which events are written; None if all. In the table one that another row tells of is not, unless -v is given."""
    return _tells_something_new if shows_table(options) and not options.verbose else None


def _tells_something_new(event: Event) -> bool:
    """Not a path of a connection that is told by itself, nor a packet of a libc's lookup that is."""
    return getattr(event, "subflow_of", None) is None and getattr(event, "within", None) is None


def _table(options: argparse.Namespace, target: Sink) -> Output:
    from pytracecon.views import trace  # noqa: PLC0415

    return trace.table(target.terminal_width, utc=options.utc, names=options.names, shown=show.columns(options))


class _Completion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, _: object, shell: object, *__: object) -> None:
        from pytracecon.commands.completion import completion  # noqa: PLC0415 - not for --help

        console.show(completion(str(shell)))
        parser.exit()


class _Man(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from pytracecon.commands.man import man  # noqa: PLC0415 - not for --help

        console.show(man())
        parser.exit()


class _Unit(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from pytracecon.commands.unit import show_unit  # noqa: PLC0415 - not for --help

        show_unit()
        parser.exit()


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from pytracecon import __version__  # noqa: PLC0415

        console.show(f"pytracecon {__version__}\n")
        parser.exit()
