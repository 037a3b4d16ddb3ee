"""From the options of a verb that traces to its run: what all of them have in common."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pytracecon.commands.console import log_to_stderr
from pytracecon.commands.signals import Signals
from pytracecon.errors import InvalidValue

if TYPE_CHECKING:
    from pytracecon.events import Event
    from pytracecon.outputs import Output
    from pytracecon.outputs.sink import Sink

__all__ = ["launch"]


def launch(
    options: argparse.Namespace,
    signals: Signals,
    keywords: dict[str, Any],
    *,
    what: str,
    table: Callable[[Sink], Output],
    shows: Callable[[Event], bool] | None,
    every_format: bool = False,
    interval: float | None = None,
) -> int:
    """The exit status. `keywords` are right; `table` is made if that is the format, `shows` chooses what is written.

    With `every_format` it is `table` that makes the output of each. One that sums up does so every `interval` seconds
    too, not only at the end.
    """
    # Imported now: --help needs none of it.
    from pytracecon.filters import values  # noqa: PLC0415
    from pytracecon.outputs import sink  # noqa: PLC0415

    if options.append and options.output is None:
        raise InvalidValue("-a: appends to which file? Give it with -o FILE")
    count = None if options.count is None else values.number("--count", options.count, 1, 1 << 62)
    duration = None if options.duration is None else values.seconds("--duration", options.duration)
    if options.verbose:
        log_to_stderr(options.verbose)
    file = options.output
    target = sink.standard_output() if file is None else sink.open_file(file, append=options.append)
    try:
        from pytracecon.commands.session import Session  # noqa: PLC0415

        return Session(
            keywords,
            table(target) if every_format else _output(options.format, target, table),
            target,
            what=what,
            shows=shows,
            count=count,
            duration=duration,
            interval=interval,
            fail_on_loss=options.fail_on_loss,
            verbose=options.verbose,
            json=options.format == "json" and not every_format,
        ).run(signals)
    finally:
        target.close()


def _output(form: str, target: Sink, table: Callable[[Sink], Output]) -> Output:
    # The one that is asked for, not the others: msgspec alone takes as long to import as the rest together.
    if form == "json":
        from pytracecon.outputs.json_lines import JsonLines  # noqa: PLC0415

        return JsonLines()
    if form == "csv":
        from pytracecon.outputs.csv_rows import CsvRows  # noqa: PLC0415

        return CsvRows()
    return table(target)
