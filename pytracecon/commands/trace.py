"""Every TCP connection, as it happens: who opened it, how long the handshake
took, how much went each way, how and by whom it ended.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from pytracecon.commands import VERBS
from pytracecon.commands.console import Parser, log_to_stderr, show
from pytracecon.commands.options import add_filters, add_output, add_run, add_tracer, tracer_keywords
from pytracecon.commands.signals import Signals
from pytracecon.errors import InvalidValue

if TYPE_CHECKING:
    from pytracecon.commands.session import Session
    from pytracecon.events import Event
    from pytracecon.outputs import Output
    from pytracecon.outputs.sink import Sink

_EXAMPLES = """\
examples:
  pytracecon                                      everything
  pytracecon --port 443 --direction out           who goes out, and where
  pytracecon --failed                             what cannot connect, and why
  pytracecon -p 1234 --children --format json     one process and its children, for programs
  pytracecon --remote 10.0.0.0/8 --min-latency 50 slow handshakes within the house
"""


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="pytracecon",
        usage="pytracecon [options]\n       pytracecon VERB [options]",
        description=(__doc__ or "").strip(),
        epilog="verbs:\n" + "".join(f"  {name:<10} {what}\n" for name, what in VERBS.items()) + "\n" + _EXAMPLES,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="say it and exit")
    group = parser.add_argument_group("events")
    group.add_argument(
        "--events",
        metavar="LIST",
        action="append",
        help="of connect, established, failed, accept, close; default: all, in the table all but connect, whose "
        "outcome follows. What was lost is always said",
    )
    group.add_argument("--existing", action="store_true", help="first those that are open now, as they stand")
    add_filters(parser)
    add_output(parser)
    add_run(parser)
    add_tracer(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    with Signals() as signals:
        return _run(options, signals)


def _run(options: argparse.Namespace, signals: Signals) -> int:
    # Imported now: --help needs none of it.
    from pytracecon.filters import Filters, values  # noqa: PLC0415
    from pytracecon.outputs import sink  # noqa: PLC0415

    keywords = tracer_keywords(options)
    Filters.parse(**keywords)
    if options.append and options.output is None:
        raise InvalidValue("-a: appends to which file? Give it with -o FILE")
    count = None if options.count is None else values.number("--count", options.count, 1, 1 << 62)
    duration = None if options.duration is None else values.seconds("--duration", options.duration)
    if options.verbose:
        log_to_stderr(options.verbose)
    file = options.output
    target = sink.standard_output() if file is None else sink.open_file(file, append=options.append)
    try:
        return _session(options, keywords, target, count, duration).run(signals)
    finally:
        target.close()


def _session(
    options: argparse.Namespace, keywords: dict[str, object], target: Sink, count: int | None, duration: float | None
) -> Session:
    from pytracecon.commands.session import Session  # noqa: PLC0415

    in_table = options.format == "table"
    if in_table and options.events is None and not options.failed:
        keywords["events"] = ["established", "failed", "accept", "close"]
    return Session(
        keywords,
        _output(options, target),
        target,
        shows=_is_no_subflow if in_table and not options.verbose else None,
        count=count,
        duration=duration,
        fail_on_loss=options.fail_on_loss,
        verbose=options.verbose,
        json=options.format == "json",
    )


def _is_no_subflow(event: Event) -> bool:
    return getattr(event, "subflow_of", None) is None


def _output(options: argparse.Namespace, target: Sink) -> Output:
    # The one that is asked for, not the others: msgspec alone takes as long to import as the rest together.
    if options.format == "json":
        from pytracecon.outputs.json_lines import JsonLines  # noqa: PLC0415

        return JsonLines()
    if options.format == "csv":
        from pytracecon.outputs.csv_rows import CsvRows  # noqa: PLC0415

        return CsvRows()
    from pytracecon.views import trace  # noqa: PLC0415

    return trace.table(target.terminal_width, utc=options.utc)


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from pytracecon import __version__  # noqa: PLC0415

        show(f"pytracecon {__version__}\n")
        parser.exit()
