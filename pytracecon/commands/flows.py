"""What is open right now: every TCP connection and UDP conversation with its owner
and its totals, once, or every so many seconds with rates, and with what opened
and ended in between.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from pytracecon.commands import show
from pytracecon.commands.console import Parser
from pytracecon.commands.launch import coloured, launch
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
from pytracecon.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Callable

    from pytracecon.commands.listings import Listed
    from pytracecon.commands.session import Session
    from pytracecon.connections import Connection
    from pytracecon.ordering import Order
    from pytracecon.outputs import Output
    from pytracecon.outputs.sink import Sink
    from pytracecon.snapshots import Snapshot
    from pytracecon.tracer import Tracer
    from pytracecon.views.flows import Shown

_EXAMPLES = """\
examples:
  pytracecon flows --port 443         who has connections to port 443
  pytracecon flows --sort rx --limit 20
                                      those that received most
  pytracecon flows --watch 5          every five seconds, with rates
  pytracecon flows --listen           who listens where, how full the backlog is
  pytracecon flows --format json | jq .pid

# pytracecon flows --listen
PROTO PID    COMM       LOCAL                 BACKLOG  LIMIT
tcp   15480  python3    *:8080                      0      5
tcp   15491  nginx      *:443                      12    511

A column is sorted by the most first where it says how much or how long, and
else from the least. Ages and names are known of what is made while it watches.
A terminal that is too narrow for all columns gets fewer, unless -w is given.
"""

_LIMIT = 10_000
_MOST = 1 << 31
_OF_REMOTES = ("port", "not_port", "remote", "not_remote", "direction", "host")
_WITHOUT = ("--failed", "--min-latency")


class _Parser(Parser):
    """`--sort -COLUMN` is a value, and no option."""

    def parse_known_args(  # type: ignore[override] # of its overloads the one that is called
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        words = sys.argv[1:] if args is None else list(args)
        for at in reversed(range(len(words) - 1)):
            if words[at] == "--sort" and words[at + 1].startswith("-"):
                words[at : at + 2] = [f"--sort={words[at + 1]}"]
        return super().parse_known_args(words, namespace)


def parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="pytracecon flows",
        usage="pytracecon flows [options]",
        description=(__doc__ or "").strip(),
        epilog=_EXAMPLES,
    )
    parser.set_defaults(lists=True)
    group = parser.add_argument_group("listing")
    group.add_argument("--watch", metavar="S", help="list every so many seconds, until Ctrl-C")
    group.add_argument("--listen", action="store_true", help="those that listen, in place of connections")
    group.add_argument("--proto", metavar="tcp|udp", help="of one protocol; MPTCP is TCP here")
    group.add_argument(
        "--sort", metavar="COLUMN", help="by this column; -COLUMN: the other way round; default: by process"
    )
    group.add_argument("--limit", metavar="N", help=f"so many rows of a listing at most; default: {_LIMIT}")
    group = parser.add_argument_group("table")
    group.add_argument("-w", "--wide", action="store_true", help="with queues, descriptor, identity and the other end")
    group.add_argument("--bytes", action="store_true", help="bytes to the last one")
    add_filters(parser, without=_WITHOUT)
    add_names(parser)
    add_output(parser)
    add_run(parser, counted="listings")
    add_tracer(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    with Signals() as signals:
        from pytracecon.filters import values  # noqa: PLC0415 - not for --help

        given = keywords(options)
        interval = None if options.watch is None else values.seconds("--watch", options.watch)
        limit = _LIMIT if options.limit is None else values.number("--limit", options.limit, 1, _MOST)
        if options.proto is not None:
            values.choice("--proto", options.proto, ("tcp", "udp"))
        return launch(
            options,
            signals,
            given,
            what="listeners" if options.listen else "TCP connections and UDP conversations",
            table=output(options),
            shows=None,
            every_format=True,
            interval=interval,
            run=partial(_listings, partial(_listed, options, order(options), limit), limit),
            lists=True,
        )


def keywords(options: argparse.Namespace) -> dict[str, Any]:
    """Of the tracer, judged. It is asked for no more than the listing shows."""
    from pytracecon.filters import Filters  # noqa: PLC0415 - not for --help

    _refuse(options)
    given = tracer_keywords(options)
    given["events"] = _events(options)
    if not _shows_names(options):
        given["names"] = False
    if not shows_processes(options, show.keys(options)):
        given["processes"] = False
    Filters.parse(**given)
    return given


def _events(options: argparse.Namespace) -> list[str]:
    """Those that tell what ended since a listing: none for one, nor of who listens. To count datagrams is not free."""
    if options.watch is None or options.listen:
        return []
    return {"tcp": ["close", "failed"], "udp": ["flow"]}.get(options.proto, ["close", "failed", "flow"])


def _refuse(options: argparse.Namespace) -> None:
    """What makes no sense together."""
    if options.listen:
        for name in _OF_REMOTES:
            if getattr(options, name) is not None:
                raise InvalidValue(
                    f"--{name.replace('_', '-')}: who listens has no other end; leave it out, or --listen"
                )
    if options.watch is None:
        for option, given in (("--duration", options.duration), ("--count", options.count)):
            if given is not None:
                raise InvalidValue(f"{option}: there is one listing, and then it ends; add --watch, or leave it out")
        for option, given in (("--host", options.host), ("--reverse", options.reverse or None)):
            if given is not None:
                raise InvalidValue(
                    f"{option}: names are learnt while it watches, and one listing is over before; add --watch"
                )


def _shows_names(options: argparse.Namespace) -> bool:
    """One listing is over before any name could be learnt, and who listens has none."""
    return options.watch is not None and not options.listen and bool(options.names)


def shown(options: argparse.Namespace, *, wide: bool, room: int | None = None) -> list[Shown]:
    """The columns of the table, on a terminal those for which there is `room`."""
    from pytracecon.views import flows  # noqa: PLC0415 - not for --help

    made = (
        flows.listeners(wide=wide)
        if options.listen
        else flows.columns(
            watched=options.watch is not None,
            host=_shows_names(options),
            wide=wide,
            exact=options.bytes,
            room=room,
        )
    )
    return [*made, *flows.of_keys(show.keys(options))]


def order(options: argparse.Namespace) -> Order | None:
    """What --sort asks for: any column there could be, though the table or the format has others."""
    if options.sort is None:
        return None
    from pytracecon.filters.values import refusal  # noqa: PLC0415 - not for --help
    from pytracecon.views import flows  # noqa: PLC0415

    known = shown(options, wide=True)
    found = flows.order(known, options.sort)
    if found is None:
        raise InvalidValue(
            f"{refusal('--sort', options.sort, 'is no column; there are')} {', '.join(flows.names(known))}"
        )
    return found


def _listed(options: argparse.Namespace, order: Order | None, limit: int, tracer: Tracer) -> Listed:
    # All there are: which of them is most is not known before.
    return listed(options, order, limit, tracer.snapshot(limit=None))


def listed(options: argparse.Namespace, order: Order | None, limit: int, snapshot: Snapshot) -> Listed:
    """What is written of a snapshot. Each row has the time of the listing."""
    from pytracecon.commands.listings import Listed  # noqa: PLC0415 - not for --help
    from pytracecon.ordering import Nothing, arranged  # noqa: PLC0415
    from pytracecon.views.flows import is_alone, waits  # noqa: PLC0415

    wanted = [row for row in snapshot if waits(row) == options.listen and _is_of(options.proto, row)]
    if options.watch is not None and not options.listen:
        wanted = [row for row in wanted if not is_alone(row)]  # conversations are counted, each in its row
    rows, left_out = arranged(wanted, order, limit)
    for row in rows:
        row.time_ns = snapshot.time_ns
    if not rows and options.watch is not None and shows_table(options):
        what = "listeners" if options.listen else "connections"
        return Listed([Nothing(snapshot.time_ns, what)], 0, 0)
    return Listed([*rows], len(rows), left_out + snapshot.left_out)


def _is_of(proto: str | None, row: Connection) -> bool:
    return proto is None or (row.proto == "udp") == (proto == "udp")


def output(options: argparse.Namespace) -> Callable[[Sink], Output]:
    """What makes the output for a sink. A template is judged before there is one."""
    if options.template is not None:
        from pytracecon.outputs.template import Template, TemplateLines  # noqa: PLC0415 - not for --help
        from pytracecon.views.shown import of_connections  # noqa: PLC0415

        template = Template.parse("--template", options.template, of_connections())
        return lambda _: TemplateLines(template)
    if options.format == "table":
        return partial(_table, options)
    return lambda _: _in_full(options.format)


def _table(options: argparse.Namespace, target: Sink) -> Output:
    from pytracecon.views import flows  # noqa: PLC0415 - while the kernel verifies

    made = shown(options, wide=options.wide, room=target.terminal_width())
    table = flows.table(made, target.terminal_width, times=options.watch is not None, utc=options.utc)
    return coloured(table, options.color, target)


def _in_full(form: str) -> Output:
    """All that connections have, in this format."""
    if form == "json":
        from pytracecon.outputs.json_lines import JsonLines  # noqa: PLC0415 - the one that is asked for

        return JsonLines()
    if form == "csv":
        from pytracecon.connections import Connection  # noqa: PLC0415
        from pytracecon.events import Lost  # noqa: PLC0415
        from pytracecon.outputs.csv_rows import CsvRows  # noqa: PLC0415
        from pytracecon.outputs.keys import keys  # noqa: PLC0415

        return CsvRows(list(dict.fromkeys([*keys(Connection), *keys(Lost)])))
    from pytracecon.outputs import journal  # noqa: PLC0415
    from pytracecon.views import flows  # noqa: PLC0415

    return journal.Journal(partial(journal.fields, message=flows.message))


def _listings(lists: Callable[[Tracer], Listed], limit: int, *given: Any, **more: Any) -> Session:
    from pytracecon.commands.listings import Listings  # noqa: PLC0415 - not for --help

    return Listings(*given, **more, lists=lists, limit=limit)


__all__ = ["keywords", "listed", "order", "output", "parser", "run", "shown"]
