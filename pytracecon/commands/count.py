"""Events, counted by any of their keys: how many there are in each group, how
many bytes went over connections that ended, and how long handshakes and lookups
took. Told at the end, or every --interval.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import TYPE_CHECKING, Any

from pytracecon.commands.console import Parser
from pytracecon.commands.launch import coloured, launch
from pytracecon.commands.options import add_filters, add_names, add_output, add_run, add_tracer, tracer_keywords
from pytracecon.commands.signals import Signals
from pytracecon.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pytracecon.events import Event
    from pytracecon.outputs import Output
    from pytracecon.outputs.counting import Counting
    from pytracecon.outputs.sink import Sink

_EXAMPLES = """\
examples:
  pytracecon count --by comm,host,remote_port     who connects to whom
  pytracecon count --interval 1 --top 5           each second, its five largest
  pytracecon count --events close --by comm --sort rx_bytes
                                                  who receives most
  pytracecon count --events lookup --by name --sort p99
                                                  which names are slow

  # pytracecon count --by comm,host --events close --direction out
  COMM        HOST                        EVENTS        TX        RX
  curl        www.example.com                 24    2016 B   1.16 MB
  curl        ?                                3     231 B    145 kB
  wget        www.example.com                  1     135 B   48188 B

Percentiles are at most 1.6 % off, the maximum is exact. An interval has the
events that were read in it, by the clock, and is told when there are none too.
"""

_BY = "event,comm"
_MOST = 1_000_000


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="pytracecon count",
        usage="pytracecon count [options]",
        description=(__doc__ or "").strip(),
        epilog=_EXAMPLES,
    )
    group = parser.add_argument_group("groups")
    group.add_argument("--by", metavar="KEYS", default=_BY, help=f"such as comm,host,remote_port; default: {_BY}")
    group.add_argument("--sort", metavar="KEY", default="events", help=_sorts())
    group.add_argument("--top", metavar="N", help="so many groups, and all others in one")
    group.add_argument("--max-groups", metavar="N", help="others are all beyond so many; default: 10000")
    group.add_argument("--interval", metavar="S", help="tell every so many seconds, and begin anew")
    group.add_argument("--cumulative", action="store_true", help="do not begin anew: from the start each time")
    group = parser.add_argument_group("events")
    group.add_argument(
        "--events",
        metavar="LIST",
        action="append",
        help="of connect, established, failed, accept, close, lookup, and of state, retransmit, reset, flow, which "
        "count if they are named only; default: all others but connect, whose outcome follows; lookup not with a "
        "filter that only a connection can meet",
    )
    group.add_argument("--existing", action="store_true", help="also those that are open at the start")
    group.add_argument(
        "--all", action="store_true", help="also what another event tells: paths of MPTCP, a libc's packets"
    )
    add_filters(parser)
    add_names(parser)
    add_output(parser, show=False)
    add_run(parser)
    add_tracer(parser)
    return parser


def _sorts() -> str:
    return "events, tx_bytes, rx_bytes, p50, p90, p99 or max: the most first; or one of --by; default: events"


def run(options: argparse.Namespace) -> int:
    with Signals() as signals:
        from pytracecon.filters import values  # noqa: PLC0415 - not for --help

        given = keywords(options)
        return launch(
            options,
            signals,
            given,
            what="TCP connections and lookups",
            table=output(options, given["events"]),
            shows=shows(options),
            every_format=True,
            interval=None if options.interval is None else values.seconds("--interval", options.interval),
        )


def keywords(options: argparse.Namespace) -> dict[str, Any]:
    """Of the tracer, judged. A connect event is left out unless it is asked for: its outcome follows."""
    from pytracecon.filters import Filters  # noqa: PLC0415
    from pytracecon.views.shown import OF_PROCESSES  # noqa: PLC0415

    given = tracer_keywords(options)
    events = Filters.parse(**given).events
    given["events"] = sorted(events if options.events is not None else events - {"connect"})
    if "lookup" not in events and not options.host and not options.reverse and not any(map(_is_name, by(options))):
        given["names"] = False
    if OF_PROCESSES.isdisjoint(by(options)) and not options.container and not options.unit and not options.exe:
        given["processes"] = False
    return given


def shows(options: argparse.Namespace) -> Callable[[Event], bool] | None:
    """Which events are counted; None if all."""
    return None if options.all else _is_whole


def _is_whole(event: Event) -> bool:
    """Not a path of a connection that is told by itself, nor a packet of a libc's lookup that is."""
    return getattr(event, "subflow_of", None) is None and getattr(event, "within", None) is None


def by(options: argparse.Namespace) -> list[str]:
    """The keys of --by, which are keys of some event."""
    from pytracecon.filters.values import each, refusal  # noqa: PLC0415
    from pytracecon.outputs.counts import KEYS  # noqa: PLC0415
    from pytracecon.views.shown import OF_PROCESSES  # noqa: PLC0415

    keys: list[str] = []
    for key in each("--by", options.by, "give keys of events, such as comm"):
        if key not in KEYS:
            raise InvalidValue(f"{refusal('--by', key, 'is no key to group by; there are')} {', '.join(KEYS)}")
        if key in keys:
            raise refusal("--by", key, "is named twice")
        keys.append(str(key))
    for key in keys:
        if _is_name(key) and not options.names:
            raise InvalidValue(f"--by: --no-names leaves every connection without {key}; leave one of them out")
        if key in OF_PROCESSES and not options.processes:
            raise InvalidValue(f"--by: --no-processes leaves every owner without {key}; leave one of them out")
    return keys


def _is_name(key: str) -> bool:
    return key in ("host", "host_source", "host_candidates")


def output(
    options: argparse.Namespace, events: Collection[str], clock: Callable[[], int] = time.time_ns
) -> Callable[[Sink], Counting]:
    """What makes the output for a sink. All options are judged before there is one."""
    from pytracecon.filters.values import choice, number  # noqa: PLC0415
    from pytracecon.grouping import MEASURES, MOST_GROUPS, Groups  # noqa: PLC0415
    from pytracecon.outputs.counting import Counting  # noqa: PLC0415
    from pytracecon.outputs.template import value_of  # noqa: PLC0415

    keys = by(options)
    sort = choice("--sort", options.sort, (*MEASURES, *keys))
    top = None if options.top is None else number("--top", options.top, 1, _MOST)
    most = MOST_GROUPS if options.max_groups is None else number("--max-groups", options.max_groups, 1, _MOST)
    every = options.interval is not None
    if options.cumulative and not every:
        raise InvalidValue("--cumulative: without --interval all is told once, at the end; give it, or leave this out")
    make = _rows(options, keys, events)
    groups = Groups(keys, value_of, most=most)

    def made(target: Sink) -> Counting:
        at_end = options.format == "table" and options.template is None and not every
        return Counting(
            make(target),
            groups.add,
            partial(groups.counts, sort=sort, top=top),
            clear=None if options.cumulative else groups.clear,
            every=every,
            clock=clock,
            late=(b"\n" if target.is_terminal else b"") if at_end else None,
        )

    return made


def _rows(options: argparse.Namespace, keys: list[str], events: Collection[str]) -> Callable[[Sink], Output]:
    """How rows are written."""
    from pytracecon.outputs import counts  # noqa: PLC0415
    from pytracecon.views import count  # noqa: PLC0415

    if options.template is not None:
        from pytracecon.outputs.template import Template, TemplateLines  # noqa: PLC0415

        known = ("time", "from", "kind", *keys, *counts.MEASURED)
        template = Template.parse("--template", options.template, known)
        return lambda _: TemplateLines(template, counts.value_of)
    if options.format == "json":
        return lambda _: counts.CountJson()
    if options.format == "csv":
        return lambda _: counts.CountCsv(keys)
    if options.format == "journal":
        from pytracecon.outputs.journal import Journal  # noqa: PLC0415

        return lambda _: Journal(partial(counts.fields, message=count.message))
    every = options.interval is not None

    def table(target: Sink) -> Output:
        made = count.table(keys, events, target.terminal_width, every=every, utc=options.utc)
        return coloured(made, options.color, target)

    return table
