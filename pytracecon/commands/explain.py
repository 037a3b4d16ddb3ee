"""One connection's life on a screen, from the lookup of its name to its end: who
and to whom, how long each phase took, what was sent again, how it ended and
why, and all its events.

Traced now, each connection is told when it is over, at the end of the run those
that are not. Or told of a file of events: the one that CONN names, or the only
one; of several, which there are. What there is to tell is written to a file by
pytracecon explain --format json.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pytracecon.commands.console import Parser, say
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
    from pytracecon.filters import Filters
    from pytracecon.lives import Life, Lives
    from pytracecon.outputs.sink import Sink
    from pytracecon.reading import Lines

_EXAMPLES = """\
examples:
  pytracecon explain --comm curl --count 1        the next connection of curl
  pytracecon explain --failed                     what fails, and why
  pytracecon explain --format json -o events.jsonl
  pytracecon explain --file events.jsonl          which there are
  pytracecon explain --file events.jsonl 3fa2     the one with this identity

  # pytracecon explain --comm curl --count 1
  curl (15588) → www.example.com:8080: closed by the server after 7.10 ms
  connection   00003fa2c18e0007: 10.0.0.5:48968 → 10.0.0.7:8080, TCP
  name         www.example.com, it asked its libc (getaddrinfo)
  payload      88 B out, 48401 B in
  end          the server closed it first; this side (the client) followed
               after 0.04 ms

  PHASE                  TOOK
  resolver            1.24 ms  |#####                                   |
  until the SYN       0.10 ms  |     #                                  |
  handshake           0.06 ms  |     #                                  |
  open                7.02 ms  |      ################################# |
  closing             0.08 ms  |                                       #|

and so on, with a row for each event.
"""

_EVENTS = ("connect", "established", "failed", "accept", "close", "state", "retransmit", "reset")
_OF_WHOLE_LIVES = ("failed", "min_latency", "host", "container", "unit", "exe")
"""Filters that not every event of a connection can meet: they are for what is known at its end."""
_MOST_LISTED = 10_000
_LOOK_AGAIN = 1.0  # seconds, for what should have come behind an end, and did not
_DIGITS = frozenset("0123456789abcdef")
_BAD_INPUT = 2
_OPTIONS = {"family": "-4 and -6", "names": "--no-names", "processes": "--no-processes"}
"""Which say otherwise what they are called here."""


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="pytracecon explain",
        usage="pytracecon explain [options]\n       pytracecon explain --file FILE [CONN]",
        description=(__doc__ or "").strip(),
        epilog=_EXAMPLES,
    )
    group = parser.add_argument_group("events of a file")
    group.add_argument(
        "conn",
        metavar="CONN",
        nargs="?",
        help="the key conn of its events, or how that begins; zeros in front may be missing",
    )
    group.add_argument("--file", metavar="FILE", help="what --format json wrote; - is standard input")
    add_filters(parser)
    add_names(parser)
    add_output(parser, show=False)
    add_run(parser)
    add_tracer(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    if options.file is not None:
        return _of_file(options)
    if options.conn is not None:
        raise InvalidValue("CONN: of which events? Give the file that --format json wrote with --file")
    with Signals() as signals:
        from pytracecon.outputs.lives import LifeScreens  # noqa: PLC0415 - not for --help

        given, wanted = keywords(options)
        unfinished = options.count is None
        screens = LifeScreens(wanted=wanted, paths=options.verbose > 0, unfinished=unfinished, utc=options.utc)
        whole = shows_table(options)
        return launch(
            options,
            signals,
            given,
            what="lives of TCP connections",
            table=lambda target: screens.onto(target.terminal_width, coloured=_coloured(options, target)),
            shows=screens.passes if whole else None,
            interval=_LOOK_AGAIN if whole else None,
        )


def keywords(options: argparse.Namespace) -> tuple[dict[str, Any], Callable[[Life], bool] | None]:
    """Of the tracer, judged; and which lives are told, None if all. In other formats all filters are the tracer's."""
    from pytracecon.filters import Filters  # noqa: PLC0415 - not for --help

    events = [*_EVENTS, *(["lookup"] if options.names else [])]
    given = tracer_keywords(options) | {"events": events}
    filters = Filters.parse(**given)
    if not shows_table(options):
        return given, None
    kept = {name: given.pop(name) for name in _OF_WHOLE_LIVES if name in given}
    return given, _chooser(filters, failed="failed" in kept) if kept else None


def _chooser(filters: Filters, *, failed: bool) -> Callable[[Life], bool]:
    from pytracecon.events import Established, Failed  # noqa: PLC0415 - not for --help
    from pytracecon.filters import hosts, owners  # noqa: PLC0415

    named = hosts.matcher(filters.hosts) if filters.hosts else None
    owned = owners.matcher(filters.containers, filters.units, filters.exes)

    def chosen(life: Life) -> bool:
        if failed and not isinstance(life.end, Failed):
            return False
        answered = life.the(Established) or life.the(Failed)
        if filters.min_latency_ns and (answered is None or (answered.latency_ns or 0) < filters.min_latency_ns):
            return False
        return (named is None or named(life.last("host"))) and (owned is None or owned(life.last("process")))

    return chosen


def _coloured(options: argparse.Namespace, target: Sink) -> bool:
    from pytracecon.outputs import colour  # noqa: PLC0415

    return colour.wanted(options.color, terminal=target.is_terminal)


def _of_file(options: argparse.Namespace) -> int:
    from pytracecon.outputs import sink  # noqa: PLC0415 - none of these is for --help
    from pytracecon.reading import Lines, open_file  # noqa: PLC0415
    from pytracecon.views import explain as view  # noqa: PLC0415

    _refuse_what_is_for_tracing(options)
    prefix = _prefix(options.conn)
    with open_file(options.file) as stream:
        lines = Lines(stream, options.file)
        lives = _read(lines, prefix)
        life = _the_one(lives, lines, options)
    target = sink.standard_output() if options.output is None else sink.open_file(options.output, append=options.append)
    try:
        how: dict[str, Any] = {"utc": options.utc, "coloured": _coloured(options, target)}
        if life is not None:
            text = view.screen(life, target.terminal_width, lost=lives.lost_in(life), **how)
        else:
            text = view.choice(lives.all.values(), target.terminal_width, **how)
        target.begin(text.encode(errors="backslashreplace"))
    finally:
        target.close()
    if life is None:
        count = f"{'more than ' if lives.there_are_more else ''}{len(lives.all)}"
        say(f"{count} connections; for one of them: pytracecon explain --file {options.file} CONN")
    if lines.cut_off is not None:
        say(f"--file: {lines.name}, line {lines.cut_off}: it is cut off, and left out; what stands before it is told")
        return _BAD_INPUT
    return 0


def _read(lines: Lines, prefix: str) -> Lives:
    from pytracecon.lives import Lives  # noqa: PLC0415

    lives = Lives(prefix, the_one=True, most=_MOST_LISTED)
    for event in lines:
        lives.take(event)
    return lives


def _the_one(lives: Lives, lines: Lines, options: argparse.Namespace) -> Life | None:
    """None where none was asked for, and there are several."""
    found = list(lives.all.values())
    if options.conn is None and len(found) > 1:
        return None
    if len(found) > 1:
        named = ", ".join(life.conn for life in found[:4]) + (", …" if len(found) > 4 else "")
        raise InvalidValue(f"CONN: {options.conn} begins {named}; give more digits")
    if not found:
        raise InvalidValue(_nothing(lines, options))
    (life,) = found
    if life.of_two_runs:
        raise InvalidValue(f"CONN: {life.conn} is in two runs that this file holds; give a file with one of them")
    return life


def _nothing(lines: Lines, options: argparse.Namespace) -> str:
    if not lines.read:
        what = "has one line, which is cut off" if lines.cut_off is not None else "is empty"
        return f"--file: {lines.name} {what}; give a file that --format json wrote"
    if options.conn is None:
        return f"--file: {lines.name} tells of no connection; give one with --events that are a connection's"
    return f"CONN: no connection in {lines.name} begins with {options.conn}; leave it out to see which there are"


def _prefix(conn: str | None) -> str:
    if conn is None:
        return ""
    prefix = conn.lower()
    if not 1 <= len(prefix) <= 16 or not _DIGITS.issuperset(prefix):
        from pytracecon.filters.values import refusal  # noqa: PLC0415

        raise refusal("CONN", conn, "is no identity: up to 16 hex digits, as the key conn has them")
    return prefix


def _refuse_what_is_for_tracing(options: argparse.Namespace) -> None:
    for name in tracer_keywords(options):
        option = _OPTIONS.get(name, f"--{name.replace('_', '-')}")
        raise InvalidValue(f"{option}: for what is traced, and --file tells of what was; leave one of them out")
    for option, given in (
        ("--duration", options.duration),
        ("--count", options.count),
        ("--fail-on-loss", options.fail_on_loss),
        ("--journal-socket", options.journal_socket),
        ("--user", options.tracer_user),
    ):
        if given:
            raise InvalidValue(f"{option}: for what is traced, and --file tells of what was; leave one of them out")
    if not shows_table(options):
        option = "--format" if options.template is None else "--template"
        raise InvalidValue(f"{option}: --file holds the events as JSON already; leave it out")
    if options.append and options.output is None:
        raise InvalidValue("-a: appends to which file? Give it with -o FILE")
