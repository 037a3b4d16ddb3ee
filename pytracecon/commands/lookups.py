"""Every name that is looked up, as it happens: by whom, how long it took, and
what came of it. Lookups are told by a libc's resolver (getaddrinfo,
gethostbyname) and by DNS packets (dns). What a libc's resolver sends is part of
the libc's own lookup, and left out in every format unless --all is given.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from pytracecon.commands import show
from pytracecon.commands.console import Parser
from pytracecon.commands.launch import launch
from pytracecon.commands.options import (
    add_output,
    add_processes,
    add_run,
    add_tracer,
    shows_processes,
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
  pytracecon lookups                              everything
  pytracecon lookups --name '*.example.com'       who asks for these
  pytracecon lookups --failed --slower 1000       what fails after more than 1 s
  pytracecon lookups --comm curl --all            one program, to the packet

  # pytracecon lookups
  TIME     PID    COMM      LATENCY   SOURCE      NAME → RESULT
  09:32:56 15588  curl      1.24 ms   getaddrinfo app.example.com → 10.0.0.7
  09:32:56 15600  dig       11.24 ms  dns AAAA    www.example.com → 2001:db8::7
  09:32:56 15588  curl      31.24 ms  getaddrinfo old.example.com → EAI_NONAME
"""


def parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="pytracecon lookups",
        usage="pytracecon lookups [options]",
        description=(__doc__ or "").strip(),
        epilog=_EXAMPLES,
    )
    group = parser.add_argument_group(
        "filters",
        "All must hold; several values of one are alternatives. Those of processes are\n"
        "applied in the kernel, --name, --slower, --failed and --all behind it.",
    )
    add_processes(group.add_argument)
    group.add_argument(
        "--name", metavar="PATTERN", action="append", help="names such as '*.example.com', in any case; repeatable"
    )
    group.add_argument("--slower", metavar="MS", help="only what took at least so long, from 0.001")
    # Not `failed`, which is a keyword of the tracer, for connections.
    group.add_argument("--failed", dest="without_answer", action="store_true", help="only what did not end `ok`")
    group.add_argument("--all", action="store_true", help="also each packet that a libc's resolver sends")
    add_output(parser)
    add_run(parser)
    add_tracer(parser)
    return parser


def run(options: argparse.Namespace) -> int:
    with Signals() as signals:
        from pytracecon.filters import Filters  # noqa: PLC0415 - not for --help

        keywords = tracer_keywords(options) | {"events": ["lookup"]}
        if not shows_processes(options, show.keys(options)):
            keywords["processes"] = False
        Filters.parse(**keywords)
        return launch(
            options, signals, keywords, what="name lookups", table=partial(_table, options), shows=shows(options)
        )


def shows(options: argparse.Namespace) -> Callable[[Event], bool] | None:
    """Which events the options let through; None if all. What was lost always is."""
    from pytracecon.events import Lookup  # noqa: PLC0415 - not for --help
    from pytracecon.filters import hosts, values  # noqa: PLC0415

    fits = hosts.matcher(hosts.parse("--name", options.name)) if options.name is not None else None
    slower = values.milliseconds("--slower", options.slower)
    failed, packets = options.without_answer, options.all
    if packets and not failed and not slower and fits is None:
        return None

    def judged(event: Event) -> bool:
        return not isinstance(event, Lookup) or (
            (packets or event.within is None)
            and (not failed or event.result != "ok")
            and (event.latency_ns or 0) >= slower
            and (fits is None or fits(event.name))
        )

    return judged


def _table(options: argparse.Namespace, target: Sink) -> Output:
    from pytracecon.views import lookups  # noqa: PLC0415

    return lookups.table(target.terminal_width, utc=options.utc, shown=show.columns(options))
