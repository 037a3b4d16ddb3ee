"""Every outbound TCP connection that a process asks for, as its first SYN leaves:
tcpconnect, with its options and columns.
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
  pytracecon connect -t -P 80,443     who goes to the web, and when
  pytracecon connect -d               by which name, and how long after it
  pytracecon connect -c               how often, told at Ctrl-C
  pytracecon connect --failed         what cannot connect, and why

  # pytracecon connect -d -P 8080
  PID    COMM         IP SADDR            DADDR            DPORT  QUERY
  15588  curl         4  10.0.0.5         10.0.0.7         8080   db.example.com
  15590  curl         4  10.0.0.5         10.0.0.7         8080   No DNS Query
"""


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="pytracecon connect",
        usage="pytracecon connect [options]",
        description=(__doc__ or "").strip(),
        epilog=_EXAMPLES,
    )
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
    add_filters(
        parser,
        also={"--port": ("-P",), "--uid": ("-u",)},
        without={"--direction", "--failed", "--min-latency"},
    )
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
            what="outbound TCP connections",
            table=partial(_table, options, answers),
            shows=shows(options, answers),
        )


def keywords(options: argparse.Namespace) -> dict[str, Any]:
    """Of the tracer, judged. Names that nobody would see are left out, lookups are for those who see when they were."""
    from pytracecon.filters import Filters  # noqa: PLC0415 - not for --help

    given = tracer_keywords(options)
    failed = given.pop("failed", False)
    given["events"] = ["failed"] if failed else ["connect", "failed"] if options.all else ["connect"]
    if shows_table(options):
        if options.dns:
            given["events"].append("lookup")
        elif not options.host and not options.reverse:
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
    if options.counts and options.dns:
        raise InvalidValue("-c: counts connections of all names together; leave -d out, or give it without -c")
    if options.counts and options.all:
        raise InvalidValue("-c: counts attempts, and those that fail are among them; leave --all out")
    if options.counts and not shows_table(options):
        raise InvalidValue("-c: its counts are a table; leave it out, or the other format")
    if options.dns and not options.names:
        raise InvalidValue("-d: --no-names leaves every connection without a name; leave one of them out")


def _table(options: argparse.Namespace, answers: Answers, target: Sink) -> Output:
    from pytracecon.views import connect  # noqa: PLC0415

    if options.counts:
        return connect.Counts(target.terminal_width)
    shown = connect.cells(
        timestamp=options.timestamp,
        print_uid=options.print_uid,
        lport=options.lport,
        failures=options.failed or options.all,
        answers=answers if options.dns else None,
    )
    return connect.table(shown, target.terminal_width)
